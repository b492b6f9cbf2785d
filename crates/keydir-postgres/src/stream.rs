//! The stream under a session.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use keydir_rustls::TlsStream;
use keydir_rustls::rustls::CommonState;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::ChannelBinding;
use tokio_rustls::client;

use crate::channel_binding::server_end_point;
use crate::good_bye::{AskForEnd, GoodBye};
use crate::last_word::LastWord;
use crate::wire::Watched;

/// The stream under a session, with TLS or without. Unless it is verified who the server is, it fails when the server asks
/// for the password.
pub struct PgStream {
    kind: Kind,
    good_bye: GoodBye,
}

enum Kind {
    Plain(Watched<LastWord<Socket>>),
    Unverified(Box<Watched<client::TlsStream<LastWord<Socket>>>>),
    Verified(Box<TlsStream<LastWord<Socket>>>),
}

impl PgStream {
    pub(crate) fn plain(socket: LastWord<Socket>, end: &AskForEnd) -> Self {
        Self::new(Kind::Plain(Watched::new(socket)), end)
    }

    pub(crate) fn unverified(tls: client::TlsStream<LastWord<Socket>>, end: &AskForEnd) -> Self {
        Self::new(Kind::Unverified(Box::new(Watched::new(tls))), end)
    }

    pub(crate) fn verified(tls: TlsStream<LastWord<Socket>>, end: &AskForEnd) -> Self {
        Self::new(Kind::Verified(Box::new(tls)), end)
    }

    fn new(kind: Kind, end: &AskForEnd) -> Self {
        Self {
            kind,
            good_bye: end.of_stream(),
        }
    }

    fn tls(&self) -> Option<&CommonState> {
        match &self.kind {
            Kind::Plain(_) => None,
            Kind::Unverified(tls) => Some(tls.get_ref().get_ref().1),
            Kind::Verified(tls) => Some(tls.get_ref().1),
        }
    }
}

macro_rules! inner {
    ($kind:expr, $stream:ident => $call:expr) => {
        match $kind {
            Kind::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Kind::Unverified(stream) => {
                let $stream = Pin::new(&mut **stream);
                $call
            }
            Kind::Verified(stream) => {
                let $stream = Pin::new(&mut **stream);
                $call
            }
        }
    };
}

impl AsyncRead for PgStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { kind, good_bye } = self.get_mut();
        inner!(kind, stream => {
            let mut stream = stream;
            match ready!(good_bye.poll_is_said(stream.as_mut(), context))? {
                true => Poll::Ready(Ok(())),
                false => stream.poll_read(context, buffer),
            }
        })
    }
}

impl AsyncWrite for PgStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { kind, good_bye } = self.get_mut();
        good_bye.writes();
        inner!(kind, stream => stream.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        inner!(&mut self.get_mut().kind, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        inner!(&mut self.get_mut().kind, stream => stream.poll_shutdown(context))
    }
}

impl tokio_postgres::tls::TlsStream for PgStream {
    fn channel_binding(&self) -> ChannelBinding {
        let certificate = self.tls().and_then(|tls| tls.peer_certificates()?.first());
        match certificate.and_then(server_end_point) {
            Some(hash) => ChannelBinding::tls_server_end_point(hash),
            None => ChannelBinding::none(),
        }
    }
}

impl fmt::Debug for PgStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Plain(_) => "plain",
            Kind::Unverified(_) => "unverified",
            Kind::Verified(_) => "verified",
        };
        f.debug_tuple("PgStream").field(&kind).finish()
    }
}
