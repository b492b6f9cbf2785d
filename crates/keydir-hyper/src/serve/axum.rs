//! For `axum::serve`.

use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::ConnectInfo;
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use http::Extensions;
use keydir_rustls::{Acceptor, Connection};
use tokio::net::TcpListener;

use super::per_connection::PerConnection;
use super::queue::Queue;
use super::stream::ServerStream;

/// A listener for `axum::serve`, whose connections are TLS connections. Handshakes run in tasks of their own.
///
/// The router needs both lines: [`GateLayer`](crate::GateLayer), and `into_make_service_with_connect_info` for it to know
/// the connection. Handlers find the [`Connection`] in the extensions of the request.
///
/// ```no_run
/// # async fn run(acceptor: keydir_rustls::Acceptor) -> Result<(), Box<dyn std::error::Error>> {
/// use axum::{Extension, Router, routing::get};
/// use keydir_hyper::{ConnectionInfo, GateLayer, Listener};
/// use keydir_rustls::Connection;
///
/// async fn hello(Extension(connection): Extension<Connection>) -> String {
///     format!("hello, {:?}\n", connection.peer())
/// }
///
/// let router = Router::new().route("/", get(hello)).layer(GateLayer::new());
/// let tcp = tokio::net::TcpListener::bind("[::]:8443").await?;
/// let service = router.into_make_service_with_connect_info::<ConnectionInfo>();
/// axum::serve(Listener::new(tcp, acceptor), service).await?;
/// # Ok(())
/// # }
/// ```
///
/// What `axum::serve` cannot do: it has no timers, so that a client which says nothing after its handshake stays until it
/// goes; and it shuts no single connection down. When what a connection rests on was revoked, its requests are refused or
/// its answers say `Connection: close`, as the gate has it, but one that is idle, or speaks HTTP/2, is cut at the end of the
/// grace without a GOAWAY. [`Server`](crate::Server) serves the same router and does both.
#[derive(Debug)]
pub struct Listener(Queue);

impl Listener {
    /// Starts to accept, at most 1,024 pending handshakes at once (the newest beyond that are dropped) and 10,000
    /// connections.
    ///
    /// # Panics
    /// Outside of a tokio runtime, as `tokio::spawn` does.
    pub fn new(listener: TcpListener, acceptor: Acceptor) -> Self {
        Self(Queue::new(listener, acceptor))
    }
}

impl axum::serve::Listener for Listener {
    type Io = ServerStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (ServerStream, SocketAddr) {
        match poll_fn(|context| self.0.poll_next(context)).await {
            Some(stream) => {
                let remote = stream.per_connection().remote();
                (stream, remote)
            }
            None => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// What `axum::serve` tells each request of its connection; for `into_make_service_with_connect_info`.
#[derive(Clone, Debug)]
pub struct ConnectionInfo(Arc<PerConnection>);

impl ConnectionInfo {
    /// The connection: who the client is, and whether it still stands.
    pub fn connection(&self) -> &Connection {
        self.0.connection()
    }

    /// The client's address.
    pub fn remote_addr(&self) -> SocketAddr {
        self.0.remote()
    }
}

impl Connected<IncomingStream<'_, Listener>> for ConnectionInfo {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        Self(Arc::clone(stream.io().per_connection()))
    }
}

/// For the gate.
pub(super) fn connect_info(extensions: &Extensions) -> Option<Arc<PerConnection>> {
    let ConnectInfo(info) = extensions.get::<ConnectInfo<ConnectionInfo>>()?;
    Some(Arc::clone(&info.0))
}
