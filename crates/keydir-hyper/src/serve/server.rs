//! A server: what it may do at once, and how it ends.

use std::fmt;
use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use keydir_rustls::Acceptor;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep_until};
use tower_service::Service;

use super::accepting::{Accepted, Accepting, Limits, RENEWAL};
use super::connection::Http;
use super::per_connection::LONGEST;
use super::until::until;
use crate::BoxError;

/// Serves HTTP/1 and HTTP/2 over TLS, with the defaults of [`Server`]: until the process ends.
///
/// The service is any tower service, such as an axum `Router`. It finds the
/// [`Connection`](keydir_rustls::Connection) in the extensions of each request (who the client is, by which CA), and the
/// client's `SocketAddr`.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use http_body_util::Full;
/// use hyper::body::{Bytes, Incoming};
/// use hyper::{Request, Response};
/// use keydir_rustls::{Connection, Identity, TrustAnchors, server_config};
///
/// async fn hello(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
///     let peer = request.extensions().get::<Connection>().and_then(Connection::peer);
///     let name = peer.map(|peer| peer.subject()).unwrap_or_default();
///     Ok(Response::new(Full::from(format!("hello, {name}\n"))))
/// }
///
/// let identity = Identity::open("/run/secrets/server-tls")?;
/// let anchors = TrustAnchors::open("/run/secrets/mesh-ca")?;
/// let acceptor = server_config(&identity).require_client(&anchors).alpn(["h2", "http/1.1"]).acceptor()?;
/// let listener = tokio::net::TcpListener::bind("[::]:8443").await?;
/// keydir_hyper::serve(listener, acceptor, tower::service_fn(hello)).await;
/// # Ok(())
/// # }
/// ```
///
/// Must be called from within a tokio runtime with time and I/O enabled.
///
/// # Cancel safety
/// Dropped, it accepts no more; connections that are open live on.
pub async fn serve<S, B>(listener: TcpListener, acceptor: Acceptor, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    Server::new(acceptor).serve(listener, service).await;
}

/// A server of HTTP/1 and HTTP/2 over TLS, by what the handshake agrees upon: give the acceptor
/// `.alpn(["h2", "http/1.1"])` for both.
///
/// Each connection has a task of its own, its handshake included. Each request is let in by a [`Gate`](crate::Gate).
///
/// A connection that has to go (what it rests on was revoked, there is a new primary identity, the server shuts down)
/// finishes what is in flight, and goes at a moment at which no request is lost, if one comes: on HTTP/1 the next answer
/// says `Connection: close`; on HTTP/2, GOAWAY (RFC 9113, 6.8) is sent when as many requests wait for their answer as ever
/// did, since many clients lose those that they are about to send, or a few seconds later when any waits. For a new primary
/// that is all. Otherwise what is idle, or comes to no such moment, is shut down in the second half of the grace. A client
/// that is not trusted any more is shut down with the first request that is refused.
///
/// Upgraded connections go on until the end of the grace, where their stream fails; `Connection::ended` in the request's
/// extensions tells their handlers in time.
///
/// ```no_run
/// # async fn run<S>(acceptor: keydir_rustls::Acceptor, router: S) -> Result<(), Box<dyn std::error::Error>>
/// # where
/// #     S: tower::Service<hyper::Request<hyper::body::Incoming>, Response = hyper::Response<String>> + Clone + Send + 'static,
/// #     S::Future: Send,
/// #     S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
/// # {
/// use std::time::Duration;
///
/// let listener = tokio::net::TcpListener::bind("[::]:8443").await?;
/// let asked_to_end = async { std::future::pending().await }; // such as a SIGTERM
/// keydir_hyper::Server::new(acceptor)
///     .max_connections(50_000)
///     .shutdown(asked_to_end)
///     .shutdown_grace(Duration::from_secs(20))
///     .serve(listener, router)
///     .await;
/// # Ok(())
/// # }
/// ```
#[must_use = "a server does nothing until it serves"]
pub struct Server {
    acceptor: Acceptor,
    limits: Limits,
    header_timeout: Duration,
    renewal: Duration,
    shutdown: Pin<Box<dyn Future<Output = ()> + Send>>,
    grace: Duration,
}

impl Server {
    /// A server with the defaults that are named at its methods.
    pub fn new(acceptor: Acceptor) -> Self {
        Self {
            acceptor,
            limits: Limits::default(),
            header_timeout: Duration::from_secs(30),
            renewal: RENEWAL,
            shutdown: Box::pin(pending()),
            grace: Duration::from_secs(10),
        }
    }

    /// How many connections may be open, those in their handshake and upgraded ones included; 10,000 without this.
    /// Others wait in the kernel's backlog. Each needs a file descriptor.
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.limits.connections = connections;
        self
    }

    /// How many handshakes may be pending; 1,024 without this. Connections beyond it are dropped at once, the newest, and
    /// an event tells how many.
    pub fn max_handshakes(mut self, handshakes: u32) -> Self {
        self.limits.handshakes = handshakes;
        self
    }

    /// How long a client may take to send the head of a request, counted on HTTP/1 from the end of the one before, so
    /// that idle connections end too; on HTTP/2 only until the first request, after which clients are pinged. 30 s without
    /// this, at most a day.
    pub fn header_timeout(mut self, timeout: Duration) -> Self {
        self.header_timeout = timeout;
        self
    }

    /// Over how long connections move to a new primary identity, each at a moment of its own, so that not all clients
    /// connect again at once; 30 s without this, at most a day. Connections that ask for nothing stay.
    pub fn renew_within(mut self, window: Duration) -> Self {
        self.renewal = window;
        self
    }

    /// When to end: from then on nothing is accepted, and [`serve`](Self::serve) returns when all connections are closed
    /// or the grace is over.
    pub fn shutdown(mut self, when: impl Future<Output = ()> + Send + 'static) -> Self {
        self.shutdown = Box::pin(when);
        self
    }

    /// How long connections may go on after that; 10 s without this, at most a day. Connections that are idle wait for
    /// half of it, in case a request is on its way; those that have asked for nothing yet, and handshakes, for a second.
    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Serves until the shutdown, or for ever without one. Errors of accepting, such as too many open files, are told
    /// by events and waited out.
    ///
    /// Upgraded connections that are open at the end of the shutdown's grace are left to their handlers.
    ///
    /// Must be called from within a tokio runtime with time and I/O enabled.
    ///
    /// # Cancel safety
    /// Dropped, it accepts no more; connections that are open live on.
    pub async fn serve<S, B>(self, listener: TcpListener, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let accepting = Accepting::new(self.acceptor, self.limits, self.renewal);
        let http = Arc::new(Http::new(self.header_timeout));
        let stopping = accepting.stop.stopping();
        let serve = move |accepted: Accepted| {
            let Accepted { stream, pending } = accepted;
            drop(pending);
            let (http, service, stopping) = (Arc::clone(&http), service.clone(), stopping.clone());
            async move { http.serve(stream, service, stopping).await }
        };
        let run = Arc::clone(&accepting);
        let _ = until(pin!(run.run(&listener, serve)), self.shutdown).await;
        drop(listener);

        let cut = Instant::now() + self.grace.min(LONGEST);
        accepting.stop.at(cut);
        if until(pin!(accepting.idle()), sleep_until(cut)).await.is_err() {
            tracing::warn!("connections were cut at the end of the grace");
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("acceptor", &self.acceptor)
            .field("limits", &self.limits)
            .field("header_timeout", &self.header_timeout)
            .field("renew_within", &self.renewal)
            .field("shutdown_grace", &self.grace)
            .finish_non_exhaustive()
    }
}
