//! CAs, leaves, directories, a server on loopback, and what it has seen.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use keydir::Dir;
use keydir_hyper::Server;
use keydir_rustls::rustls::ClientConfig;
use keydir_rustls::{Acceptor, Connection, Identity, TrustAnchors, client_config, server_config};
use tokio::net::TcpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tower::util::{BoxCloneService, service_fn};

use crate::ca::{Ca, Leaf};

pub(crate) const NAME: &str = "localhost";
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// The files of revisions, the last of which is the primary.
pub(crate) fn revisions(leaves: &[(&str, &Leaf)]) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for (n, (id, leaf)) in leaves.iter().enumerate() {
        let mark = if n + 1 == leaves.len() { ".primary" } else { "" };
        files.push((format!("{id}.crt{mark}"), leaf.crt.clone()));
        files.push((format!("{id}.key"), leaf.key.clone()));
    }
    files
}

fn anchors(cas: &[(&str, &Ca)]) -> Vec<(String, String)> {
    cas.iter()
        .map(|(id, ca)| (format!("{id}.crt"), ca.pem.clone()))
        .collect()
}

/// What a server needs, and its clients: it trusts those of two CAs.
pub(crate) struct Scene {
    pub(crate) servers: Ca,
    pub(crate) c1: Ca,
    pub(crate) c2: Ca,
    pub(crate) own: Dir,
    pub(crate) cas: Dir,
    identity: Identity,
    clients: TrustAnchors,
    trusted: TrustAnchors,
    pub(crate) leaves: [Leaf; 2],
}

impl Scene {
    pub(crate) fn new() -> Self {
        let (servers, c1, c2) = (Ca::new("servers"), Ca::new("clients 1"), Ca::new("clients 2"));
        let leaves = [servers.issue(NAME, |_| {}), servers.issue(NAME, |_| {})];
        let own = Dir::in_memory(revisions(&[("r1", &leaves[0])]));
        let cas = Dir::in_memory(anchors(&[("c1", &c1), ("c2", &c2)]));
        Self {
            identity: Identity::in_dir(&own).unwrap(),
            clients: TrustAnchors::in_dir(&cas).unwrap(),
            trusted: TrustAnchors::in_dir(&Dir::in_memory(anchors(&[("s1", &servers)]))).unwrap(),
            leaves,
            servers,
            c1,
            c2,
            own,
            cas,
        }
    }

    pub(crate) fn acceptor(&self, grace: Duration) -> Acceptor {
        self.acceptor_of(&["h2", "http/1.1"], grace)
    }

    pub(crate) fn acceptor_of(&self, alpn: &[&str], grace: Duration) -> Acceptor {
        let builder = server_config(&self.identity).require_client(&self.clients);
        let acceptor = builder.alpn(alpn.iter().copied()).acceptor().unwrap();
        acceptor.with_grace(grace)
    }

    /// A client with a leaf of one of the CAs, which offers these protocols.
    pub(crate) fn client(&self, ca: &Ca, alpn: &[&str]) -> Arc<ClientConfig> {
        let dir = Dir::in_memory(revisions(&[("r1", &ca.issue("client", |_| {}))]));
        let identity = Identity::in_dir(&dir).unwrap();
        let mut config = client_config(&self.trusted).identity(&identity).build().unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// From now on only clients of the second CA are trusted.
    pub(crate) fn remove_c1(&self) {
        self.cas.publish(anchors(&[("c2", &self.c2)])).unwrap();
    }

    /// The server presents r2 from now on, and r1 stands.
    pub(crate) fn promote(&self) {
        let [r1, r2] = &self.leaves;
        self.own.publish(revisions(&[("r1", r1), ("r2", r2)])).unwrap();
    }

    /// How many connections, handshakes included, present a revision.
    pub(crate) fn uses(&self, revision: &str) -> usize {
        let sets = self.own.report().sets;
        let set = sets.iter().find(|set| set.usage == "tls-identity").unwrap();
        set.uses(revision)
    }

    /// r1 is revoked.
    pub(crate) fn retire(&self) {
        self.own.publish(revisions(&[("r2", &self.leaves[1])])).unwrap();
    }
}

/// What a service has been asked.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) requests: AtomicUsize,
}

impl Seen {
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

pub(crate) type Service = BoxCloneService<Request<Incoming>, Response<Full<Bytes>>, Infallible>;

/// Answers with the revision that its connection was shown, and with the client's CA.
pub(crate) fn about(seen: &Arc<Seen>) -> Service {
    let seen = Arc::clone(seen);
    answering(move |request| {
        seen.requests.fetch_add(1, Ordering::SeqCst);
        let connection = request.extensions().get::<Connection>().unwrap();
        let text = describe(connection);
        async { Response::new(Full::from(text)) }
    })
}

pub(crate) fn describe(connection: &Connection) -> String {
    let revision = connection.identity().unwrap().id();
    let ca = connection.peer().and_then(|peer| peer.ca()).unwrap();
    format!("{revision} {ca}")
}

pub(crate) fn answering<F>(answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static) -> Service
where
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    BoxCloneService::new(service_fn(move |request| {
        let answer = answer(request);
        async { Ok(answer.await) }
    }))
}

/// A service that answers each request when it is told to.
#[derive(Clone)]
pub(crate) struct Held {
    started: Arc<Semaphore>,
    go: Arc<Semaphore>,
}

impl Held {
    pub(crate) fn new() -> Self {
        let none = || Arc::new(Semaphore::new(0));
        Self {
            started: none(),
            go: none(),
        }
    }

    pub(crate) fn service(&self) -> Service {
        let this = self.clone();
        answering(move |_| {
            this.started.add_permits(1);
            let go = Arc::clone(&this.go);
            async move {
                go.acquire().await.unwrap().forget();
                Response::new(Full::from("done"))
            }
        })
    }

    /// Waits until so many more requests wait for their answer.
    pub(crate) async fn started(&self, requests: u32) {
        soon(self.started.acquire_many(requests)).await.unwrap().forget();
    }

    /// Answers so many.
    pub(crate) fn go(&self, requests: usize) {
        self.go.add_permits(requests);
    }
}

/// A server that runs.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) acceptor: Acceptor,
    pub(crate) task: JoinHandle<()>,
}

pub(crate) async fn start(acceptor: &Acceptor, service: Service, options: impl FnOnce(Server) -> Server) -> Running {
    // Of what overflows the backlog a client that says nothing never hears.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(2048).unwrap();
    Running {
        address: listener.local_addr().unwrap(),
        acceptor: acceptor.clone(),
        task: tokio::spawn(options(Server::new(acceptor.clone())).serve(listener, service)),
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("in time")
}
