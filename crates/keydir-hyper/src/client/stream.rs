//! A client's connection as hyper uses it. It tells its generation when what it rests on has ended.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use keydir_rustls::{Ended, TlsStream};

use super::generation::Generation;
use super::origins::Alive;

type Tls<IO> = TokioIo<TlsStream<TokioIo<IO>>>;

/// A connection of an [`HttpsConnector`](crate::HttpsConnector).
///
/// Over TLS, each response's extensions have the [`keydir_rustls::Connection`] that carried it: who the server is, who
/// vouches for it, and what was presented to it.
pub struct HttpsStream<IO>(Kind<IO>);

enum Kind<IO> {
    Plain(IO),
    Tls {
        // Closed before it stops counting as alive.
        io: Box<Tls<IO>>,
        watch: Watch,
        _alive: Alive,
    },
}

/// The end of what the connection rests on, waited for whenever hyper waits to read, which it does also while the
/// connection is idle.
struct Watch {
    generation: Generation,
    ended: Option<Pin<Box<dyn Future<Output = Ended> + Send>>>,
    /// Who is woken by it, to ask no oftener than needed.
    waker: Option<Waker>,
}

impl Watch {
    fn poll(&mut self, connection: &keydir_rustls::Connection, context: &mut Context<'_>) {
        let Some(ended) = &mut self.ended else { return };
        let waits = self
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(context.waker()));
        if waits && connection.why().is_none() {
            return;
        }
        match ended.as_mut().poll(context) {
            Poll::Ready(_) => {
                self.ended = None;
                self.generation.spoil();
            }
            Poll::Pending => self.waker = Some(context.waker().clone()),
        }
    }
}

impl<IO> HttpsStream<IO> {
    pub(super) fn plain(io: IO) -> Self {
        Self(Kind::Plain(io))
    }

    pub(super) fn tls(tls: TlsStream<TokioIo<IO>>, generation: Generation, alive: Alive) -> Self {
        let ended = tls.connection().ended();
        Self(Kind::Tls {
            io: Box::new(TokioIo::new(tls)),
            watch: Watch {
                generation,
                ended: Some(Box::pin(ended)),
                waker: None,
            },
            _alive: alive,
        })
    }

    pub(super) fn is_h2(&self) -> bool {
        match &self.0 {
            Kind::Plain(_) => false,
            Kind::Tls { io, .. } => speaks_h2(io.inner()),
        }
    }

    /// What the connection rests on; `None` without TLS.
    pub fn connection(&self) -> Option<&keydir_rustls::Connection> {
        match &self.0 {
            Kind::Plain(_) => None,
            Kind::Tls { io, .. } => Some(io.inner().connection()),
        }
    }
}

/// Whether HTTP/2 was agreed on by ALPN (RFC 9113, 3.2).
pub(super) fn speaks_h2<IO>(tls: &TlsStream<IO>) -> bool {
    tls.get_ref().1.alpn_protocol() == Some(b"h2")
}

impl<IO: Connection> Connection for HttpsStream<IO>
where
    IO: Read + Write + Unpin,
{
    fn connected(&self) -> Connected {
        match &self.0 {
            Kind::Plain(io) => io.connected(),
            Kind::Tls { io, .. } => {
                let tls = io.inner();
                let connected = tls.get_ref().0.inner().connected().extra(tls.connection().clone());
                match speaks_h2(tls) {
                    true => connected.negotiated_h2(),
                    false => connected,
                }
            }
        }
    }
}

impl<IO: Read + Write + Unpin> Read for HttpsStream<IO> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Plain(io) => Pin::new(io).poll_read(context, buffer),
            Kind::Tls { io, watch, .. } => {
                watch.poll(io.inner().connection(), context);
                Pin::new(&mut **io).poll_read(context, buffer)
            }
        }
    }
}

impl<IO: Read + Write + Unpin> Write for HttpsStream<IO> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Kind::Plain(io) => Pin::new(io).poll_write(context, bytes),
            Kind::Tls { io, .. } => Pin::new(&mut **io).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Kind::Plain(io) => Pin::new(io).poll_write_vectored(context, slices),
            Kind::Tls { io, .. } => Pin::new(&mut **io).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Kind::Plain(io) => io.is_write_vectored(),
            Kind::Tls { io, .. } => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Plain(io) => Pin::new(io).poll_flush(context),
            Kind::Tls { io, .. } => Pin::new(&mut **io).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Plain(io) => Pin::new(io).poll_shutdown(context),
            Kind::Tls { io, .. } => Pin::new(&mut **io).poll_shutdown(context),
        }
    }
}

impl<IO> fmt::Debug for HttpsStream<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpsStream").field(&self.connection()).finish()
    }
}
