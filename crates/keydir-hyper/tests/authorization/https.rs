//! A server of hyper's over TLS that looks at one header.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use keydir::Dir;
use keydir_hyper::Client;
use keydir_rustls::{Identity, TrustAnchors, client_config, server_config};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::ca::Ca;

/// Says of a credential what the answer is.
type Judge = dyn Fn(&str) -> Response<Full<Bytes>> + Send + Sync;

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) connections: AtomicUsize,
    pub(crate) requests: Mutex<Vec<Got>>,
}

/// A request as it came.
pub(crate) struct Got {
    pub(crate) credential: String,
    pub(crate) body: Bytes,
    pub(crate) at: Instant,
}

pub(crate) struct Https {
    address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    anchors: TrustAnchors,
    task: JoinHandle<()>,
}

impl Drop for Https {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Https {
    pub(crate) async fn start(
        alpn: &str,
        judge: impl Fn(&str) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        let ca = Ca::new("servers");
        let leaf = ca.issue("localhost", |_| {});
        let identity = Dir::in_memory([("s1.crt.primary", leaf.crt), ("s1.key", leaf.key)]);
        let identity = Identity::in_dir(&identity).unwrap();
        let config = server_config(&identity).no_client().alpn([alpn]).build().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Seen>::default();
        let (noted, judge, h2) = (
            Arc::clone(&seen),
            Arc::<Judge>::from(Box::new(judge) as Box<Judge>),
            alpn == "h2",
        );
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tcp.set_nodelay(true).unwrap();
                let (acceptor, seen, judge) = (acceptor.clone(), Arc::clone(&noted), Arc::clone(&judge));
                tokio::spawn(async move {
                    seen.connections.fetch_add(1, Ordering::SeqCst);
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let service = service_fn(|request| answer(request, Arc::clone(&seen), Arc::clone(&judge)));
                    // Clients go away without a word.
                    let _ = match h2 {
                        true => {
                            let http = http2::Builder::new(TokioExecutor::new());
                            http.serve_connection(TokioIo::new(tls), service).await
                        }
                        false => http1::Builder::new().serve_connection(TokioIo::new(tls), service).await,
                    };
                });
            }
        });
        Self {
            address,
            seen,
            anchors: TrustAnchors::in_dir(&Dir::in_memory([("c1.crt", ca.pem)])).unwrap(),
            task,
        }
    }

    pub(crate) fn uri(&self) -> Uri {
        format!("https://{}/", self.origin()).parse().unwrap()
    }

    pub(crate) fn origin(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    pub(crate) fn client(&self) -> Client<Full<Bytes>> {
        Client::builder(client_config(&self.anchors)).build().unwrap()
    }

    pub(crate) fn credentials(&self) -> Vec<String> {
        let requests = self.seen.requests.lock().unwrap();
        requests.iter().map(|got| got.credential.clone()).collect()
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Seen>,
    judge: Arc<Judge>,
) -> Result<Response<Full<Bytes>>, Closes> {
    let at = Instant::now();
    let (parts, body) = request.into_parts();
    let credential = parts.headers.get(AUTHORIZATION);
    let got = Got {
        credential: credential.map_or("", |value| value.to_str().unwrap()).to_owned(),
        body: body.collect().await.unwrap().to_bytes(),
        at,
    };
    let answer = judge(&got.credential);
    seen.requests.lock().unwrap().push(got);
    answer.extensions().get::<Closes>().cloned().map_or(Ok(answer), Err)
}

#[derive(Clone, Debug, PartialEq)]
struct Closes;

impl std::fmt::Display for Closes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the server closes")
    }
}

impl std::error::Error for Closes {}

/// No answer: the server closes the connection.
pub(crate) fn closes() -> Response<Full<Bytes>> {
    let mut response = Response::default();
    response.extensions_mut().insert(Closes);
    response
}
