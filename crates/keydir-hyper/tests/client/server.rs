//! A server that is none of ours: it writes down which identity carried each request.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use keydir::Dir;
use keydir_rustls::Identity;
use keydir_rustls::rustls::crypto::aws_lc_rs::default_provider;
use keydir_rustls::rustls::pki_types::CertificateDer;
use keydir_rustls::rustls::server::WebPkiClientVerifier;
use keydir_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use keydir_rustls::rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use crate::pki::{Ca, Leaf, files};
use crate::support::{Payload, Piecewise};

/// What the server has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) requests: AtomicUsize,
    pub(crate) connections: AtomicUsize,
    pub(crate) handshakes: AtomicUsize,
    pub(crate) open: AtomicUsize,
    pub(crate) by_identity: Mutex<BTreeMap<String, usize>>,
    /// The bytes of requests' bodies.
    pub(crate) taken: AtomicUsize,
}

impl Seen {
    pub(crate) fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::SeqCst)
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub(crate) fn carried(&self, revision: &str) -> usize {
        self.by_identity
            .lock()
            .unwrap()
            .get(revision)
            .copied()
            .unwrap_or_default()
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    config: Mutex<Arc<ServerConfig>>,
    clients: CertificateDer<'static>,
    seen: Arc<Seen>,
    /// What answers wait for that say so.
    go: Semaphore,
    /// Connections live until it changes.
    lives: watch::Sender<()>,
    /// Connections that come while it is true read nothing, from the first time on that something was written.
    holds: watch::Sender<bool>,
    from_the_beginning: AtomicBool,
    /// Each connection is drained a moment after it has answered so many requests.
    drains: AtomicUsize,
    /// Each connection answers so many requests.
    answers: AtomicUsize,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
        self.close_connections();
    }
}

impl Server {
    /// Serves over plain rustls; `alpn` says which HTTP. What stands in `leaf` is its own, `clients` whom it trusts.
    pub(crate) async fn start(leaf: &Leaf, clients: &Ca, alpn: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), leaf, clients, alpn)
            .await
            .unwrap()
    }

    pub(crate) async fn start_at(at: SocketAddr, leaf: &Leaf, clients: &Ca, alpn: &[&str]) -> io::Result<Self> {
        let listener = TcpListener::bind(at).await?;
        let seen = Arc::<Seen>::default();
        let shared = Arc::new(Shared {
            config: Mutex::new(config(leaf, &clients.der(), alpn, &[&version::TLS13, &version::TLS12])),
            clients: clients.der(),
            seen: Arc::clone(&seen),
            go: Semaphore::new(0),
            lives: watch::Sender::new(()),
            holds: watch::Sender::new(false),
            from_the_beginning: AtomicBool::new(false),
            drains: AtomicUsize::new(usize::MAX),
            answers: AtomicUsize::new(usize::MAX),
        });
        Ok(Self {
            address: listener.local_addr()?,
            seen,
            accepting: tokio::spawn(accept(listener, Arc::clone(&shared))),
            shared,
        })
    }

    pub(crate) fn uri(&self, path: &str) -> http::Uri {
        format!("https://localhost:{}{path}", self.address.port())
            .parse()
            .unwrap()
    }

    /// From the next connection on.
    pub(crate) fn serve_as(&self, leaf: &Leaf, alpn: &[&str], versions: &[&'static SupportedProtocolVersion]) {
        *self.shared.config.lock().unwrap() = config(leaf, &self.shared.clients, alpn, versions);
    }

    /// One answer that waits goes on.
    pub(crate) fn go(&self) {
        self.shared.go.add_permits(1);
    }

    pub(crate) fn close_connections(&self) {
        self.shared.lives.send_replace(());
    }

    /// Handshakes get no further: from the beginning, or from the server's first flight on.
    pub(crate) fn hold(&self, from_the_beginning: bool) {
        self.shared
            .from_the_beginning
            .store(from_the_beginning, Ordering::SeqCst);
        self.shared.holds.send_replace(true);
    }

    pub(crate) fn release(&self) {
        self.shared.holds.send_replace(false);
    }

    /// Each connection is drained a moment after it has answered so many requests.
    pub(crate) fn drain_after(&self, requests: usize) {
        self.shared.drains.store(requests, Ordering::SeqCst);
    }

    /// Each connection breaks at the request after.
    pub(crate) fn answer_only(&self, requests: usize) {
        self.shared.answers.store(requests, Ordering::SeqCst);
    }

    /// Nobody can connect; who is connected stays so.
    pub(crate) async fn stop_accepting(&mut self) {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
    }

    pub(crate) async fn accept_again(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.accepting = tokio::spawn(accept(listener, Arc::clone(&self.shared)));
    }
}

pub(crate) fn config(
    leaf: &Leaf,
    clients: &CertificateDer<'static>,
    alpn: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ServerConfig> {
    let provider = Arc::new(default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(clients.clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let own = Dir::in_memory(files(("s1", leaf), &[]));
    let own = Identity::in_dir(&own).unwrap().primary().unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::clone(own.certified()))));
    config.alpn_protocols = alpn.iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
    Arc::new(config)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let shared = Arc::clone(&shared);
        let mut lives = shared.lives.subscribe();
        tokio::spawn(async move {
            shared.seen.open.fetch_add(1, Ordering::SeqCst);
            tokio::select! {
                () = connection(tcp, &shared) => {}
                _ = lives.changed() => {}
            }
            shared.seen.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn connection(tcp: TcpStream, shared: &Arc<Shared>) {
    let seen = &shared.seen;
    seen.connections.fetch_add(1, Ordering::SeqCst);
    let config = Arc::clone(&shared.config.lock().unwrap());
    let mut holds = shared.holds.subscribe();
    let held = *holds.borrow();
    let released = async move {
        let _ = holds.wait_for(|holds| !holds).await;
    };
    let io = Held {
        io: tcp,
        wrote: shared.from_the_beginning.load(Ordering::SeqCst),
        released: held.then(|| Box::pin(released) as Pin<Box<_>>),
    };
    let Ok(tls) = TlsAcceptor::from(config).accept(io).await else {
        return;
    };
    seen.handshakes.fetch_add(1, Ordering::SeqCst);
    let (_, session) = tls.get_ref();
    let h2 = session.alpn_protocol() == Some(b"h2");
    let revision = common_name(&session.peer_certificates().unwrap()[0]);
    let (answered, drains) = (AtomicUsize::new(0), Arc::new(Notify::new()));
    let drain = Arc::clone(&drains);
    let service = service_fn(|request| {
        let before = answered.fetch_add(1, Ordering::SeqCst);
        let answer = answer(request, revision.clone(), Arc::clone(shared));
        let (shared, drain) = (Arc::clone(shared), Arc::clone(&drain));
        async move {
            if before >= shared.answers.load(Ordering::SeqCst) {
                return Err("enough");
            }
            let answer = answer.await;
            if before + 1 == shared.drains.load(Ordering::SeqCst) {
                drain.notify_one();
            }
            answer
        }
    });
    let drained = async {
        drains.notified().await;
        // The next request is on its way then, or nearly so.
        sleep(Duration::from_micros(seen.requests().try_into().unwrap_or(0) % 7 * 200)).await;
    };
    let io = TokioIo::new(tls);
    // Clients go away without a word.
    match h2 {
        true => {
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let mut connection = std::pin::pin!(http.serve_connection(io, service));
            tokio::select! {
                _ = connection.as_mut() => return,
                () = drained => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        }
        false => {
            let http = hyper::server::conn::http1::Builder::new();
            let mut connection = std::pin::pin!(http.serve_connection(io, service));
            tokio::select! {
                _ = connection.as_mut() => return,
                () = drained => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    revision: String,
    shared: Arc<Shared>,
) -> Result<Response<Payload>, &'static str> {
    let seen = &shared.seen;
    seen.requests.fetch_add(1, Ordering::SeqCst);
    *seen.by_identity.lock().unwrap().entry(revision.clone()).or_default() += 1;
    let path = request.uri().path().to_owned();
    if request.method() != Method::GET {
        let mut body = request.into_body();
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.into_data().unwrap();
            seen.taken.fetch_add(bytes.len(), Ordering::SeqCst);
        }
    }
    let body = match path.as_str() {
        "/die" => return Err("as you wish"),
        "/piecewise" => {
            let (send, receive) = mpsc::channel(1);
            send.send(Bytes::from_static(b"first, ")).await.unwrap();
            tokio::spawn(async move {
                shared.go.acquire().await.unwrap().forget();
                let _ = send.send(Bytes::from_static(b"rest")).await;
            });
            Payload::Piecewise(Piecewise(receive))
        }
        "/wait" => {
            shared.go.acquire().await.unwrap().forget();
            Payload::from(revision.as_str())
        }
        _ => Payload::from(revision.as_str()),
    };
    Ok(Response::new(body))
}

/// Reads nothing until it is released, but for what it reads before it has written.
struct Held {
    io: TcpStream,
    wrote: bool,
    released: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.wrote
            && let Some(released) = &mut self.released
        {
            std::task::ready!(released.as_mut().poll(context));
            self.released = None;
        }
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Held {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.wrote = true;
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// The common name is the last string of the subject, and the leaf's name is short.
fn common_name(der: &CertificateDer<'_>) -> String {
    // 06 03 55 04 03 0c <length> <text>: the second one is the subject's.
    let marker = [0x06, 0x03, 0x55, 0x04, 0x03, 0x0c];
    let windows = der.windows(marker.len());
    let at = windows.enumerate().filter(|(_, window)| *window == marker);
    let (at, _) = at.max_by_key(|(at, _)| *at).unwrap();
    let length = usize::from(der[at + marker.len()]);
    let text = &der[at + marker.len() + 1..][..length];
    String::from_utf8(text.to_vec()).unwrap()
}
