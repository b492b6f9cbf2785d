//! The stream of one connection. It fails when the grace after a revocation is over.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustls::{CommonState, HandshakeKind};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::{Connection, Rests};
use super::ended::{Ended, HandshakeError};
use super::handshake::close;
use super::table::{Registered, Table};
use crate::chosen::Choice;

/// A TLS connection, of a server or of a client.
///
/// When what it rests on was revoked, reading and writing go on for the grace, and then fail with
/// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted) and an [`Ended`] behind it.
pub struct TlsStream<IO> {
    tls: tokio_rustls::TlsStream<IO>,
    registered: Registered,
    /// Both sides may be waited for by different tasks.
    reading: Cut,
    writing: Cut,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> TlsStream<IO> {
    /// The last step of a handshake of either side; `identities` are those that may have been presented, by whether a
    /// session was resumed.
    pub(super) async fn register(
        tls: tokio_rustls::TlsStream<IO>,
        table: &Arc<Table>,
        identities: impl FnOnce(bool) -> Vec<Choice>,
        grace: Duration,
    ) -> Result<Self, HandshakeError> {
        let (_, session) = tls.get_ref();
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        let chain = session.peer_certificates().unwrap_or_default().iter();
        let chain = chain.map(|der| der.clone().into_owned()).collect();
        match table.register(identities(resumed), chain, resumed, grace) {
            Ok(registered) => Ok(Self {
                tls,
                registered,
                reading: Cut::default(),
                writing: Cut::default(),
            }),
            Err(ended) => {
                close(tls).await;
                Err(HandshakeError::Ended(ended))
            }
        }
    }
}

impl<IO> TlsStream<IO> {
    /// What the connection rests on; to keep, clone it.
    pub fn connection(&self) -> &Connection {
        self.registered.connection()
    }

    /// The transport, and what rustls knows of the connection: ALPN, version, cipher suite, certificates.
    pub fn get_ref(&self) -> (&IO, &CommonState) {
        self.tls.get_ref()
    }
}

impl<IO> fmt::Debug for TlsStream<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsStream").field(self.connection()).finish()
    }
}

/// The end of the grace, waited for where the stream itself has nothing to say.
#[derive(Default)]
struct Cut {
    wait: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
    /// Who is woken by it, to ask no oftener than needed.
    waker: Option<Waker>,
}

impl Cut {
    fn poll<'r>(&mut self, rests: &'r Arc<Rests>, context: &mut Context<'_>) -> Poll<&'r Ended> {
        let waits = self
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(context.waker()));
        if waits && !rests.has_ended() {
            return Poll::Pending;
        }
        loop {
            if let Some(why) = rests.cut() {
                return Poll::Ready(why);
            }
            let wait = self.wait.get_or_insert_with(|| {
                let rests = Arc::clone(rests);
                Box::pin(async move { rests.wait_until_cut().await })
            });
            self.waker = Some(context.waker().clone());
            ready!(wait.as_mut().poll(context));
            self.wait = None;
        }
    }

    /// What is not done by then has failed.
    fn or<T>(
        &mut self,
        rests: &Arc<Rests>,
        context: &mut Context<'_>,
        done: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match done {
            Poll::Ready(_) => done,
            Poll::Pending => self.poll(rests, context).map(|why| Err(aborted(why))),
        }
    }
}

fn aborted(why: &Ended) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, why.clone())
}

fn guarded<T>(
    rests: &Arc<Rests>,
    cut: &mut Cut,
    context: &mut Context<'_>,
    operation: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<T>>,
) -> Poll<io::Result<T>> {
    if let Some(why) = rests.cut() {
        return Poll::Ready(Err(aborted(why)));
    }
    let done = operation(context);
    cut.or(rests, context, done)
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<IO> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let tls = Pin::new(&mut this.tls);
        guarded(&this.registered.connection().0, &mut this.reading, context, |context| {
            tls.poll_read(context, buffer)
        })
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<IO> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let tls = Pin::new(&mut this.tls);
        guarded(&this.registered.connection().0, &mut this.writing, context, |context| {
            tls.poll_write(context, bytes)
        })
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let tls = Pin::new(&mut this.tls);
        guarded(&this.registered.connection().0, &mut this.writing, context, |context| {
            tls.poll_write_vectored(context, slices)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let tls = Pin::new(&mut this.tls);
        guarded(&this.registered.connection().0, &mut this.writing, context, |context| {
            tls.poll_flush(context)
        })
    }

    /// Also after the grace: the peer is told that the connection ends, unless it keeps us waiting.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.tls).poll_shutdown(context);
        this.writing.or(&this.registered.connection().0, context, done)
    }
}
