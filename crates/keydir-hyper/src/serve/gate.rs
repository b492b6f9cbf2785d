//! Each request asks whether its connection still stands.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use http_body_util::{Either, Empty};
use keydir_rustls::Connection;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

#[cfg(feature = "axum")]
use super::axum::connect_info;
use super::per_connection::{PerConnection, Waiting, admits};

/// A [`Layer`] of [`Gate`]s, for hosts that own their loop: [`Server`](crate::Server) has it inside.
///
/// The [`Connection`] must stand in the extensions of each request, as itself or as axum's `ConnectInfo` of a
/// [`ConnectionInfo`](crate::ConnectionInfo). Where it is missing nothing can be said of the client: the request is
/// answered with 500 and an event tells.
///
/// ```
/// use keydir_hyper::GateLayer;
/// use tower::ServiceBuilder;
/// # use tower::service_fn;
/// # use http_body_util::Empty;
/// # async fn handler(_: http::Request<Empty<&[u8]>>) -> Result<http::Response<Empty<&'static [u8]>>, hyper::Error> {
/// #     Ok(Default::default())
/// # }
/// let service = ServiceBuilder::new().layer(GateLayer::new()).service(service_fn(handler));
/// # let _ = service;
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct GateLayer;

impl GateLayer {
    /// The layer; it has no options.
    pub fn new() -> Self {
        Self
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate {
            inner,
            per_connection: None,
        }
    }
}

/// Lets a request begin only while its connection [stands](Connection::stands), which costs a few atomic loads.
///
/// - If the peer is not trusted any more, the request is refused with 421 (Misdirected Request, RFC 9110, 15.5.20: it may
///   be tried on another connection), or with the status UNAVAILABLE if it is gRPC. Nothing of it was processed.
/// - If our own identity was revoked, or is no longer the primary, it is served.
/// - In each of these cases the answer on HTTP/1 says `Connection: close`. Connections of an identity that is only
///   superseded do so at different times, spread over 30 s, if they come from a listener of this crate.
#[derive(Clone)]
pub struct Gate<S> {
    inner: S,
    /// Where the service is of one connection; else it is looked for in the request.
    per_connection: Option<Arc<PerConnection>>,
}

impl<S> Gate<S> {
    pub(super) fn of(inner: S, per_connection: Arc<PerConnection>) -> Self {
        Self {
            inner,
            per_connection: Some(per_connection),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for Gate<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<S, B, R> Service<Request<B>> for Gate<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body,
{
    type Response = Response<Either<R, Empty<R::Data>>>;
    type Error = S::Error;
    type Future = GateFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let known = self.known(request.extensions());
        let refusal = match &known {
            None => Some(Refusal::Unknown),
            Some(known) if known.admit(request.extensions_mut()) => None,
            Some(_) => Some(Refusal::of(request.headers())),
        };
        GateFuture {
            ending: Ending::of(known, &request),
            answer: match refusal {
                Some(refusal) => Answer::Refused { refusal },
                None => Answer::Served {
                    response: self.inner.call(request),
                },
            },
        }
    }
}

/// What is known of a request's connection.
#[derive(Clone, Debug)]
enum Known {
    Well(Arc<PerConnection>),
    /// Nothing is remembered between requests.
    Alone(Connection),
}

impl<S> Gate<S> {
    fn known(&self, extensions: &Extensions) -> Option<Known> {
        let per_connection = self.per_connection.clone();
        let known = per_connection.or_else(|| connect_info(extensions)).map(Known::Well);
        let known = known.or_else(|| extensions.get().cloned().map(Known::Alone));
        if known.is_none() {
            tracing::error!("a request without its connection: the gate can let nobody in");
        }
        known
    }
}

impl Known {
    fn admit(&self, extensions: &mut Extensions) -> bool {
        match self {
            Self::Well(per_connection) => per_connection.admit(extensions),
            Self::Alone(connection) => admits(connection),
        }
    }

    /// Says that the connection closes, if it does.
    fn conclude<R>(self, response: &mut Response<R>) {
        let last = match &self {
            Self::Well(per_connection) => per_connection.is_last(),
            Self::Alone(connection) => !connection.stands() || connection.is_superseded(),
        };
        if last {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
    }

    /// The answer gives the connection away.
    fn upgrade(self) {
        if let Self::Well(per_connection) = self {
            per_connection.upgrade();
        }
    }
}

/// What the answer does.
#[derive(Debug)]
enum Ending {
    /// Later versions of HTTP have no such header.
    MayClose {
        known: Known,
        connect: bool,
    },
    Waited {
        _for: Waiting,
    },
    Nothing,
}

impl Ending {
    fn of<B>(known: Option<Known>, request: &Request<B>) -> Self {
        match known {
            Some(known) if request.version() <= Version::HTTP_11 => Self::MayClose {
                known,
                connect: request.method() == Method::CONNECT,
            },
            Some(Known::Well(per_connection)) => Self::Waited {
                _for: per_connection.wait(),
            },
            _ => Self::Nothing,
        }
    }

    /// What was upgraded, or is a tunnel now, has no next request (RFC 9110, 7.8 and 9.3.6).
    fn conclude<R>(self, response: &mut Response<R>) {
        if let Self::MayClose { known, connect } = self {
            let status = response.status();
            match status == StatusCode::SWITCHING_PROTOCOLS || connect && status.is_success() {
                true => known.upgrade(),
                false => known.conclude(response),
            }
        }
    }
}

#[cfg(not(feature = "axum"))]
fn connect_info(_: &Extensions) -> Option<Arc<PerConnection>> {
    None
}

#[derive(Clone, Copy, Debug)]
enum Refusal {
    Misdirected,
    Grpc,
    /// Not the client's fault.
    Unknown,
}

impl Refusal {
    fn of(request: &HeaderMap) -> Self {
        let kind = request.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        match kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
            true => Self::Grpc,
            false => Self::Misdirected,
        }
    }

    fn response<R: Body>(self) -> Response<Either<R, Empty<R::Data>>> {
        let mut response = Response::new(Either::Right(Empty::new()));
        match self {
            Self::Misdirected => *response.status_mut() = StatusCode::MISDIRECTED_REQUEST,
            Self::Unknown => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
            Self::Grpc => {
                // Of the answers that gRPC has, the one after which clients may try again: 421 would be "unknown" to them.
                for (name, value) in [
                    (CONTENT_TYPE, "application/grpc"),
                    (HeaderName::from_static("grpc-status"), "14"),
                    (
                        HeaderName::from_static("grpc-message"),
                        "this connection is not trusted any more",
                    ),
                ] {
                    response.headers_mut().insert(name, HeaderValue::from_static(value));
                }
            }
        }
        response
    }
}

pin_project! {
    /// The answer to a request that went through a [`Gate`].
    #[derive(Debug)]
    pub struct GateFuture<F> {
        #[pin]
        answer: Answer<F>,
        ending: Ending,
    }
}

pin_project! {
    #[project = Projected]
    #[derive(Debug)]
    enum Answer<F> {
        Served { #[pin] response: F },
        Refused { refusal: Refusal },
    }
}

impl<F, R, E> Future for GateFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<Either<R, Empty<R::Data>>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = match this.answer.project() {
            Projected::Served { response } => ready!(response.poll(context))?.map(Either::Left),
            Projected::Refused { refusal } => refusal.response(),
        };
        mem::replace(this.ending, Ending::Nothing).conclude(&mut response);
        Poll::Ready(Ok(response))
    }
}
