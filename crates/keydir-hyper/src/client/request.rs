//! One request, sent again where that is safe.

use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response, Uri};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::client::legacy::Error;
use tower_service::Service;

use super::connector::{ConnectError, Transport};
use super::pools::Pools;
use super::swap::Swap;
use crate::BoxError;
use crate::replay::Replay;

/// Which requests a [`Client`](crate::Client) sends again, on another connection and then on one of its own, if their
/// body can be [replayed](Replay).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retry {
    /// None.
    Off,
    /// Those of idempotent methods (RFC 9110, 9.2.2), if the server has refused to process them, or the connection broke
    /// before there was an answer.
    #[default]
    Idempotent,
    /// The same, and those of other methods if the server has refused to process them: by HTTP/2's GOAWAY without an
    /// error, or REFUSED_STREAM (RFC 9113, 8.7). Beware: servers have been seen to process some requests that they
    /// refuse by GOAWAY.
    Refused,
}

/// The answer to a request of a [`Client`](crate::Client).
pub struct ResponseFuture<B, H: Service<Uri>> {
    answer: hyper_util::client::legacy::ResponseFuture,
    again: Option<Again<B, H>>,
}

/// The same request, to be sent if the answer is a failure.
struct Again<B, H: Service<Uri>> {
    swap: Swap<Pools<B, H>>,
    request: Request<B>,
    is_last: bool,
}

impl<B, H> ResponseFuture<B, H>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Replay + Send + Unpin + 'static,
    H: Transport,
{
    pub(super) fn new(swap: &Swap<Pools<B, H>>, retry: Retry, request: Request<B>) -> Self {
        let may_retry = match retry {
            Retry::Off => false,
            Retry::Idempotent => request.method().is_idempotent(),
            Retry::Refused => true,
        };
        let spare = may_retry.then(|| request.replay()).flatten();
        Self {
            again: spare.map(|request| Again {
                swap: swap.clone(),
                request,
                is_last: false,
            }),
            answer: send(swap, |pools| pools.request(request)),
        }
    }

    /// Sends the request again, if that is safe after this failure.
    fn send_again(&mut self, error: &Error) -> bool {
        let Some(again) = self.again.take() else { return false };
        let failed = Failed::by(error);
        if !(failed.refused || failed.broken && again.request.method().is_idempotent()) {
            return false;
        }
        tracing::debug!(%error, method = %again.request.method(), "the request is sent again");
        let Again { swap, request, is_last } = again;
        if is_last {
            self.answer = send(&swap, |pools| pools.request_unpooled(request));
            return true;
        }
        let spare = request.replay();
        self.answer = send(&swap, |pools| pools.request(request));
        self.again = spare.map(|request| Again {
            swap,
            request,
            is_last: true,
        });
        true
    }
}

fn send<B, H>(
    swap: &Swap<Pools<B, H>>,
    send: impl FnOnce(&Pools<B, H>) -> hyper_util::client::legacy::ResponseFuture,
) -> hyper_util::client::legacy::ResponseFuture
where
    B: Send + 'static,
    H: Transport,
{
    let Ok(answer) = swap.with(send);
    answer
}

/// How a request has failed.
#[derive(Clone, Copy, Debug, Default)]
struct Failed {
    /// The server says that it has not processed it.
    refused: bool,
    /// The connection broke, and nobody knows.
    broken: bool,
}

impl Failed {
    fn by(error: &Error) -> Self {
        let mut failed = Self::default();
        let mut cause = error.source();
        if error.is_connect() {
            failed.refused = cause.is_some_and(goes_another_way);
            return failed;
        }
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<hyper::Error>() {
                failed.broken |= error.is_incomplete_message() || error.is_closed() || error.is_canceled();
            }
            if let Some(error) = error.downcast_ref::<h2::Error>() {
                let reason = error.is_remote().then(|| error.reason()).flatten();
                failed.refused |= match reason {
                    Some(h2::Reason::NO_ERROR) => error.is_go_away(),
                    Some(h2::Reason::REFUSED_STREAM) => error.is_reset(),
                    _ => false,
                };
                failed.broken |= error.get_io().is_some_and(broke) || error.is_go_away();
            }
            failed.broken |= error.downcast_ref::<std::io::Error>().is_some_and(broke);
            cause = error.source();
        }
        failed
    }
}

/// Of what fails before anything is sent, only this goes another way next time: the server speaks another HTTP, or the
/// pool had given out a connection that was closed at that moment. Of the latter hyper-util 0.1 has nothing but a text.
fn goes_another_way(error: &(dyn std::error::Error + 'static)) -> bool {
    match error.downcast_ref::<ConnectError>() {
        Some(error) => *error == ConnectError::NotHttp2,
        None => error.to_string() == "checked out connection was closed",
    }
}

fn broke(error: &std::io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}

impl<B, H> Future for ResponseFuture<B, H>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Replay + Send + Unpin + 'static,
    H: Transport,
{
    type Output = Result<Response<Incoming>, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            let answer = ready!(Pin::new(&mut this.answer).poll(context));
            match &answer {
                Err(error) if this.send_again(error) => {}
                _ => return Poll::Ready(answer),
            }
        }
    }
}

/// Nothing in it is pinned.
impl<B, H: Service<Uri>> Unpin for ResponseFuture<B, H> {}

impl<B, H: Service<Uri>> fmt::Debug for ResponseFuture<B, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
