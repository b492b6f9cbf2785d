//! What a client sends, and what a test waits for.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use keydir_hyper::{Client, Replay};
use keydir_rustls::Connection;
use tokio::sync::mpsc;
use tokio::time::sleep;

pub(crate) use crate::pki::*;
pub(crate) use crate::server::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until it is so.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(1)).await;
    }
}

/// A body that comes as it is sent into the channel.
pub(crate) struct Piecewise(pub(crate) mpsc::Receiver<Bytes>);

impl Body for Piecewise {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(context)
            .map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// What a client sends or a server answers.
pub(crate) enum Payload {
    Whole(Option<Bytes>),
    Piecewise(Piecewise),
}

impl Default for Payload {
    fn default() -> Self {
        Self::Whole(None)
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Self::Whole(Some(Bytes::copy_from_slice(text.as_bytes())))
    }
}

impl Replay for Payload {
    fn replay(&self) -> Option<Self> {
        match self {
            Self::Whole(bytes) => Some(Self::Whole(bytes.clone())),
            Self::Piecewise(_) => None,
        }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Piecewise(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len).try_into().unwrap()),
            Self::Piecewise(_) => SizeHint::default(),
        }
    }
}

/// Gets it and says which identity carried it; both sides must agree.
pub(crate) async fn carried_by(client: &Client<Payload>, uri: http::Uri) -> String {
    let response = client.get(uri).await.unwrap();
    let id = carrier(&response);
    let told = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(told, id.as_bytes());
    id
}

pub(crate) fn carrier<B>(response: &Response<B>) -> String {
    assert_eq!(response.status(), StatusCode::OK);
    let connection = response.extensions().get::<Connection>().unwrap();
    connection.identity().unwrap().id().as_str().to_owned()
}
