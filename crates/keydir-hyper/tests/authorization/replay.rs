//! Which bodies can be sent again.

use std::convert::Infallible;

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Either, Empty, Full, StreamBody};
use keydir_hyper::{NoReplay, Replay};

async fn text<B: Body<Error: std::fmt::Debug>>(body: B) -> Bytes {
    body.collect().await.unwrap().to_bytes()
}

fn full() -> Full<Bytes> {
    Full::new(Bytes::from("text"))
}

#[tokio::test]
async fn what_lies_in_memory_begins_anew() {
    assert_eq!(text(full().replay().unwrap()).await, "text");
    assert_eq!(text(Empty::<Bytes>::new().replay().unwrap()).await, "");
    assert_eq!(text("text".to_owned().replay().unwrap()).await, "text");
    let either = Either::<Full<Bytes>, Empty<Bytes>>::Left(full());
    assert_eq!(text(either.replay().unwrap()).await, "text");
}

#[tokio::test]
async fn a_box_can_be_sent_again_if_it_is_empty() {
    assert!(full().boxed().replay().is_none() && full().boxed_unsync().replay().is_none());
    let empty = Empty::<Bytes>::new;
    assert_eq!(text(empty().boxed().replay().unwrap()).await, "");
    assert_eq!(text(empty().boxed_unsync().replay().unwrap()).await, "");
    #[cfg(feature = "axum")]
    {
        assert!(axum::body::Body::from("text").replay().is_none());
        assert_eq!(text(axum::body::Body::empty().replay().unwrap()).await, "");
    }
    #[cfg(feature = "tonic")]
    {
        assert!(tonic::body::Body::new(full()).replay().is_none());
        assert_eq!(text(tonic::body::Body::empty().replay().unwrap()).await, "");
    }
}

struct Once(Option<Bytes>);

impl futures_core::Stream for Once {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[tokio::test]
async fn a_stream_is_sent_once_and_so_is_what_is_told_to_be() {
    let stream = StreamBody::new(Once(Some(Bytes::from("text"))));
    assert!(stream.replay().is_none());
    assert_eq!(text(stream).await, "text");
    let once = NoReplay(full());
    assert!(once.replay().is_none());
    assert_eq!((once.size_hint().exact(), once.is_end_stream()), (Some(4), false));
    assert_eq!(text(once).await, "text");
}

#[test]
fn a_request_is_replayed_whole() {
    #[derive(Clone, Debug, PartialEq)]
    struct Extension;
    let mut request = Request::put("https://api.internal/x")
        .header("a", "b")
        .body(full())
        .unwrap();
    request.extensions_mut().insert(Extension);
    let again = request.replay().unwrap();
    assert_eq!(again.method(), request.method());
    assert_eq!(again.uri(), request.uri());
    assert_eq!(again.headers(), request.headers());
    assert_eq!(again.version(), request.version());
    assert_eq!(again.extensions().get(), Some(&Extension));
    assert!(request.map(NoReplay).replay().is_none());
}
