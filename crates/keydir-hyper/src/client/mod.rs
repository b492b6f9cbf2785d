//! An HTTPS client whose pool follows what its connections rest on.

mod connector;
mod driver;
mod generation;
mod oneshot;
mod origins;
mod pools;
mod request;
mod shared;
mod stream;
mod swap;

pub use connector::{ConnectError, HttpsConnector, Transport};
pub use generation::Generation;
pub use oneshot::Oneshot;
pub use request::{ResponseFuture, Retry};
pub use stream::HttpsStream;
pub use swap::{Swap, SwapBuilder};

use std::fmt;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, Uri};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::client::legacy::Builder as PoolBuilder;
use hyper_util::client::legacy::Error;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use keydir_rustls::{BuildError, ClientBuilder, Connector};
use tower_service::Service;

use self::pools::{Maker, Pools};
use self::shared::{Options, Times};
use crate::BoxError;
use crate::replay::Replay;

/// An idle connection is kept so long, where the pool's builder is not given.
const IDLE: Duration = Duration::from_secs(90);
const HTTP2: &[&[u8]] = &[b"h2"];

/// An HTTPS client over hyper-util's, whose pooled connections follow the directories: a request never goes out on a
/// connection that rests on an identity or a CA that was revoked before the request was made.
///
/// When something is revoked, a new pool takes the place of the old one before the next request; requests that are
/// under way finish on the old one, within the [`grace`](Builder::grace). When there is a new identity, one connection
/// to each server is made with it ahead, and then the pool is replaced, at a random moment within the promotion window.
/// HTTP/1.1 and HTTP/2 are agreed on by ALPN.
///
/// It is a tower service, with hyper-util's errors; cheap to clone, and clones share the pool. Each response's
/// extensions have the [`keydir_rustls::Connection`] that carried it.
///
/// ```no_run
/// # async fn get() -> Result<(), Box<dyn std::error::Error>> {
/// use bytes::Bytes;
/// use http_body_util::Empty;
/// use keydir_rustls::{Identity, TrustAnchors, client_config};
///
/// let identity = Identity::open("/run/secrets/client-tls")?;
/// let anchors = TrustAnchors::open("/run/secrets/mesh-ca")?;
/// let client = keydir_hyper::Client::builder(client_config(&anchors).identity(&identity)).build::<Empty<Bytes>>()?;
///
/// let response = client.get("https://api.mesh.example/".parse()?).await?;
/// # drop(response);
/// # Ok(())
/// # }
/// ```
pub struct Client<B, H: Service<Uri> = HttpConnector> {
    swap: Swap<Pools<B, H>>,
    connector: Connector,
    retry: Retry,
}

/// How a [`Client`] is to be made; by [`Client::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens until it is built"]
pub struct Builder {
    tls: ClientBuilder,
    pool: PoolBuilder,
    alpn: &'static [&'static [u8]],
    plain: bool,
    retry: Retry,
    times: Times,
    grace: Option<Duration>,
}

impl Client<()> {
    /// Begins a client with an identity and trust from keydir-rustls.
    pub fn builder(tls: ClientBuilder) -> Builder {
        let mut pool = PoolBuilder::new(TokioExecutor::new());
        pool.pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new());
        Builder {
            tls,
            pool,
            alpn: &[b"h2", b"http/1.1"],
            plain: false,
            retry: Retry::Idempotent,
            times: Times::default(),
            grace: None,
        }
    }
}

impl Builder {
    /// Your own builder of hyper-util. Give it a `pool_timer`, or idle connections stay open. Without this, one that
    /// keeps idle connections for 90 s.
    pub fn pool(mut self, pool: PoolBuilder) -> Self {
        self.pool = pool;
        self
    }

    /// Speaks HTTP/1.1 only.
    pub fn http1_only(mut self) -> Self {
        self.alpn = &[b"http/1.1"];
        self
    }

    /// Speaks HTTP/2 only: a server that does not is refused.
    pub fn http2_only(mut self) -> Self {
        self.alpn = HTTP2;
        self
    }

    /// Sends requests to `http` URIs too, without TLS. They are refused without this.
    pub fn also_plain_http(mut self) -> Self {
        self.plain = true;
        self
    }

    /// Which requests are sent again if the server has refused to process them; without this those of idempotent
    /// methods.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// The time within which connections with a new identity take the place of those with the one before: each client
    /// picks a moment in it, so that many clients do not connect at once. 10 s without this, a day at most. A revocation
    /// does not wait.
    pub fn promotion_window(mut self, window: Duration) -> Self {
        self.times.set_promotion_window(window);
        self
    }

    /// No connection is used for new requests for longer than this (at least a second), though nothing was revoked; the
    /// pool is replaced as for a new identity, and so stays for as long as no server can be connected to. Without this
    /// there is no limit.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.times.set_max_age(age);
        self
    }

    /// What is under way when something is revoked may go on for so long; then its connection is cut. 5 s without this.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Builds the client over TCP, with `TCP_NODELAY`.
    ///
    /// Must be called from within a tokio runtime with time enabled.
    ///
    /// # Errors
    /// As [`ClientBuilder::build`].
    pub fn build<B>(self) -> Result<Client<B>, BuildError>
    where
        B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        self.build_over(http)
    }

    /// Builds the client over a connector of your own, which gets `https` URIs and makes no TLS of them. (Of
    /// hyper-util's `HttpConnector`, `enforce_http` must be off.)
    ///
    /// Must be called from within a tokio runtime with time enabled.
    ///
    /// # Errors
    /// As [`ClientBuilder::build`].
    pub fn build_over<B, H>(self, http: H) -> Result<Client<B, H>, BuildError>
    where
        B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
        H: Transport,
    {
        let alpn = self.alpn;
        let mut connector = self
            .tls
            .connector_with(|config| config.alpn_protocols = alpn.iter().map(|alpn| alpn.to_vec()).collect())?;
        if let Some(grace) = self.grace {
            connector = connector.with_grace(grace);
        }
        let options = Options {
            times: self.times,
            ahead: pools::ahead(),
        };
        let maker = Maker::new(self.pool, http, self.plain, alpn == HTTP2);
        let Ok(swap) = Swap::with_options(&connector, options, move |generation| Ok(maker.pools(generation)));
        Ok(Client {
            swap,
            connector,
            retry: self.retry,
        })
    }
}

impl<B, H> Client<B, H>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Replay + Send + Unpin + 'static,
    H: Transport,
{
    /// Sends a request to its URI, which must be absolute.
    pub fn request(&self, request: Request<B>) -> ResponseFuture<B, H> {
        ResponseFuture::new(&self.swap, self.retry, request)
    }

    /// Gets a URI.
    pub fn get(&self, uri: Uri) -> ResponseFuture<B, H>
    where
        B: Default,
    {
        let mut request = Request::new(B::default());
        *request.uri_mut() = uri;
        self.request(request)
    }
}

impl<B, H: Service<Uri>> Client<B, H> {
    /// What connects: for its options, and its count of connections.
    pub fn connector(&self) -> &Connector {
        &self.connector
    }
}

impl<B, H> Service<Request<B>> for Client<B, H>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Replay + Send + Unpin + 'static,
    H: Transport,
{
    type Response = Response<Incoming>;
    type Error = Error;
    type Future = ResponseFuture<B, H>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture<B, H> {
        self.request(request)
    }
}

impl<B, H: Service<Uri>> Clone for Client<B, H> {
    fn clone(&self) -> Self {
        Self {
            swap: self.swap.clone(),
            connector: self.connector.clone(),
            retry: self.retry,
        }
    }
}

impl<B, H: Service<Uri>> fmt::Debug for Client<B, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("connector", &self.connector)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}
