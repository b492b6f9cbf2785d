//! hyper's server over rustls, which writes down what carried each request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use keydir_rustls::rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;
use tower::util::BoxCloneService;

use crate::load::FLOOR;
use crate::pki::revision;

pub(crate) type Service = BoxCloneService<Request<Incoming>, Response<Full<Bytes>>, Infallible>;

#[derive(Default)]
pub(crate) struct Seen {
    /// That say what was removed when they began.
    pub(crate) requests: AtomicUsize,
    /// Of these, those that something removed has carried.
    pub(crate) on_removed: AtomicUsize,
    pub(crate) connections: AtomicUsize,
}

/// What a request came on.
pub(crate) struct On {
    /// The revision of the server's own leaf.
    pub(crate) own: u64,
    /// That of the client's, if it has shown one.
    pub(crate) client: Option<u64>,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    config: Arc<Mutex<(u64, Arc<ServerConfig>)>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Which revision has carried a request.
type CarriedBy = fn(&Request<Incoming>, &On) -> u64;

struct Shared {
    seen: Arc<Seen>,
    carried_by: CarriedBy,
    service: Mutex<Service>,
}

impl Server {
    pub(crate) async fn start(config: ServerConfig, alpn: &str, carried_by: CarriedBy, service: Service) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let seen = Arc::<Seen>::default();
        let config = Arc::new(Mutex::new((1, offering(config, alpn))));
        let shared = Arc::new(Shared {
            seen: Arc::clone(&seen),
            carried_by,
            service: Mutex::new(service),
        });
        Self {
            address: listener.local_addr().unwrap(),
            seen,
            task: tokio::spawn(accept(listener, Arc::clone(&config), shared)),
            config,
        }
    }

    /// From the next connection on.
    pub(crate) fn serve_as(&self, revision: u64, config: ServerConfig, alpn: &str) {
        *self.config.lock().unwrap() = (revision, offering(config, alpn));
    }
}

fn offering(mut config: ServerConfig, alpn: &str) -> Arc<ServerConfig> {
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    Arc::new(config)
}

async fn accept(listener: TcpListener, config: Arc<Mutex<(u64, Arc<ServerConfig>)>>, shared: Arc<Shared>) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let (own, config) = config.lock().unwrap().clone();
        tokio::spawn(connection(tcp, own, config, Arc::clone(&shared)));
    }
}

async fn connection(tcp: TcpStream, own: u64, config: Arc<ServerConfig>, shared: Arc<Shared>) {
    let Ok(tls) = TlsAcceptor::from(config).accept(tcp).await else {
        return;
    };
    shared.seen.connections.fetch_add(1, SeqCst);
    let (_, session) = tls.get_ref();
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let client = session.peer_certificates().map(|chain| revision(&chain[0]));
    let on = On { own, client };
    let inner = shared.service.lock().unwrap().clone();
    let service = service_fn(move |request| {
        note(&shared, &request, &on);
        inner.clone().oneshot(request)
    });
    let io = TokioIo::new(tls);
    // Clients go away without a word.
    let _ = match is_http2 {
        true => {
            let http = http2::Builder::new(TokioExecutor::new());
            http.serve_connection(io, service).await
        }
        false => http1::Builder::new().serve_connection(io, service).await,
    };
}

fn note(shared: &Shared, request: &Request<Incoming>, on: &On) {
    let Some(floor) = request.headers().get(FLOOR) else {
        return;
    };
    shared.seen.requests.fetch_add(1, SeqCst);
    let floor: u64 = floor.to_str().unwrap().parse().unwrap();
    if (shared.carried_by)(request, on) < floor {
        shared.seen.on_removed.fetch_add(1, SeqCst);
    }
}

/// Answers everything, and counts it.
pub(crate) fn answering(served: &Arc<AtomicUsize>) -> Service {
    let served = Arc::clone(served);
    BoxCloneService::new(tower::service_fn(move |_| {
        served.fetch_add(1, SeqCst);
        async { Ok(Response::new(Full::from("ok"))) }
    }))
}
