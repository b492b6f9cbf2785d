//! A CA, directories in memory, and a server that is none of ours: it writes down which identity carried each request.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use keydir::Dir;
use keydir_rustls::rustls::pki_types::CertificateDer;
use keydir_rustls::rustls::server::WebPkiClientVerifier;
use keydir_rustls::rustls::{RootCertStore, ServerConfig};
use keydir_rustls::{Identity, TrustAnchors};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) der: CertificateDer<'static>,
    pub(crate) pem: String,
}

#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) crt: String,
    pub(crate) key: String,
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            der: certificate.der().clone(),
            pem: certificate.pem(),
        }
    }

    /// A leaf whose common name is the revision that it is for.
    pub(crate) fn leaf(&self, revision: &str) -> Leaf {
        self.leaf_with(revision, |_| {})
    }

    pub(crate) fn leaf_with(&self, revision: &str, adjust: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, revision);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        adjust(&mut params);
        let key = KeyPair::generate().unwrap();
        Leaf {
            crt: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    pub(crate) fn anchors(&self) -> (Dir, TrustAnchors) {
        let dir = Dir::in_memory([("c1.crt", self.pem.clone())]);
        let anchors = TrustAnchors::in_dir(&dir).unwrap();
        (dir, anchors)
    }
}

/// The files of identities, the primary first.
pub(crate) fn files(primary: (&str, &Leaf), others: &[(&str, &Leaf)]) -> Vec<(String, String)> {
    let mut files = vec![(format!("{}.crt.primary", primary.0), primary.1.crt.clone())];
    files.extend(others.iter().map(|(id, leaf)| (format!("{id}.crt"), leaf.crt.clone())));
    let keys = others.iter().chain([&primary]);
    files.extend(keys.map(|(id, leaf)| (format!("{id}.key"), leaf.key.clone())));
    files
}

pub(crate) fn identity(revision: &str, leaf: &Leaf) -> (Dir, Identity) {
    let dir = Dir::in_memory(files((revision, leaf), &[]));
    let identity = Identity::in_dir(&dir).unwrap();
    (dir, identity)
}

/// What the server has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) requests: AtomicUsize,
    pub(crate) connections: AtomicUsize,
    pub(crate) handshakes: AtomicUsize,
    pub(crate) by_identity: Mutex<BTreeMap<String, usize>>,
    /// Requests that say (`x-floor`) that all before a revision were removed when they began, on one that was.
    pub(crate) violations: AtomicUsize,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `r17` is 17.
pub(crate) fn number(revision: &str) -> u64 {
    revision.trim_start_matches('r').parse().unwrap()
}

impl Server {
    /// Serves over plain rustls; `alpn` says which HTTP. What stands in `leaf` is its own, `clients` whom it trusts.
    pub(crate) async fn start(leaf: &Leaf, clients: &Ca, alpn: &[&str]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(clients.der.clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let own = Dir::in_memory(files(("s1", leaf), &[]));
        let own = Identity::in_dir(&own).unwrap().primary().unwrap();
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(keydir_rustls::rustls::sign::SingleCertAndKey::from(
                keydir_rustls::rustls::sign::CertifiedKey::clone(own.certified()),
            )));
        config.alpn_protocols = alpn.iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Seen>::default();
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tcp.set_nodelay(true).unwrap();
                tokio::spawn(connection(acceptor.clone(), tcp, Arc::clone(&noted)));
            }
        });
        Self { address, seen, task }
    }

    pub(crate) fn uri(&self, path: &str) -> http::Uri {
        format!("https://localhost:{}{path}", self.address.port())
            .parse()
            .unwrap()
    }
}

async fn connection(acceptor: TlsAcceptor, tcp: tokio::net::TcpStream, seen: Arc<Seen>) {
    seen.connections.fetch_add(1, Ordering::SeqCst);
    let Ok(tls) = acceptor.accept(tcp).await else { return };
    seen.handshakes.fetch_add(1, Ordering::SeqCst);
    let (_, session) = tls.get_ref();
    let h2 = session.alpn_protocol() == Some(b"h2");
    let leaf = session.peer_certificates().unwrap()[0].clone();
    let revision = common_name(&leaf);
    let service = service_fn(move |request| answer(request, revision.clone(), Arc::clone(&seen)));
    let io = TokioIo::new(tls);
    // Clients go away without a word.
    let _ = match h2 {
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

async fn answer(
    request: Request<Incoming>,
    revision: String,
    seen: Arc<Seen>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if let Some(floor) = request.headers().get("x-floor") {
        let floor: u64 = floor.to_str().unwrap().parse().unwrap();
        if number(&revision) < floor {
            seen.violations.fetch_add(1, Ordering::SeqCst);
        }
    }
    seen.requests.fetch_add(1, Ordering::SeqCst);
    *seen.by_identity.lock().unwrap().entry(revision.clone()).or_default() += 1;
    let mut response = Response::new(Full::new(Bytes::from(revision)));
    *response.status_mut() = StatusCode::OK;
    Ok(response)
}

/// The common name is the last string of the subject, and the leaf's name is short.
fn common_name(der: &CertificateDer<'_>) -> String {
    // 06 03 55 04 03 0c <length> <text>: the second one is the subject's.
    let marker = [0x06, 0x03, 0x55, 0x04, 0x03, 0x0c];
    let at = der
        .windows(marker.len())
        .enumerate()
        .filter(|(_, window)| *window == marker);
    let (at, _) = at.last().unwrap();
    let length = usize::from(der[at + marker.len()]);
    let text = &der[at + marker.len() + 1..][..length];
    String::from_utf8(text.to_vec()).unwrap()
}
