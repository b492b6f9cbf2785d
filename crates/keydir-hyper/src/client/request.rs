//! One request, sent again where that is safe.

use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::client::legacy::Error;

use super::connector::Transport;
use super::pools::Pools;
use super::swap::Swap;
use crate::BoxError;
use crate::replay::Replay;

/// A request is sent again so often.
const AGAIN: usize = 2;

/// Which requests a [`Client`](crate::Client) sends again, on another connection and at most twice, if their body can
/// be [replayed](Replay).
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
pub struct ResponseFuture(Pin<Box<dyn Future<Output = Result<Response<Incoming>, Error>> + Send>>);

impl ResponseFuture {
    pub(super) fn new<B, H>(swap: Swap<Pools<B, H>>, retry: Retry, request: Request<B>) -> Self
    where
        B: Body<Data: Send, Error: Into<BoxError>> + Replay + Send + Unpin + 'static,
        H: Transport,
    {
        let idempotent = request.method().is_idempotent();
        let mut spare = match retry {
            Retry::Off => None,
            Retry::Idempotent if !idempotent => None,
            Retry::Idempotent | Retry::Refused => replay(&request),
        };
        let first = pools(&swap).request(request);
        Self(Box::pin(async move {
            let mut answer = first.await;
            for _ in 0..AGAIN {
                let Err(error) = &answer else { break };
                let failed = Failed::by(error);
                if !(failed.refused || failed.broken && idempotent) {
                    break;
                }
                let Some(request) = spare else { break };
                tracing::debug!(%error, method = %request.method(), "the request is sent again");
                spare = replay(&request);
                answer = pools(&swap).request(request).await;
            }
            answer
        }))
    }
}

fn pools<B, H: Transport>(swap: &Swap<Pools<B, H>>) -> Pools<B, H>
where
    B: Send + 'static,
{
    let Ok(pools) = swap.current();
    pools
}

/// The same request, with a body that begins anew.
fn replay<B: Replay>(request: &Request<B>) -> Option<Request<B>> {
    let mut again = Request::new(request.body().replay()?);
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    *again.extensions_mut() = request.extensions().clone();
    Some(again)
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
        if error.is_connect() {
            return failed;
        }
        let mut cause = error.source();
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

fn broke(error: &std::io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}

impl Future for ResponseFuture {
    type Output = Result<Response<Incoming>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
