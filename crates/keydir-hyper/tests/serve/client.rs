//! Plain clients: hyper's own, which retry nothing.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use keydir_rustls::rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::Service;

use crate::scene::{NAME, soon};

pub(crate) type Body = Full<Bytes>;

pub(crate) async fn tls(config: &Arc<ClientConfig>, to: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(to).await?;
    let connector = TlsConnector::from(Arc::clone(config));
    connector.connect(NAME.try_into().unwrap(), tcp).await
}

/// A connection whose end can be waited for.
pub(crate) struct Conn<S> {
    pub(crate) send: S,
    pub(crate) end: JoinHandle<hyper::Result<()>>,
}

pub(crate) async fn h1(config: &Arc<ClientConfig>, to: SocketAddr) -> Conn<http1::SendRequest<Body>> {
    let io = TokioIo::new(soon(tls(config, to)).await.unwrap());
    let (send, connection) = http1::handshake(io).await.unwrap();
    let end = tokio::spawn(connection.with_upgrades());
    Conn { send, end }
}

pub(crate) async fn h2(config: &Arc<ClientConfig>, to: SocketAddr) -> Conn<http2::SendRequest<Body>> {
    let io = TokioIo::new(soon(tls(config, to)).await.unwrap());
    let (send, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let end = tokio::spawn(connection);
    Conn { send, end }
}

pub(crate) fn get(path: &str) -> Request<Body> {
    let uri = format!("https://{NAME}{path}");
    Request::get(uri).body(Full::default()).unwrap()
}

/// As HTTP/1 has it on a connection.
pub(crate) fn get1(path: &str) -> Request<Body> {
    let request = Request::get(path).header("host", NAME);
    request.body(Full::default()).unwrap()
}

pub(crate) async fn text(response: Response<Incoming>) -> String {
    let body = soon(response.into_body().collect()).await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

pub(crate) fn closes(response: &Response<Incoming>) -> bool {
    response
        .headers()
        .get("connection")
        .is_some_and(|value| value == "close")
}

/// Connects always to the same server.
#[derive(Clone)]
pub(crate) struct ToServer {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) address: SocketAddr,
}

/// A pool that retries nothing.
pub(crate) fn pool(config: &Arc<ClientConfig>, address: SocketAddr) -> Client<ToServer, Body> {
    let connector = ToServer {
        config: Arc::clone(config),
        address,
    };
    Client::builder(TokioExecutor::new())
        .retry_canceled_requests(false)
        .build(connector)
}

impl Service<Uri> for ToServer {
    type Response = TokioIo<Stream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(TokioIo::new(Stream(tls(&this.config, this.address).await?))) })
    }
}

pub(crate) struct Stream(TlsStream<TcpStream>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let (_, session) = self.0.get_ref();
        match session.alpn_protocol() {
            Some(b"h2") => Connected::new().negotiated_h2(),
            _ => Connected::new(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
