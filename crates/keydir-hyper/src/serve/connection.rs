//! Serving one connection to its end.

use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::time::{Instant, sleep, sleep_until};
use tower_service::Service;

use super::accepting::causes;
use super::gate::Gate;
use super::per_connection::{LONGEST, PerConnection};
use super::stopping::Stopping;
use super::stream::ServerStream;
use super::until::until;
use crate::BoxError;

/// HTTP/2 clients that do not answer a ping for so long are gone.
const PING: Duration = Duration::from_secs(20);

/// How connections are served.
#[derive(Clone, Debug)]
pub(super) struct Http {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    header_timeout: Duration,
}

impl Http {
    pub(super) fn new(header_timeout: Duration) -> Self {
        let header_timeout = header_timeout.min(LONGEST);
        let mut http1 = http1::Builder::new();
        http1.timer(TokioTimer::new()).header_read_timeout(header_timeout);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .max_concurrent_streams(200);
        Self {
            http1,
            http2,
            header_timeout,
        }
    }

    /// Serves a connection; by the protocol that the handshake has agreed upon, since to guess by the first bytes would
    /// wait for them without a limit.
    pub(super) async fn serve<S, B>(&self, stream: ServerStream, service: S, stopping: Stopping)
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let per_connection = Arc::clone(stream.per_connection());
        let service = TowerToHyperService::new(Gate::of(service, Arc::clone(&per_connection)));
        let is_http2 = stream.is_http2();
        let io = TokioIo::new(stream);
        let drain = Drain {
            per_connection: &per_connection,
            first_request: self.header_timeout,
            stopping,
        };
        let ended = if is_http2 {
            drain.drive(self.http2.serve_connection(io, service)).await
        } else {
            drain
                .drive(self.http1.serve_connection(io, service).with_upgrades())
                .await
        };
        let remote = per_connection.remote();
        match ended {
            Some(Ok(())) => {}
            // Clients go away without a word all the time.
            Some(Err(error)) => tracing::debug!(%remote, error = causes(&error), "connection ended"),
            None => tracing::debug!(%remote, "connection was cut"),
        }
    }
}

/// What hyper's connections have in common.
trait Graceful: Future<Output = hyper::Result<()>> {
    fn graceful_shutdown(self: Pin<&mut Self>);
}

impl<S, B> Graceful for http1::UpgradeableConnection<TokioIo<ServerStream>, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<BoxError>,
    B: Body + 'static,
    B::Error: Into<BoxError>,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S, B, E> Graceful for http2::Connection<TokioIo<ServerStream>, S, E>
where
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<BoxError>,
    B: Body + 'static,
    B::Error: Into<BoxError>,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// What ends a connection before the client does.
enum Event {
    Over,
    NothingAsked,
    Stop(Instant),
}

struct Drain<'a> {
    per_connection: &'a PerConnection,
    first_request: Duration,
    stopping: Stopping,
}

impl Drain<'_> {
    /// Drives a connection to its end; `None` if it was cut.
    async fn drive(mut self, http: impl Graceful) -> Option<hyper::Result<()>> {
        let mut http = pin!(http);
        match until(http.as_mut(), self.event()).await {
            Ok(ended) => return Some(ended),
            Err(Event::Over | Event::NothingAsked) => {}
            Err(Event::Stop(cut)) => {
                self.per_connection.stop();
                if let Ok(ended) = until(http.as_mut(), self.good_moment(cut)).await {
                    return Some(ended);
                }
            }
        }
        // What is in flight is answered. When a grace is over, the stream itself fails.
        http.as_mut().graceful_shutdown();
        if !self.per_connection.is_requested() {
            if let Ok(ended) = until(http.as_mut(), self.stopping.last_words()).await {
                return Some(ended);
            }
            if !self.per_connection.is_requested() {
                return None;
            }
        }
        until(http, self.stopping.cut()).await.ok()
    }

    async fn event(&mut self) -> Event {
        let over = pin!(self.per_connection.over());
        let ends = pin!(async {
            match until(over, self.nothing_asked()).await {
                Ok(()) => Event::Over,
                Err(()) => Event::NothingAsked,
            }
        });
        let mut stopping = self.stopping.clone();
        match until(ends, stopping.begun()).await {
            Ok(event) => event,
            Err(cut) => Event::Stop(cut),
        }
    }

    /// Resolves if the first request does not come in time.
    async fn nothing_asked(&self) {
        sleep(self.first_request).await;
        if self.per_connection.is_requested() {
            pending().await
        }
    }

    /// Resolves when to shut down in the server's grace: clients are told with the next answer, or at a good moment; in the
    /// second half without one. Who has asked for nothing has no such time.
    async fn good_moment(&mut self, cut: Instant) {
        let half = cut.saturating_duration_since(Instant::now()) / 2;
        let half = Instant::now() + half;
        if !self.per_connection.is_requested() {
            self.stopping.last_words().await;
            if !self.per_connection.is_requested() {
                return;
            }
        }
        let _ = until(pin!(self.per_connection.over()), sleep_until(half)).await;
    }
}
