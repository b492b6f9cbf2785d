//! The answer to a request that is authenticated before it is served.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::challenge::Refusal;
use super::ways::Later;

pin_project! {
    /// The answer to a request: that of the inner service, or a refusal. Made by [`Authenticate`](crate::Authenticate).
    pub struct AuthenticateFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, S::Future, B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, F, B> {
        Checking { later: Later, waiting: Option<(S, Request<B>)> },
        Serving { #[pin] serving: F },
        Refused { refusal: Option<Refusal> },
    }
}

impl<S, B> AuthenticateFuture<S, B>
where
    S: Service<Request<B>>,
{
    pub(super) fn checking(later: Later, service: S, request: Request<B>) -> Self {
        let waiting = Some((service, request));
        Self {
            state: State::Checking { later, waiting },
        }
    }

    pub(super) fn serving(serving: S::Future) -> Self {
        Self {
            state: State::Serving { serving },
        }
    }

    pub(super) fn refused(refusal: Refusal) -> Self {
        let refusal = Some(refusal);
        Self {
            state: State::Refused { refusal },
        }
    }
}

impl<S, B, R> Future for AuthenticateFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProjection::Serving { serving } => return serving.poll(context),
                // Nobody may poll after the answer; whoever does is not answered again.
                StateProjection::Refused { refusal } => {
                    return refusal
                        .take()
                        .map_or(Poll::Pending, |refusal| Poll::Ready(Ok(refusal.into_response())));
                }
                StateProjection::Checking { later, waiting } => {
                    match (ready!(later.as_mut().poll(context)), waiting.take()) {
                        (Ok(authenticated), Some((mut service, mut request))) => {
                            request.extensions_mut().insert(authenticated);
                            let serving = service.call(request);
                            State::Serving { serving }
                        }
                        (outcome, _) => State::Refused { refusal: outcome.err() },
                    }
                }
            };
            state.set(next);
        }
    }
}

impl<S, B> fmt::Debug for AuthenticateFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticateFuture").finish_non_exhaustive()
    }
}
