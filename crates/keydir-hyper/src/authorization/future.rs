//! The answer to one request, and where it is a refusal perhaps that to another.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tower_service::Service;

use super::outgoing::{Answer, Outgoing};
use super::rules::{Presented, Rules, Verdict};
use crate::BoxError;

/// So much of a refusal's body is read, within so long, that an HTTP/1.1 connection can be used again.
const DRAINED: u64 = 64 * 1024;
const DRAINING: Duration = Duration::from_secs(1);

type Boxed<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

pin_project! {
    /// The answer to a request of an [`Authorization`](crate::Authorization) service.
    pub struct AuthorizationFuture<S: Service<R>, R> {
        #[pin]
        state: State<S, R, S::Future, S::Response>,
    }
}

pin_project! {
    #[project = StateProjected]
    enum State<S, R, F, T> {
        Sent { #[pin] answer: F, sent: Option<Sent<S, R>> },
        Again { answer: Boxed<T> },
        Failed { error: Option<BoxError> },
    }
}

/// A request that has presented a credential.
struct Sent<S, R> {
    rules: Arc<Rules>,
    presented: Presented,
    /// To send it again.
    spare: Option<(S, R)>,
}

impl<S: Service<R>, R> AuthorizationFuture<S, R> {
    pub(super) fn passed(answer: S::Future) -> Self {
        Self {
            state: State::Sent { answer, sent: None },
        }
    }

    pub(super) fn sent(answer: S::Future, rules: Arc<Rules>, presented: Presented, spare: Option<(S, R)>) -> Self {
        let sent = Some(Sent {
            rules,
            presented,
            spare,
        });
        Self {
            state: State::Sent { answer, sent },
        }
    }

    pub(super) fn failed(error: BoxError) -> Self {
        Self {
            state: State::Failed { error: Some(error) },
        }
    }
}

impl<S, R> Future for AuthorizationFuture<S, R>
where
    R: Outgoing,
    S: Service<R, Response: Answer, Error: Into<BoxError>, Future: Send> + Send + 'static,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProjected::Sent { answer, sent } => {
                    let answer = ready!(answer.poll(context)).map_err(Into::into)?;
                    let Some(sent) = sent.take() else {
                        return Poll::Ready(Ok(answer));
                    };
                    let verdict = sent.rules.verdict(&sent.presented, &answer);
                    sent.rules.note(&sent.presented, verdict);
                    let Some(again) = sent.again(verdict) else {
                        return Poll::Ready(Ok(answer));
                    };
                    let answer = Box::pin(again.send_after(answer));
                    state.set(State::Again { answer });
                }
                StateProjected::Again { answer } => return answer.as_mut().poll(context),
                StateProjected::Failed { error } => match error.take() {
                    Some(error) => return Poll::Ready(Err(error)),
                    None => return Poll::Pending,
                },
            }
        }
    }
}

impl<S, R> Sent<S, R> {
    /// The same request with another credential, if there is one that may be tried.
    fn again(self, verdict: Verdict) -> Option<Again<S, R>> {
        let (service, request) = self.spare.filter(|_| verdict == Verdict::Refused)?;
        Some(Again {
            presented: self.rules.another(&self.presented)?,
            rules: self.rules,
            service,
            request,
        })
    }
}

struct Again<S, R> {
    rules: Arc<Rules>,
    presented: Presented,
    service: S,
    request: R,
}

impl<S, R> Again<S, R>
where
    R: Outgoing,
    S: Service<R, Response: Answer, Error: Into<BoxError>, Future: Send> + Send + 'static,
{
    async fn send_after(mut self, mut refusal: S::Response) -> Result<S::Response, BoxError> {
        // If it takes too long, the connection is lost and nothing else.
        let _ = tokio::time::timeout(DRAINING, refusal.drain(DRAINED)).await;
        poll_fn(|context| self.service.poll_ready(context))
            .await
            .map_err(Into::into)?;
        let Presented { origin, credential, .. } = &self.presented;
        if !self.rules.source.has(credential) {
            return Ok(refusal);
        }
        drop(refusal);
        tracing::debug!(revision = %credential.id(), %origin, "the request is sent again, with another credential");
        let value = credential.value.clone();
        self.request.headers_mut().insert(self.rules.header.clone(), value);
        let answer = self.service.call(self.request).await.map_err(Into::into)?;
        let verdict = self.rules.verdict(&self.presented, &answer);
        self.rules.note(&self.presented, verdict);
        Ok(answer)
    }
}

impl<S: Service<R>, R> fmt::Debug for AuthorizationFuture<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizationFuture").finish_non_exhaustive()
    }
}
