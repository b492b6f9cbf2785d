//! What a server asks for before it is known who it is: an end to whoever asks for the password itself.

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The server asks for the password in clear, or as MD5 from which it can be guessed, and nobody has verified who it is.
/// Nothing was sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsksForPassword;

impl fmt::Display for AsksForPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the server asks for the password in clear or as MD5, over a connection of which nobody knows where it leads: \
             use sslmode verify-full, or SCRAM in pg_hba.conf",
        )
    }
}

impl Error for AsksForPassword {}

/// Follows the server's messages until it is content with our authentication (PostgreSQL documentation, "Message
/// Formats": a byte that says what it is, a length of four bytes that counts itself, the body).
#[derive(Debug, Default)]
pub(crate) struct Watch {
    head: [u8; 9],
    filled: usize,
    /// Of the body, and of no interest.
    skip: usize,
    over: bool,
}

const HEAD: usize = 5;
/// An authentication request says in these what it wants.
const REQUEST: usize = 9;

impl Watch {
    /// `Err` if the password is asked for in these bytes.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) -> Result<(), AsksForPassword> {
        while let (false, Some((first, rest))) = (self.over, bytes.split_first()) {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            if let Some(place) = self.head.get_mut(self.filled) {
                *place = *first;
            }
            self.filled += 1;
            bytes = rest;
            let [kind, a, b, c, d, request @ ..] = self.head;
            let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            match (self.filled, kind) {
                (HEAD, b'R') if length >= 8 => {}
                (HEAD, _) => self.next(length.saturating_sub(4)),
                (REQUEST, _) => match u32::from_be_bytes(request) {
                    3 | 5 => return Err(AsksForPassword),
                    0 => self.over = true,
                    _ => self.next(length - 8),
                },
                _ => {}
            }
        }
        Ok(())
    }

    fn next(&mut self, skip: usize) {
        self.filled = 0;
        self.skip = skip;
    }
}

/// A stream that fails as soon as the server asks for the password.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    inner: S,
    watch: Watch,
}

impl<S> Watched<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            watch: Watch::default(),
        }
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
        if !this.watch.over
            && let Err(asks) = this.watch.read(buffer.filled().get(before..).unwrap_or_default())
        {
            buffer.set_filled(before);
            return Poll::Ready(Err(io::Error::other(asks)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind], &length.to_be_bytes()[..], body].concat()
    }

    fn request(code: u32, more: &[u8]) -> Vec<u8> {
        message(b'R', &[&code.to_be_bytes()[..], more].concat())
    }

    /// In pieces of each size.
    fn asks(bytes: &[u8]) -> bool {
        let answers = (1..=bytes.len()).map(|size| {
            let mut watch = Watch::default();
            bytes.chunks(size).any(|piece| watch.read(piece).is_err())
        });
        let answers: Vec<_> = answers.collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        answers[0]
    }

    #[test]
    fn whoever_asks_for_the_password_is_found_out() {
        let notice = message(b'N', b"R\0\0\0\x08\0\0\0\x03");
        let sasl = request(10, b"SCRAM-SHA-256\0\0");
        for (what, bytes, expected) in [
            ("clear", request(3, b""), true),
            ("md5", request(5, b"salt"), true),
            ("after a notice", [notice.clone(), request(3, b"")].concat(), true),
            ("in the middle of SCRAM", [sasl.clone(), request(3, b"")].concat(), true),
            (
                "SCRAM",
                [sasl, request(11, b"abc"), request(12, b"abc"), request(0, b"")].concat(),
                false,
            ),
            ("in a notice", notice, false),
            ("an error", message(b'E', b"SFATAL\0"), false),
            (
                "after it was content",
                [request(0, b""), request(3, b"")].concat(),
                false,
            ),
            (
                "too short for a request",
                [message(b'R', b"\0\0\0"), request(3, b"")].concat(),
                true,
            ),
        ] {
            assert_eq!(asks(&bytes), expected, "{what}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        for length in [0, 1, 4, 5, 8, u32::MAX] {
            let head = [&b"R"[..], &length.to_be_bytes(), &[0; 40]].concat();
            let _ = Watch::default().read(&head);
        }
    }
}
