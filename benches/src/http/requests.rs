//! Requests on connections that are kept.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client as Plain;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use keydir::Dir;
use keydir_hyper::{BoxError, Client, Transport};
use keydir_rustls::{ClientBuilder, Identity, ServerBuilder, TrustAnchors, client_config, server_config};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::{TlsAcceptor, TlsConnector, client};
use tower_service::Service;

use super::counted;
use crate::Work;
use crate::callgrind::cost;
use crate::pki::{Ca, DOMAIN};
use crate::stats::median;
use crate::table::{Table, number};

const REQUESTS: usize = 200;
const WARM_UP: usize = 20;
/// Of each side, by turns.
const ROUNDS: usize = 31;
const IN_A_ROUND: usize = 2_000;
/// 0.98 of the requests a second are this much of the work for one.
const GOAL: f64 = 1.0 / 0.98;

type Body = Empty<Bytes>;
type Call = Pin<Box<dyn Future<Output = Response<Incoming>>>>;

pub(super) fn bench(work: Work, table: &mut Table) {
    for http2 in [false, true] {
        let version = if http2 { "HTTP/2" } else { "HTTP/1.1" };
        let requests = work.of(REQUESTS);
        let [ours, plain] =
            ["keydir", "plain"].map(|side| cost("http::counted", &["http", "requests", side, version], requests));
        let mut row = |unit: &str, [ours, plain]: [f64; 2]| {
            let measure = format!("{version} request over pipes, client and server: {unit}");
            table.ratio(&measure, number(ours), number(plain), ours / plain, None);
        };
        row("instructions", [ours, plain].map(|cost| cost.instructions.round()));
        row("allocations", [ours, plain].map(|cost| cost.allocations));
        rates(work, table, http2, version);
    }
}

/// Over TCP, to a server in a thread of its own.
fn rates(work: Work, table: &mut Table, http2: bool, version: &str) {
    let runtime = runtime();
    let pki = Pki::new(http2);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = pki.acceptor();
    std::thread::spawn(move || self::runtime().block_on(serve(listener, acceptor)));
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let uri: Uri = format!("https://{address}/whoami?a=b").parse().unwrap();
    let [mut ours, mut plain] =
        ["keydir", "plain"].map(|side| runtime.block_on(async { pki.end(side, tcp.clone(), uri.clone()) }));
    for end in [&mut ours, &mut plain] {
        runtime.block_on(send_all(end, WARM_UP));
    }
    let mut ratios = Vec::new();
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..work.of(ROUNDS) {
        let [ours, plain] = [&mut ours, &mut plain].map(|end| {
            let begun = Instant::now();
            runtime.block_on(send_all(end, IN_A_ROUND));
            IN_A_ROUND as f64 / begun.elapsed().as_secs_f64()
        });
        ratios.push(plain / ours);
        rates[0].push(ours);
        rates[1].push(plain);
    }
    let [ours, plain] = rates.map(|mut rates| median(&mut rates).round());
    let measure = format!("{version} requests a second over TCP, plain to ours");
    table.ratio(&measure, number(ours), number(plain), median(&mut ratios), Some(GOAL));
}

async fn serve(listener: std::net::TcpListener, acceptor: TlsAcceptor) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        tokio::spawn(answer(acceptor.clone(), tcp));
    }
}

pub(super) fn inside(arguments: &[&str]) {
    let [side, version, requests] = arguments else {
        panic!("side, version, requests");
    };
    let runtime = runtime();
    let pki = Pki::new(*version == "HTTP/2");
    let uri: Uri = format!("https://a.{DOMAIN}/whoami?a=b").parse().unwrap();
    let mut end = runtime.block_on(async { pki.end(side, Pipes(pki.acceptor()), uri) });
    runtime.block_on(send_all(&mut end, WARM_UP));
    counted(&runtime, send_all(&mut end, requests.parse().unwrap()));
}

async fn send_all(end: &mut End, count: usize) {
    for _ in 0..count {
        send(end).await;
    }
}

async fn send(end: &mut End) {
    let request = Request::get(end.uri.clone())
        .header("accept", "*/*")
        .body(Body::new())
        .unwrap();
    let response = (end.call)(request).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 2);
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

struct End {
    uri: Uri,
    call: Box<dyn FnMut(Request<Body>) -> Call>,
}

/// Who the two ends are.
struct Pki {
    http2: bool,
    server: ServerBuilder,
    client: ClientBuilder,
}

impl Pki {
    fn new(http2: bool) -> Self {
        let ca = Ca::new("the ca");
        let identity = |name: &str| {
            let leaf = ca.leaf(name);
            Identity::in_dir(&Dir::in_memory([("r1.crt", leaf.crt), ("r1.key", leaf.key)])).unwrap()
        };
        let anchors = TrustAnchors::in_dir(&Dir::in_memory([("c1.crt", ca.pem())])).unwrap();
        Self {
            http2,
            server: server_config(&identity("server")).require_client(&anchors),
            client: client_config(&anchors).identity(&identity("client")),
        }
    }

    fn alpn(&self) -> &'static str {
        if self.http2 { "h2" } else { "http/1.1" }
    }

    fn acceptor(&self) -> TlsAcceptor {
        let config = self.server.clone().alpn([self.alpn()]).build().unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    fn end<H: Transport>(&self, side: &str, transport: H, uri: Uri) -> End {
        let call: Box<dyn FnMut(Request<Body>) -> Call> = match side {
            "keydir" => {
                let client = Client::builder(self.client.clone());
                let client = if self.http2 {
                    client.http2_only()
                } else {
                    client.http1_only()
                };
                let client = client.build_over::<Body, _>(transport).unwrap();
                Box::new(move |request| {
                    let answer = client.request(request);
                    Box::pin(async move { answer.await.unwrap() })
                })
            }
            _ => {
                let mut config: ClientConfig = self.client.clone().build().unwrap();
                config.alpn_protocols = vec![self.alpn().as_bytes().to_vec()];
                let https = PlainHttps {
                    transport,
                    tls: TlsConnector::from(Arc::new(config)),
                };
                let client = Plain::builder(TokioExecutor::new())
                    .pool_timer(TokioTimer::new())
                    .build::<_, Body>(https);
                Box::new(move |request| {
                    let answer = client.request(request);
                    Box::pin(async move { answer.await.unwrap() })
                })
            }
        };
        End { uri, call }
    }
}

/// Connects to a server of its own for each connection.
#[derive(Clone)]
struct Pipes(TlsAcceptor);

impl Service<Uri> for Pipes {
    type Response = Pipe;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Pipe>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(answer(self.0.clone(), theirs));
        std::future::ready(Ok(Pipe(TokioIo::new(ours))))
    }
}

async fn answer<IO: AsyncRead + AsyncWrite + Send + Unpin + 'static>(acceptor: TlsAcceptor, io: IO) {
    let tls = acceptor.accept(io).await.unwrap();
    let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(|_: Request<Incoming>| async {
        Ok::<_, io::Error>(Response::new(Full::new(Bytes::from_static(b"ok"))))
    });
    let io = TokioIo::new(tls);
    // The client goes away in the end.
    let _ = match http2 {
        true => {
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            http.serve_connection(io, service).await
        }
        false => {
            hyper::server::conn::http1::Builder::new()
                .serve_connection(io, service)
                .await
        }
    };
}

struct Pipe(TokioIo<DuplexStream>);

/// As hyper-util's `HttpConnector` tells the addresses.
#[derive(Clone)]
struct Info(#[allow(dead_code, reason = "as large as what it stands for")] [std::net::SocketAddr; 2]);

impl Connection for Pipe {
    fn connected(&self) -> Connected {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 443));
        Connected::new().extra(Info([address; 2]))
    }
}

/// What hyper-rustls does.
#[derive(Clone)]
struct PlainHttps<H> {
    transport: H,
    tls: TlsConnector,
}

struct PlainStream<IO>(TokioIo<client::TlsStream<TokioIo<IO>>>);

impl<H: Transport> Service<Uri> for PlainHttps<H> {
    type Response = PlainStream<H::Response>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let name = ServerName::try_from(uri.host().unwrap().to_owned()).unwrap();
        let (io, tls) = (self.transport.call(uri), self.tls.clone());
        Box::pin(async move {
            let io = TokioIo::new(io.await.map_err(Into::into)?);
            Ok(PlainStream(TokioIo::new(tls.connect(name, io).await?)))
        })
    }
}

impl<IO: Connection + Read + Write + Unpin> Connection for PlainStream<IO> {
    fn connected(&self) -> Connected {
        let connected = self.0.inner().get_ref().0.inner().connected();
        match self.0.inner().get_ref().1.alpn_protocol() {
            Some(b"h2") => connected.negotiated_h2(),
            _ => connected,
        }
    }
}

macro_rules! through {
    ([$($generics:tt)*] $stream:ty) => {
        impl $($generics)* Read for $stream {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: ReadBufCursor<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.get_mut().0).poll_read(cx, buffer)
            }
        }

        impl $($generics)* Write for $stream {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.get_mut().0).poll_write(cx, bytes)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                slices: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.get_mut().0).poll_write_vectored(cx, slices)
            }

            fn is_write_vectored(&self) -> bool {
                self.0.is_write_vectored()
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.get_mut().0).poll_flush(cx)
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
            }
        }
    };
}

through!([] Pipe);
through!([<IO: Read + Write + Unpin>] PlainStream<IO>);
