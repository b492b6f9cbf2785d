//! The service that adds the credential.

use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::future::AuthorizationFuture;
use super::outgoing::{Answer, Outgoing};
use super::rules::Rules;
use crate::BoxError;

/// A client whose requests get a credential; made by [`AuthorizationLayer`](crate::AuthorizationLayer). It takes
/// [`http::Request`]s, of a body that may be [replayed](crate::Replay) or not, or with the feature `reqwest` those of
/// reqwest, whatever the client takes.
#[derive(Clone, Debug)]
pub struct Authorization<S> {
    inner: S,
    rules: Arc<Rules>,
}

impl<S> Authorization<S> {
    pub(super) fn new(inner: S, rules: Arc<Rules>) -> Self {
        Self { inner, rules }
    }
}

impl<S, R> Service<R> for Authorization<S>
where
    R: Outgoing,
    S: Service<R, Response: Answer, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = AuthorizationFuture<S, R>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: R) -> Self::Future {
        let Some(origin) = self.rules.admit(&request) else {
            return AuthorizationFuture::passed(self.inner.call(request));
        };
        let presented = match self.rules.present(&origin) {
            Ok(presented) => presented,
            Err(error) => return AuthorizationFuture::failed(error.into()),
        };
        let spare = presented.first.then(|| request.replay()).flatten();
        let spare = spare.map(|request| (self.inner.clone(), request));
        let value = presented.credential.value.clone();
        request.headers_mut().insert(self.rules.header.clone(), value);
        AuthorizationFuture::sent(self.inner.call(request), Arc::clone(&self.rules), presented, spare)
    }
}
