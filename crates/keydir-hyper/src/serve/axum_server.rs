//! For axum-server.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use axum_server::ConnectionShutdown;
use axum_server::accept::Accept;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{Either, Empty};
use keydir_rustls::Acceptor;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tower_service::Service;

use super::accepting::{Accepting, Limits, RENEWAL};
use super::gate::{Gate, GateFuture};
use super::per_connection::PerConnection;
use super::stream::ServerStream;

/// An acceptor for axum-server. Each request goes through a [`Gate`], handlers find the
/// [`Connection`](keydir_rustls::Connection) in the extensions of the request, and a connection that rests on what was
/// revoked is shut down as [`Server`](crate::Server) does it. Cheap to clone.
///
/// ```no_run
/// # async fn run(acceptor: keydir_rustls::Acceptor, router: axum::Router) -> std::io::Result<()> {
/// use std::time::Duration;
///
/// use keydir_hyper::AxumAcceptor;
///
/// let mut server = axum_server::bind(std::net::SocketAddr::from(([0; 16], 8443)))
///     .acceptor(AxumAcceptor::new(acceptor))
///     .first_request_timeout(Duration::from_secs(30));
/// server.http_builder().http1().header_read_timeout(Duration::from_secs(30));
/// server.serve(router.into_make_service()).await
/// # }
/// ```
///
/// What axum-server does not do unless it is told so, as above: without these two timeouts a client that says nothing after
/// its handshake, or between two requests, stays until it goes. It limits no number of connections. A connection on which
/// no request has come yet is not shut down but cut at the end of the grace.
#[derive(Clone, Debug)]
pub struct AxumAcceptor(Arc<Accepting>);

impl AxumAcceptor {
    /// At most 1,024 handshakes are pending at once, the newest beyond that are dropped.
    pub fn new(acceptor: Acceptor) -> Self {
        Self(Accepting::new(acceptor, Limits::default(), RENEWAL))
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for AxumAcceptor {
    type Stream = ServerStream;
    type Service = AxumService<S>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(ServerStream, AxumService<S>)>> + Send>>;

    fn accept(&self, tcp: TcpStream, service: S) -> Self::Future {
        let accepting = Arc::clone(&self.0);
        Box::pin(async move {
            let Some(_pending) = accepting.pending() else {
                return Err(io::Error::other("too many handshakes are pending"));
            };
            let stream = accepting.handshake(tcp, None).await?;
            let per_connection = Arc::clone(stream.per_connection());
            let service = AxumService {
                gate: Gate::of(service, Arc::clone(&per_connection)),
                drain: Arc::new(Drain {
                    per_connection,
                    task: OnceLock::new(),
                }),
            };
            Ok((stream, service))
        })
    }
}

/// The service of one connection of an [`AxumAcceptor`]: the application's own behind a [`Gate`].
#[derive(Clone, Debug)]
pub struct AxumService<S> {
    gate: Gate<S>,
    drain: Arc<Drain>,
}

impl<S, B, R> Service<Request<B>> for AxumService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body,
{
    type Response = Response<Either<R, Empty<R::Data>>>;
    type Error = S::Error;
    type Future = GateFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.gate.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if let Some(shutdown) = request.extensions().get() {
            self.drain.start(shutdown);
        }
        self.gate.call(request)
    }
}

/// Shuts the connection down in time. Only requests bring the handle by which that can be done.
#[derive(Debug)]
struct Drain {
    per_connection: Arc<PerConnection>,
    task: OnceLock<AbortHandle>,
}

impl Drain {
    fn start(&self, shutdown: &ConnectionShutdown) {
        self.task.get_or_init(|| {
            let per_connection = Arc::clone(&self.per_connection);
            let shutdown = shutdown.clone();
            let task = tokio::spawn(async move {
                per_connection.over().await;
                shutdown.graceful_shutdown();
            });
            task.abort_handle()
        });
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}
