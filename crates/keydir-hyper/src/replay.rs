//! What can be sent again.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Buf;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use http_body_util::{BodyExt, Either, Empty, Full, StreamBody};
use hyper::body::Incoming;

/// A request body that can perhaps be sent once more from its beginning, because it lies in memory; or a whole request.
///
/// A body of your own that is not in memory says `None`, and so does [`NoReplay`] for one of another crate. Bodies in a
/// box, of tonic, axum or reqwest, can be sent again if they are empty or say that they can.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use keydir_hyper::Replay;
///
/// assert!(Full::new(Bytes::from("in memory")).replay().is_some());
/// ```
pub trait Replay: Sized {
    /// The same again, or `None` if it cannot be had again.
    fn replay(&self) -> Option<Self>;
}

impl<D: Buf + Clone> Replay for Full<D> {
    fn replay(&self) -> Option<Self> {
        Some(self.clone())
    }
}

impl<D> Replay for Empty<D> {
    fn replay(&self) -> Option<Self> {
        Some(Self::new())
    }
}

impl Replay for String {
    fn replay(&self) -> Option<Self> {
        Some(self.clone())
    }
}

impl<L: Replay, R: Replay> Replay for Either<L, R> {
    fn replay(&self) -> Option<Self> {
        Some(match self {
            Self::Left(left) => Self::Left(left.replay()?),
            Self::Right(right) => Self::Right(right.replay()?),
        })
    }
}

impl<D: Buf + Send + Sync + 'static, E: 'static> Replay for BoxBody<D, E> {
    fn replay(&self) -> Option<Self> {
        let empty = || Self::new(Empty::new().map_err(|never| match never {}));
        self.is_end_stream().then(empty)
    }
}

impl<D: Buf + Send + 'static, E: 'static> Replay for UnsyncBoxBody<D, E> {
    fn replay(&self) -> Option<Self> {
        let empty = || Self::new(Empty::new().map_err(|never| match never {}));
        self.is_end_stream().then(empty)
    }
}

impl<S> Replay for StreamBody<S> {
    fn replay(&self) -> Option<Self> {
        None
    }
}

impl Replay for Incoming {
    fn replay(&self) -> Option<Self> {
        None
    }
}

#[cfg(feature = "axum")]
impl Replay for axum::body::Body {
    fn replay(&self) -> Option<Self> {
        self.is_end_stream().then(Self::empty)
    }
}

#[cfg(feature = "tonic")]
impl Replay for tonic::body::Body {
    fn replay(&self) -> Option<Self> {
        self.is_end_stream().then(Self::empty)
    }
}

impl<B: Replay> Replay for Request<B> {
    fn replay(&self) -> Option<Self> {
        let mut again = Self::new(self.body().replay()?);
        *again.method_mut() = self.method().clone();
        *again.uri_mut() = self.uri().clone();
        *again.version_mut() = self.version();
        *again.headers_mut() = self.headers().clone();
        *again.extensions_mut() = self.extensions().clone();
        Some(again)
    }
}

#[cfg(feature = "reqwest")]
impl Replay for reqwest::Request {
    fn replay(&self) -> Option<Self> {
        self.try_clone()
    }
}

/// Any body, to be sent once: nothing that needs a [`Replay`] is done with it.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::{BodyExt, Full};
/// use keydir_hyper::{NoReplay, Replay};
///
/// let mapped = Full::new(Bytes::from("hello")).map_frame(|frame| frame); // its type knows no `Replay`
/// assert!(NoReplay(mapped).replay().is_none());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct NoReplay<B>(pub B);

impl<B> Replay for NoReplay<B> {
    fn replay(&self) -> Option<Self> {
        None
    }
}

impl<B: Body + Unpin> Body for NoReplay<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.0).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
