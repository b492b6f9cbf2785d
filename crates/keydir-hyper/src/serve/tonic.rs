//! For tonic's server.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use keydir_rustls::{Acceptor, Connection};
use tokio::net::TcpListener;
use tonic::transport::server::Connected;

use super::queue::Queue;
use super::stream::ServerStream;

/// TLS connections for tonic's `serve_with_incoming` and `serve_with_incoming_shutdown`. Handshakes run in tasks of their
/// own. Give the acceptor `.alpn(["h2"])`, and tonic no TLS of its own.
///
/// Methods find the [`Connection`] in the extensions of the request. A client that is not trusted any more is answered with
/// UNAVAILABLE by the layer.
///
/// ```no_run
/// # async fn run<S>(acceptor: keydir_rustls::Acceptor, greeter: S) -> Result<(), Box<dyn std::error::Error>>
/// # where
/// #     S: tower::Service<http::Request<tonic::body::Body>, Response = http::Response<tonic::body::Body>, Error = std::convert::Infallible>
/// #         + tonic::server::NamedService + Clone + Send + Sync + 'static,
/// #     S::Future: Send + 'static,
/// # {
/// use std::time::Duration;
///
/// use keydir_hyper::{GateLayer, Incoming};
///
/// let tcp = tokio::net::TcpListener::bind("[::]:8443").await?;
/// tonic::transport::Server::builder()
///     .http2_keepalive_interval(Some(Duration::from_secs(20)))
///     .layer(GateLayer::new())
///     .serve_with_incoming(greeter, Incoming::new(tcp, acceptor))
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// What tonic cannot do: it shuts no single connection down. When what a connection rests on was revoked, its requests are
/// refused, or served if only our own identity was, but it ends at the end of the grace without a GOAWAY;
/// `max_connection_age` of tonic lets connections end earlier. A client that says nothing after its handshake stays until it
/// goes, or until it answers no ping.
#[derive(Debug)]
pub struct Incoming(Queue);

impl Incoming {
    /// Starts to accept, at most 1,024 pending handshakes at once (the newest beyond that are dropped) and 10,000
    /// connections.
    ///
    /// # Panics
    /// Outside of a tokio runtime, as `tokio::spawn` does.
    pub fn new(listener: TcpListener, acceptor: Acceptor) -> Self {
        Self(Queue::new(listener, acceptor))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// As the socket has them.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Stream for Incoming {
    type Item = io::Result<ServerStream>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next(context).map(|stream| stream.map(Ok))
    }
}

impl Connected for ServerStream {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        self.connection().clone()
    }
}
