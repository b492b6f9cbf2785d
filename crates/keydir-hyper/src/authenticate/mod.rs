//! Lets requests through to a service if they present a token or a password that is accepted.

mod authenticated;
#[cfg_attr(not(feature = "password-hash"), path = "no_basic.rs")]
mod basic;
mod challenge;
mod credentials;
mod future;
mod token;
#[cfg(feature = "tower-http")]
mod tower_http;
mod ways;

pub use authenticated::Authenticated;
pub use future::AuthenticateFuture;
#[cfg(feature = "tower-http")]
pub use tower_http::{Authorize, ValidateToken};

use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{HeaderName, InvalidHeaderValue};
use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use self::challenge::check_realm;
use self::token::TokenWay;
use self::ways::{Check, Ways};
#[cfg(feature = "password-hash")]
use crate::passwords::Passwords;
use crate::tokens::Tokens;

/// A tower layer that lets requests through if they present a token or a password that is accepted at that moment. What
/// was revoked is refused from the next request on.
///
/// A request that is let through has [`Authenticated`] in its extensions, and its credentials are marked as sensitive, so
/// that `Debug` of its headers does not show them; a layer outside of this one that prints headers has to see to that
/// itself. A request that is not is answered here, with an empty body (`Default` of the service's response body, as in
/// tower-http: so it fits axum, tonic, `Full`, `Empty` and `BoxBody` alike; box the body of a service that passes
/// hyper's `Incoming` on):
///
/// | credentials | answer |
/// |---|---|
/// | none, or of another scheme | 401 with `WWW-Authenticate` for each way that there is (RFC 9110, 15.5.2) |
/// | not those of a revision in force | the same; for a bearer token with `error="invalid_token"` (RFC 6750, 3.1) |
/// | the header twice, or `Bearer` without a token | 400; with `error="invalid_request"` |
/// | too many passwords are being verified | 503 with `Retry-After` |
///
/// To a gRPC client 401 is `UNAUTHENTICATED`, and 503 `UNAVAILABLE`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use http::{Request, Response, StatusCode};
/// use keydir_hyper::{AuthenticateLayer, Authenticated, Tokens};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// let dir = keydir::Dir::in_memory([("r1.token", "correct-horse")]);
/// let tokens = Tokens::in_dir(&dir)?; // or Tokens::open("/run/secrets/api-tokens")
///
/// let hello = service_fn(async |request: Request<String>| {
///     let caller = request.extensions().get::<Authenticated>().ok_or("no layer")?;
///     Ok::<_, &str>(Response::new(format!("hello, {}", caller.revision())))
/// });
/// let service = AuthenticateLayer::bearer(&tokens).realm("api")?.layer(hello);
///
/// let request = Request::get("/").header("authorization", "Bearer correct-horse");
/// let response = service.clone().oneshot(request.body(String::new())?).await?;
/// assert_eq!(response.body(), "hello, r1");
///
/// let response = service.oneshot(Request::new(String::new())).await?;
/// assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
/// assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"api\"");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct AuthenticateLayer {
    ways: Arc<Ways>,
}

impl AuthenticateLayer {
    /// Tokens in `Authorization: Bearer ..` (RFC 6750).
    pub fn bearer(tokens: &Tokens) -> Self {
        Self::by_token(TokenWay::bearer(tokens.clone()))
    }

    /// Tokens that are the whole value of a header, such as `X-Api-Key`. The challenge of a 401 is `ApiKey
    /// header="x-api-key"`.
    pub fn header(name: HeaderName, tokens: &Tokens) -> Self {
        Self::by_token(TokenWay::header(name, tokens.clone()))
    }

    /// User names and passwords in `Authorization: Basic ..` (RFC 7617), in UTF-8. The realm is `restricted` without
    /// [`realm`](Self::realm). Requests must be made within a tokio runtime.
    #[cfg(feature = "password-hash")]
    pub fn basic(passwords: &Passwords) -> Self {
        Self::new(Ways {
            basic: basic::BasicWays::new(passwords.clone()),
            ..Ways::default()
        })
    }

    /// The other's ways too: a request is let through that presents one of them. All are named in a 401.
    ///
    /// ```
    /// # fn both(tokens: &keydir_hyper::Tokens) {
    /// use http::HeaderName;
    /// use keydir_hyper::AuthenticateLayer;
    ///
    /// let api_key = AuthenticateLayer::header(HeaderName::from_static("x-api-key"), tokens);
    /// let layer = AuthenticateLayer::bearer(tokens).or(api_key);
    /// # drop(layer);
    /// # }
    /// ```
    pub fn or(self, other: Self) -> Self {
        let mut ways = Arc::unwrap_or_clone(self.ways);
        ways.append(Arc::unwrap_or_clone(other.ways));
        Self::new(ways)
    }

    /// The realm that is named in a 401 (RFC 9110, 11.5).
    ///
    /// # Errors
    /// If it has a character that no header field may have, such as a line end.
    pub fn realm(self, realm: &str) -> Result<Self, InvalidHeaderValue> {
        check_realm(realm)?;
        let mut ways = Arc::unwrap_or_clone(self.ways);
        ways.challenges_mut().for_each(|challenge| challenge.realm(realm));
        Ok(Self::new(ways))
    }

    fn by_token(way: TokenWay) -> Self {
        Self::new(Ways {
            tokens: vec![way],
            ..Ways::default()
        })
    }

    fn new(ways: Ways) -> Self {
        Self { ways: Arc::new(ways) }
    }
}

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticate<S>;

    fn layer(&self, inner: S) -> Authenticate<S> {
        Authenticate {
            inner,
            ways: Arc::clone(&self.ways),
        }
    }
}

/// A service behind an [`AuthenticateLayer`].
#[derive(Clone, Debug)]
pub struct Authenticate<S> {
    inner: S,
    ways: Arc<Ways>,
}

impl<S, B, R> Service<Request<B>> for Authenticate<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = AuthenticateFuture<S, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.ways.check(request.headers_mut()) {
            Check::Now(Ok(authenticated)) => {
                request.extensions_mut().insert(authenticated);
                AuthenticateFuture::serving(self.inner.call(request))
            }
            Check::Now(Err(refusal)) => AuthenticateFuture::refused(refusal),
            Check::Later(later) => {
                // The one that was asked whether it is ready serves the request.
                let next = self.inner.clone();
                let ready = std::mem::replace(&mut self.inner, next);
                AuthenticateFuture::checking(later, ready, request)
            }
        }
    }
}
