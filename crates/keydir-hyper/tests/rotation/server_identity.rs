//! The server's identity. The clients are plain ones, which say whose certificate each request came to, and beside them
//! ours, which tries again what a drain has refused.

use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::client::legacy::Client as Plain;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use keydir::Dir;
use keydir_hyper::{Client, Server};
use keydir_rustls::rustls::client::Resumption;
use keydir_rustls::{Acceptor, Connection, Identity, ServerBuilder, client_config, server_config};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tower::{Service, ServiceBuilder};

use crate::load::{Counts, Load, rotations, rotations_of_a_control, until};
use crate::pki::{Ca, Leaf, plain_client, revision};
use crate::plain_client::{Body, ServerRevision, ToServer, get, send};
use crate::plain_server::{self, answering};

const IDLE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// `keydir_hyper::Server`.
    Ours,
    /// The same config, whose resolver follows, behind a plain server.
    PlainServer,
    /// hyper's graceful shutdown of each connection as soon as there is a new certificate.
    AtOnce,
}

struct Outcome {
    counts: Counts,
    /// Connections that were asked to go.
    drains: usize,
    /// Requests that the server has answered, and the client knows of no answer.
    answered_in_vain: usize,
}

/// The client is told the CA that it can trust, and where the server is.
async fn rotate<C>(
    alpn: &str,
    rotations: u64,
    way: Way,
    pause: Duration,
    make: impl FnOnce(&Ca, SocketAddr) -> C,
) -> Outcome
where
    C: Service<Request<Body>, Response = Response<Incoming>, Error: fmt::Debug> + Clone + Send + Sync + 'static,
    C::Future: Send,
{
    let ca = Ca::new("the ca");
    let mut leaf = ca.leaf(1);
    let dir = Dir::in_memory(Leaf::files(&[(1, &leaf)]));
    let answered = Arc::default();
    let tls = server_config(&Identity::in_dir(&dir).unwrap()).no_client();
    let (address, _plain) = start(tls, alpn, way, pause, &answered).await;
    let client = make(&ca, address);
    let load = Load::start(move |floor| {
        let client = client.clone();
        async move { send(client, get(address, floor)).await.map(|answer| shown_by(&answer)) }
    });
    load.step().await;
    let mut drains = 0;
    let uses = |n: u64| {
        dir.report()
            .sets
            .iter()
            .map(|set| set.uses(&format!("r{n}")))
            .sum::<usize>()
    };
    for n in 1..=rotations {
        let next = ca.leaf(n + 1);
        dir.publish(Leaf::files(&[(n, &leaf), (n + 1, &next)])).unwrap();
        load.step().await;
        drains += uses(n);
        dir.publish(Leaf::files(&[(n + 1, &next), (n, &leaf)])).unwrap();
        load.step().await;
        if way != Way::PlainServer {
            // What the report is for.
            until("no connection rests on it", || uses(n) == 0).await;
        }
        dir.publish(Leaf::files(&[(n + 1, &next)])).unwrap();
        load.removed_before(n + 1);
        load.step().await;
        leaf = next;
    }
    let counts = load.end().await;
    Outcome {
        answered_in_vain: answered.load(SeqCst) - counts.ok,
        counts,
        drains,
    }
}

/// The revision of the certificate that the server has shown; none if the session was resumed.
fn shown_by(answer: &Response<()>) -> Option<u64> {
    let extensions = answer.extensions();
    match extensions.get::<Connection>() {
        Some(connection) if connection.is_resumed() => None,
        Some(connection) => Some(revision(&connection.peer().unwrap().certificates()[0])),
        None => extensions.get().map(|ServerRevision(revision)| *revision),
    }
}

async fn start(
    tls: ServerBuilder,
    alpn: &str,
    way: Way,
    pause: Duration,
    answered: &Arc<AtomicUsize>,
) -> (SocketAddr, Option<plain_server::Server>) {
    let service = pausing(answering(answered), pause);
    if way == Way::PlainServer {
        let server = plain_server::Server::start(tls.build().unwrap(), alpn, |_, _| u64::MAX, service).await;
        return (server.address, Some(server));
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tls.alpn([alpn]).acceptor().unwrap();
    match way {
        Way::Ours => {
            let server = Server::new(acceptor).renew_within(Duration::from_millis(50));
            tokio::spawn(server.serve(listener, service));
        }
        _ => drop(tokio::spawn(shut_down_at_once(
            listener,
            acceptor,
            service,
            alpn == "h2",
        ))),
    }
    (address, None)
}

fn pausing(service: plain_server::Service, pause: Duration) -> plain_server::Service {
    if pause.is_zero() {
        return service;
    }
    let paused = ServiceBuilder::new().map_future(move |answer| async move {
        sleep(pause).await;
        answer.await
    });
    plain_server::Service::new(paused.service(service))
}

async fn shut_down_at_once(listener: TcpListener, acceptor: Acceptor, service: plain_server::Service, is_http2: bool) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(service.clone()));
        tokio::spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else { return };
            let superseded = tls.connection().identity().unwrap().superseded();
            let io = TokioIo::new(tls);
            if is_http2 {
                let http = http2::Builder::new(TokioExecutor::new());
                let mut http = pin!(http.serve_connection(io, service));
                tokio::select! {
                    _ = http.as_mut() => return,
                    () = superseded => http.as_mut().graceful_shutdown(),
                }
                let _ = http.await;
            } else {
                let mut http = pin!(http1::Builder::new().serve_connection(io, service));
                tokio::select! {
                    _ = http.as_mut() => return,
                    () = superseded => http.as_mut().graceful_shutdown(),
                }
                let _ = http.await;
            }
        });
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { counts, drains, .. } = self;
        let on_removed = counts.on_removed;
        write!(f, "{counts} in {drains} drains, {on_removed} on what was removed")?;
        if self.answered_in_vain > 0 {
            write!(f, ", {} answered to nobody", self.answered_in_vain)?;
        }
        if !counts.errors.is_empty() {
            write!(f, "; {:?}", counts.errors)?;
        }
        Ok(())
    }
}

async fn prove(alpn: &str, pause: Duration) {
    // What is idle asks for nothing, and so moves only if it goes.
    let pool = || {
        let mut pool = Plain::builder(TokioExecutor::new());
        pool.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE);
        pool
    };
    let plain = |ca: &Ca, address, tries_again| {
        let mut config = plain_client(ca, None, alpn);
        // A server that resumes a session shows no certificate, and the client has the one of the first handshake.
        config.resumption = Resumption::disabled();
        pool()
            .retry_canceled_requests(tries_again)
            .http2_only(alpn == "h2")
            .build(ToServer::new(&Arc::new(config), address))
    };
    let never = |ca: &Ca, address| plain(ca, address, false);

    let outcome = rotate(alpn, rotations(), Way::Ours, pause, never).await;
    println!(
        "the server's identity, {alpn}, answers after {pause:?}, {} rotations, a plain client: {outcome}",
        rotations()
    );
    assert_eq!(outcome.counts.on_removed, 0);
    if alpn == "http/1.1" {
        assert_eq!((outcome.counts.failed, outcome.answered_in_vain), (0, 0), "{outcome}");
    }

    let outcome = rotate(alpn, rotations(), Way::Ours, pause, |ca, address| {
        plain(ca, address, true)
    })
    .await;
    println!("- a plain client that tries again what it had not sent: {outcome}");

    let outcome = rotate(alpn, rotations(), Way::Ours, pause, |ca, _| {
        let client = Client::builder(client_config(&ca.anchors())).pool(pool());
        let client = match alpn {
            "h2" => client.http2_only(),
            _ => client.http1_only(),
        };
        client.build::<Body>().unwrap()
    })
    .await;
    println!("- keydir_hyper::Client: {outcome}");
    assert_eq!((outcome.counts.failed, outcome.counts.on_removed), (0, 0), "{outcome}");

    let few = rotations_of_a_control();
    let outcome = rotate(alpn, few, Way::PlainServer, pause, never).await;
    println!("- a plain server with a resolver that follows: {outcome}");
    assert!(outcome.counts.on_removed > 0);

    let outcome = rotate(alpn, rotations(), Way::AtOnce, pause, never).await;
    println!("- a server that shuts connections down at once: {outcome}");
    assert!(outcome.counts.failed > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_identity() {
    prove("http/1.1", Duration::ZERO).await;
    prove("h2", Duration::ZERO).await;
    prove("h2", Duration::from_millis(1)).await;
}
