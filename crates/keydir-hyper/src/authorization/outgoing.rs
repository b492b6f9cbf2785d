//! Requests and responses of the clients that there are.

use std::future::Future;

use bytes::Buf;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;

use super::origin::{Origin, Target};
use crate::replay::Replay;

/// A request that is about to be sent.
pub(super) trait Outgoing: Replay + Send + 'static {
    fn target(&self) -> Option<Target<'_>>;
    fn headers(&self) -> &HeaderMap;
    fn headers_mut(&mut self) -> &mut HeaderMap;
}

/// What came back.
pub(super) trait Answer: Send + 'static {
    fn status(&self) -> StatusCode;
    fn headers(&self) -> &HeaderMap;

    /// Whether it is known to come from elsewhere, after redirects that the client has followed by itself.
    fn is_from_elsewhere(&self, origin: &Origin) -> bool;

    /// Reads the body, up to so many bytes, so that an HTTP/1.1 connection can be used again.
    fn drain(&mut self, most: u64) -> impl Future<Output = ()> + Send;
}

impl<B: Replay + Send + 'static> Outgoing for Request<B> {
    fn target(&self) -> Option<Target<'_>> {
        Target::of(self.uri())
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }
}

impl<B: Body<Data: Send> + Send + Unpin + 'static> Answer for Response<B> {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn is_from_elsewhere(&self, _: &Origin) -> bool {
        false
    }

    async fn drain(&mut self, most: u64) {
        let mut left = most;
        if self.body().size_hint().lower() > left {
            return;
        }
        while let Some(Ok(frame)) = self.body_mut().frame().await {
            let length = frame.data_ref().map_or(0, Buf::remaining);
            match left.checked_sub(length.try_into().unwrap_or(u64::MAX)) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    }
}

#[cfg(feature = "reqwest")]
mod of_reqwest {
    use reqwest::Url;

    use super::*;

    fn target(url: &Url) -> Option<Target<'_>> {
        let tls = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let (host, port) = (url.host_str()?, url.port_or_known_default()?);
        Some(Target { tls, host, port })
    }

    impl Outgoing for reqwest::Request {
        fn target(&self) -> Option<Target<'_>> {
            target(self.url())
        }

        fn headers(&self) -> &HeaderMap {
            self.headers()
        }

        fn headers_mut(&mut self) -> &mut HeaderMap {
            self.headers_mut()
        }
    }

    impl Answer for reqwest::Response {
        fn status(&self) -> StatusCode {
            self.status()
        }

        fn headers(&self) -> &HeaderMap {
            self.headers()
        }

        fn is_from_elsewhere(&self, origin: &Origin) -> bool {
            !target(self.url()).is_some_and(|target| target.is(origin))
        }

        async fn drain(&mut self, most: u64) {
            let mut left = most;
            if self.content_length().is_some_and(|length| length > left) {
                return;
            }
            while let Ok(Some(chunk)) = self.chunk().await {
                match left.checked_sub(chunk.len().try_into().unwrap_or(u64::MAX)) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        }
    }
}
