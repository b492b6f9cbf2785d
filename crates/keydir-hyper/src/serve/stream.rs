//! The stream that hosts are given.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use keydir_rustls::{Connection, TlsStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};

use super::per_connection::PerConnection;

/// A client gets so long to read the last answer.
const LINGER: Duration = Duration::from_secs(1);

/// A TLS connection of a client: a [`TlsStream`] that counts as a connection for as long as it is there.
///
/// When what it rests on was revoked, it fails at the end of the grace.
pub struct ServerStream {
    tls: TlsStream<TcpStream>,
    per_connection: Arc<PerConnection>,
    lingering: Option<Pin<Box<Sleep>>>,
    _counted: Option<OwnedSemaphorePermit>,
}

impl ServerStream {
    pub(super) fn new(
        tls: TlsStream<TcpStream>,
        per_connection: Arc<PerConnection>,
        counted: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            tls,
            per_connection,
            lingering: None,
            _counted: counted,
        }
    }

    /// What the connection rests on; to keep, clone it.
    pub fn connection(&self) -> &Connection {
        self.tls.connection()
    }

    /// The TLS stream, to ask for what rustls knows of the connection.
    pub fn get_ref(&self) -> &TlsStream<TcpStream> {
        &self.tls
    }

    pub(super) fn per_connection(&self) -> &Arc<PerConnection> {
        &self.per_connection
    }

    pub(super) fn is_http2(&self) -> bool {
        let (_, session) = self.tls.get_ref();
        session.alpn_protocol() == Some(b"h2")
    }

    /// Reads what is still on its way: to close while bytes of the client are unread would reset the connection, and the
    /// last answer would be lost (RFC 9112, 9.6).
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let end = self.lingering.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut bytes = [0; 4096];
        loop {
            let mut rest = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.tls).poll_read(context, &mut rest) {
                Poll::Ready(Ok(())) if !rest.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return end.as_mut().poll(context),
            }
        }
    }
}

impl fmt::Debug for ServerStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerStream").field(self.connection()).finish()
    }
}

impl AsyncRead for ServerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(context, buffer)
    }
}

impl AsyncWrite for ServerStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(context)
    }

    /// Where HTTP is done, nothing that comes is for anybody. An upgraded connection may be shut down in one direction
    /// alone.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.tls).poll_shutdown(context))?;
        }
        if !self.per_connection.is_upgraded() {
            ready!(self.poll_linger(context));
        }
        Poll::Ready(Ok(()))
    }
}
