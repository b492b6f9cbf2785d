//! TLS for hosts that connect through a tower service of URIs.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, Scheme};
use hyper::rt::{Read, Write};
use hyper_util::client::legacy::connect::Connection;
use hyper_util::rt::TokioIo;
use keydir_rustls::HandshakeError;
use keydir_rustls::rustls::pki_types::ServerName;
use tokio::time::sleep;
use tower_service::Service;

use super::generation::Generation;
use super::origins::Origins;
use super::stream::{HttpsStream, speaks_h2};
use crate::BoxError;

/// A handshake that a revocation has overtaken is begun anew, so often.
const ATTEMPTS: usize = 5;

/// What makes the connections that TLS goes over: a tower service of URIs, such as hyper-util's `HttpConnector`.
pub trait Transport:
    Service<Uri, Response: Connection + Read + Write + Send + Unpin + 'static, Error: Into<BoxError>, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<T> Transport for T where
    T: Service<Uri, Response: Connection + Read + Write + Send + Unpin + 'static, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Connects to `https` URIs, with the identity and the trust of a [`Generation`]: a tower service of URIs, as
/// hyper-util's client and tonic's `Endpoint::connect_with_connector` take it. Made by [`Generation::https`].
pub struct HttpsConnector<H: Service<Uri>> {
    http: H,
    generation: Generation,
    plain: bool,
    h2_only: bool,
    origins: Origins,
    ready: Ready<H::Response>,
}

/// Connections that were dialled ahead, until they are asked for.
type Ready<IO> = Arc<Mutex<HashMap<Authority, HttpsStream<IO>>>>;

impl Generation {
    /// A connector for hosts that take a tower service of URIs, such as hyper-util and tonic. It goes over `http`, such
    /// as hyper-util's `HttpConnector`, of which `enforce_http` must be off.
    pub fn https<H: Transport>(&self, http: H) -> HttpsConnector<H> {
        HttpsConnector::new(self.clone(), http)
    }
}

impl<H: Service<Uri>> HttpsConnector<H> {
    pub(super) fn new(generation: Generation, http: H) -> Self {
        Self {
            http,
            generation,
            plain: false,
            h2_only: false,
            origins: Origins::default(),
            ready: Ready::default(),
        }
    }

    /// Connects to `http` URIs too, without TLS. They are refused without this.
    pub fn also_plain_http(mut self) -> Self {
        self.plain = true;
        self
    }

    /// For a pool that takes HTTP/2 for granted: a connection that speaks anything else fails.
    pub(super) fn h2_only(mut self) -> Self {
        self.h2_only = true;
        self
    }

    pub(super) fn with_origins(mut self, origins: Origins) -> Self {
        self.origins = origins;
        self
    }
}

impl<H: Transport> HttpsConnector<H> {
    /// Connects to an origin before anybody asks for it; whoever does is given this connection.
    pub(super) async fn dial_ahead(mut self, authority: Authority) -> Result<(), BoxError> {
        let uri = Uri::builder().scheme(Scheme::HTTPS).authority(authority.clone());
        let stream = self.connect(uri.path_and_query("/").build()?).await?;
        lock(&self.ready).insert(authority, stream);
        Ok(())
    }

    /// Closes what was dialled ahead and nobody has asked for until then. Nobody reads from it, so that nobody would see
    /// its end.
    pub(super) fn close_ready_after(&self, time: Duration) {
        let ready = Arc::downgrade(&self.ready);
        tokio::spawn(async move {
            sleep(time).await;
            if let Some(ready) = ready.upgrade() {
                lock(&ready).clear();
            }
        });
    }

    async fn connect(&mut self, uri: Uri) -> Result<HttpsStream<H::Response>, BoxError> {
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(ConnectError::NoOrigin.into());
        };
        if *scheme != Scheme::HTTPS {
            if *scheme != Scheme::HTTP || !self.plain {
                return Err(ConnectError::NotHttps(scheme.to_string()).into());
            }
            return self.dial(uri).await.map(HttpsStream::plain);
        }
        if let Some(stream) = self.take_ready(authority) {
            return Ok(stream);
        }
        let host = authority.host();
        // RFC 3986, 3.2.2: only an IPv6 address stands in brackets.
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let name = ServerName::try_from(host.to_owned()).map_err(|_| ConnectError::NoName(host.to_owned()))?;
        let mut attempt = 1;
        let tls = loop {
            let io = self.dial(uri.clone()).await?;
            let connector = self.generation.connector();
            match connector.connect(name.clone(), TokioIo::new(io)).await {
                // Nothing was sent yet; the next handshake goes by what is trusted now.
                Err(HandshakeError::Ended(_)) if attempt < ATTEMPTS => attempt += 1,
                tls => break tls?,
            }
        };
        if let Some(key) = tls.connection().identity() {
            self.generation.presents(key);
        }
        let h2 = speaks_h2(&tls);
        let alive = self.origins.connected(authority, h2);
        if self.h2_only && !h2 {
            return Err(ConnectError::NotHttp2.into());
        }
        Ok(HttpsStream::tls(tls, self.generation.clone(), alive))
    }

    async fn dial(&mut self, uri: Uri) -> Result<H::Response, BoxError> {
        std::future::poll_fn(|context| self.http.poll_ready(context))
            .await
            .map_err(Into::into)?;
        self.http.call(uri).await.map_err(Into::into)
    }

    /// A connection that was dialled ahead, if it is still good.
    fn take_ready(&self, authority: &Authority) -> Option<HttpsStream<H::Response>> {
        let stream = lock(&self.ready).remove(authority)?;
        let stands = stream.connection().is_some_and(keydir_rustls::Connection::stands);
        (stands && (stream.is_h2() || !self.h2_only)).then_some(stream)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<H: Transport> Service<Uri> for HttpsConnector<H> {
    type Response = HttpsStream<H::Response>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.http.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let next = self.clone();
        // The one that is ready goes.
        let mut this = std::mem::replace(self, next);
        Box::pin(async move { this.connect(uri).await })
    }
}

impl<H: Service<Uri> + Clone> Clone for HttpsConnector<H> {
    fn clone(&self) -> Self {
        Self {
            http: self.http.clone(),
            generation: self.generation.clone(),
            plain: self.plain,
            h2_only: self.h2_only,
            origins: self.origins.clone(),
            ready: Arc::clone(&self.ready),
        }
    }
}

impl<H: Service<Uri>> fmt::Debug for HttpsConnector<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpsConnector")
            .field("generation", &self.generation)
            .field("plain", &self.plain)
            .finish_non_exhaustive()
    }
}

/// Why an [`HttpsConnector`] does not connect. What the transport or the handshake fails with is passed on as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URI has no scheme or no authority.
    NoOrigin,
    /// The URI has another scheme than `https`.
    NotHttps(String),
    /// The URI's host is neither a DNS name nor an IP address.
    NoName(String),
    /// The server does not agree to HTTP/2, though it has spoken it before or nothing else is asked for. Nothing was sent.
    /// In the former case the next request gets HTTP/1.1.
    NotHttp2,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOrigin => f.write_str("the URI has no scheme or no authority"),
            Self::NotHttps(scheme) => write!(f, "the URI's scheme is {scheme:?}, not https"),
            Self::NoName(host) => write!(f, "the URI's host {host:?} is neither a DNS name nor an IP address"),
            Self::NotHttp2 => f.write_str("the server does not agree to HTTP/2"),
        }
    }
}

impl Error for ConnectError {}
