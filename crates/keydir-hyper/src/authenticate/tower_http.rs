//! The same checks behind tower-http's traits, for its layers.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use http::header::{HeaderName, InvalidHeaderValue};
use http::{Request, Response};
use tower_http::auth::AsyncAuthorizeRequest;
use tower_http::validate_request::ValidateRequest;

use super::AuthenticateLayer;
use super::credentials::Why;
use super::ways::{Check, Ways};
use crate::tokens::Tokens;

/// Tokens for tower-http's `ValidateRequestHeaderLayer::custom`, with the rules of [`AuthenticateLayer`]. `R` is the body
/// of the service's responses. (Passwords take time, which this trait has not: see [`Authorize`].)
///
/// ```
/// use keydir_hyper::{Tokens, ValidateToken};
/// use tower_http::validate_request::ValidateRequestHeaderLayer;
///
/// let dir = keydir::Dir::in_memory([("r1.token", "correct-horse")]);
/// let tokens = Tokens::in_dir(&dir)?;
/// let layer = ValidateRequestHeaderLayer::custom(ValidateToken::<String>::bearer(&tokens));
/// # drop(layer);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ValidateToken<R> {
    layer: AuthenticateLayer,
    body: PhantomData<fn() -> R>,
}

impl<R> ValidateToken<R> {
    /// As [`AuthenticateLayer::bearer`].
    pub fn bearer(tokens: &Tokens) -> Self {
        Self::new(AuthenticateLayer::bearer(tokens))
    }

    /// As [`AuthenticateLayer::header`].
    pub fn header(name: HeaderName, tokens: &Tokens) -> Self {
        Self::new(AuthenticateLayer::header(name, tokens))
    }

    /// As [`AuthenticateLayer::realm`].
    ///
    /// # Errors
    /// If it has a character that no header field may have, such as a line end.
    pub fn realm(self, realm: &str) -> Result<Self, InvalidHeaderValue> {
        self.layer.realm(realm).map(Self::new)
    }

    fn new(layer: AuthenticateLayer) -> Self {
        let body = PhantomData;
        Self { layer, body }
    }
}

impl<B, R: Default> ValidateRequest<B> for ValidateToken<R> {
    type ResponseBody = R;

    fn validate(&mut self, request: &mut Request<B>) -> Result<(), Response<R>> {
        let ways = &self.layer.ways;
        match ways.check_tokens(request.headers_mut()) {
            Ok(authenticated) => {
                request.extensions_mut().insert(authenticated);
                Ok(())
            }
            Err(tokens) => Err(ways.refusal(&tokens, Why::Absent).into_response()),
        }
    }
}

impl<R> Clone for ValidateToken<R> {
    fn clone(&self) -> Self {
        Self::new(self.layer.clone())
    }
}

impl<R> fmt::Debug for ValidateToken<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ValidateToken").field(&self.layer).finish()
    }
}

/// The checks of an [`AuthenticateLayer`] for tower-http's `AsyncRequireAuthorizationLayer`. `R` is the body of the
/// service's responses.
///
/// ```
/// use keydir_hyper::{AuthenticateLayer, Authorize, Tokens};
/// use tower_http::auth::AsyncRequireAuthorizationLayer;
///
/// let dir = keydir::Dir::in_memory([("r1.token", "correct-horse")]);
/// let tokens = Tokens::in_dir(&dir)?;
/// let authorize = Authorize::<String>::from(AuthenticateLayer::bearer(&tokens));
/// let layer = AsyncRequireAuthorizationLayer::new(authorize);
/// # drop(layer);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Authorize<R> {
    ways: Arc<Ways>,
    body: PhantomData<fn() -> R>,
}

impl<R> From<AuthenticateLayer> for Authorize<R> {
    fn from(layer: AuthenticateLayer) -> Self {
        let (ways, body) = (layer.ways, PhantomData);
        Self { ways, body }
    }
}

impl<B, R> AsyncAuthorizeRequest<B> for Authorize<R>
where
    B: Send + 'static,
    R: Default + Send + 'static,
{
    type RequestBody = B;
    type ResponseBody = R;
    type Future = Pin<Box<dyn Future<Output = Result<Request<B>, Response<R>>> + Send>>;

    fn authorize(&mut self, mut request: Request<B>) -> Self::Future {
        let check = self.ways.check(request.headers_mut());
        Box::pin(async move {
            let outcome = match check {
                Check::Now(outcome) => outcome,
                Check::Later(later) => later.await,
            };
            match outcome {
                Ok(authenticated) => {
                    request.extensions_mut().insert(authenticated);
                    Ok(request)
                }
                Err(refusal) => Err(refusal.into_response()),
            }
        })
    }
}

impl<R> Clone for Authorize<R> {
    fn clone(&self) -> Self {
        let (ways, body) = (Arc::clone(&self.ways), PhantomData);
        Self { ways, body }
    }
}

impl<R> fmt::Debug for Authorize<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Authorize").field(&self.ways).finish()
    }
}
