//! hyper-util's client over plain rustls, which knows nothing of rotations and retries nothing.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use keydir_rustls::rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::{Service, ServiceExt};

use crate::load::FLOOR;
use crate::pki::revision;

pub(crate) type Body = Empty<Bytes>;
pub(crate) type Pool = Client<ToServer, Body>;

/// The revision of the server's leaf, in an answer's extensions.
#[derive(Clone, Copy)]
pub(crate) struct ServerRevision(pub(crate) u64);

/// One pool for ever, of HTTP/2 or of HTTP/1.1, as the config offers by ALPN.
pub(crate) fn pool(config: &Arc<ClientConfig>, address: SocketAddr) -> Pool {
    Client::builder(TokioExecutor::new())
        .retry_canceled_requests(false)
        .http2_only(config.alpn_protocols == [b"h2"])
        .build(ToServer::new(config, address))
}

pub(crate) fn uri(address: SocketAddr) -> Uri {
    format!("https://localhost:{}/", address.port()).parse().unwrap()
}

pub(crate) fn get(address: SocketAddr, floor: u64) -> Request<Body> {
    let request = Request::get(uri(address)).header(FLOOR, floor);
    request.body(Body::new()).unwrap()
}

/// Sends one request and reads the answer to its end; anything but 200 is an error.
pub(crate) async fn send<C>(client: C, request: Request<Body>) -> Result<Response<()>, String>
where
    C: Service<Request<Body>, Response = Response<Incoming>>,
    C::Error: std::fmt::Debug,
{
    let answer = client.oneshot(request).await.map_err(|error| format!("{error:?}"))?;
    let (head, body) = answer.into_parts();
    body.collect().await.map_err(|error| format!("{error:?}"))?;
    match head.status.as_u16() {
        200 => Ok(Response::from_parts(head, ())),
        status => Err(status.to_string()),
    }
}

#[derive(Clone)]
pub(crate) struct ToServer {
    config: Arc<ClientConfig>,
    address: SocketAddr,
}

impl ToServer {
    pub(crate) fn new(config: &Arc<ClientConfig>, address: SocketAddr) -> Self {
        let config = Arc::clone(config);
        Self { config, address }
    }
}

impl Service<Uri> for ToServer {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let tcp = TcpStream::connect(this.address).await?;
            tcp.set_nodelay(true)?;
            let tls = TlsConnector::from(this.config).connect("localhost".try_into().unwrap(), tcp);
            Ok(TokioIo::new(Stream(tls.await?)))
        })
    }
}

pub(crate) struct Stream(TlsStream<TcpStream>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let (_, session) = self.0.get_ref();
        let leaf = &session.peer_certificates().unwrap()[0];
        let connected = Connected::new().extra(ServerRevision(revision(leaf)));
        match session.alpn_protocol() {
            Some(b"h2") => connected.negotiated_h2(),
            _ => connected,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
