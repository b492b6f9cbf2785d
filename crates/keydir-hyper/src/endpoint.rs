//! What the process holds, as a service for monitors and rotators.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tower_service::Service;

/// Answers each request with [`keydir::report()`] as it is then: every directory that is open, its sets, what rests on
/// each revision. Mount it wherever a tower service goes.
///
/// GET and HEAD only (405 otherwise); nobody may cache the answer. Path, query, `Accept` and body of a request are not
/// looked at.
///
/// The report holds no secret, but paths, ids (of logins these are user names), dates and counts. Let it listen where
/// only those who shall see it get to, or put a layer in front that asks who they are, such as this crate's
/// `AuthenticateLayer`.
///
/// The report is built on a thread for blocking work, and one at a time for a service and its clones: so no number of
/// requests keeps an executor from its tasks, or takes more than one processor.
///
/// Must be called from within a tokio runtime.
///
/// ```no_run
/// # #[cfg(feature = "axum")]
/// # async fn serve() -> std::io::Result<()> {
/// use axum::extract::Request;
/// use axum::http::StatusCode;
/// use axum::middleware::{Next, from_fn};
/// use keydir_hyper::ReportService;
///
/// // What has come through the proxy is none of its business.
/// let guard = from_fn(async |request: Request, next: Next| match request.headers().get("x-forwarded-for") {
///     None => Ok(next.run(request).await),
///     Some(_) => Err(StatusCode::FORBIDDEN),
/// });
/// let app: axum::Router = axum::Router::new()
///     .route_service("/report", ReportService::json())
///     .route_service("/metrics", ReportService::prometheus())
///     .layer(guard);
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:9090").await?;
/// axum::serve(listener, app).await
/// # }
/// ```
///
/// Without a router, hyper takes `service_fn(move |request| service.clone().call(request))`.
#[derive(Clone, Debug)]
pub struct ReportService {
    format: Format,
    turn: Arc<Semaphore>,
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Json,
    Prometheus,
}

impl ReportService {
    /// The whole report, as JSON (`application/json`).
    pub fn json() -> Self {
        Self::new(Format::Json)
    }

    /// The [series](keydir::Report::prometheus) of it, as Prometheus scrapes them (`text/plain; version=0.0.4`).
    pub fn prometheus() -> Self {
        Self::new(Format::Prometheus)
    }

    fn new(format: Format) -> Self {
        let turn = Arc::new(Semaphore::new(1));
        Self { format, turn }
    }
}

impl<B> Service<Request<B>> for ReportService {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let is_head = request.method() == Method::HEAD;
        if !is_head && request.method() != Method::GET {
            let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Box::pin(async { Ok(response) });
        }
        let (format, turn) = (self.format, Arc::clone(&self.turn));
        Box::pin(async move {
            let Some(report) = format.report(turn).await else {
                return Ok(empty(StatusCode::INTERNAL_SERVER_ERROR));
            };
            let mut response = empty(StatusCode::OK);
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
            headers.insert(CONTENT_LENGTH, HeaderValue::from(report.len()));
            if !is_head {
                *response.body_mut() = Full::new(report);
            }
            Ok(response)
        })
    }
}

impl Format {
    /// `None` only if the runtime is shutting down.
    async fn report(self, turn: Arc<Semaphore>) -> Option<Bytes> {
        let turn = turn.acquire_owned().await.ok()?;
        let build = move || {
            // Given back when the work is done, though nobody may wait for it any more.
            let _turn = turn;
            let report = keydir::report();
            match self {
                Self::Json => serde_json::to_vec(&report).ok().map(Bytes::from),
                Self::Prometheus => Some(Bytes::from(report.prometheus())),
            }
        };
        spawn_blocking(build).await.ok()?
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
