//! A gRPC service of one method, `hosts.Whoami/Ask`, written out: what a build script would generate from its `.proto`.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::uri::PathAndQuery;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

use crate::BoxError;

const ASK: &str = "/hosts.Whoami/Ask";

/// Who has talked to whom.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Answer {
    /// The revision that the server has presented.
    #[prost(string, tag = "1")]
    pub server: String,
    /// The subject of the client.
    #[prost(string, tag = "2")]
    pub client: String,
}

/// The server's side; the function answers.
#[derive(Clone)]
pub struct WhoamiServer<F>(F);

impl<F> WhoamiServer<F>
where
    F: Fn(&Request<()>) -> Result<Answer, Status>,
{
    /// Answers by this.
    pub fn new(answer: F) -> Self {
        Self(answer)
    }
}

impl<F> NamedService for WhoamiServer<F> {
    const NAME: &'static str = "hosts.Whoami";
}

impl<F> Service<http::Request<Body>> for WhoamiServer<F>
where
    F: Fn(&Request<()>) -> Result<Answer, Status> + Clone + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Self(answer) = self.clone();
        Box::pin(async move {
            if request.uri().path() != ASK {
                return Ok(Status::unimplemented("there is no such method").into_http());
            }
            let ask = service_fn(move |request: Request<()>| ready(answer(&request).map(Response::new)));
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
            Ok(grpc.unary(ask, request).await)
        })
    }
}

impl<F> fmt::Debug for WhoamiServer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WhoamiServer").finish_non_exhaustive()
    }
}

/// The client's side, over any channel.
#[derive(Clone, Debug)]
pub struct WhoamiClient<T>(tonic::client::Grpc<T>);

impl<T> WhoamiClient<T>
where
    T: GrpcService<Body, Error: Into<BoxError>>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError> + Send> + Send + 'static,
{
    /// Over this.
    pub fn new(channel: T) -> Self {
        Self(tonic::client::Grpc::new(channel))
    }

    /// Asks who has talked to whom.
    ///
    /// # Errors
    /// As the server or the channel has them.
    pub async fn ask(&mut self) -> Result<Answer, Status> {
        let ready = self.0.ready().await;
        ready.map_err(|error| Status::unavailable(error.into().to_string()))?;
        let path = PathAndQuery::from_static(ASK);
        let codec = ProstCodec::<(), Answer>::default();
        let response = self.0.unary(Request::new(()), path, codec).await?;
        Ok(response.into_inner())
    }
}
