//! Connections move on without a request lost.

use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use keydir_rustls::rustls::ClientConfig;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::client::{closes, get, get1, h1, h2, pool, text};
use crate::scene::{Held, LONG, NAME, Scene, Seen, about, eventually, revisions, soon, start};

const CALLERS: usize = 16;

/// Callers that ask without a pause, each with a pool of its own, and retry nothing.
struct Callers {
    tasks: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    /// What each was told last.
    last: Arc<Mutex<Vec<String>>>,
    errors: Arc<Mutex<Vec<String>>>,
}

impl Callers {
    fn start(config: &Arc<ClientConfig>, address: std::net::SocketAddr) -> Self {
        let this = Self {
            tasks: Vec::new(),
            stop: Arc::default(),
            answered: Arc::default(),
            last: Arc::new(Mutex::new(vec![String::new(); CALLERS])),
            errors: Arc::default(),
        };
        let call = |n: usize| {
            let client = pool(config, address);
            let (stop, answered) = (Arc::clone(&this.stop), Arc::clone(&this.answered));
            let (last, errors) = (Arc::clone(&this.last), Arc::clone(&this.errors));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    match soon(client.request(get("/"))).await {
                        Ok(response) => {
                            assert!(response.status().is_success(), "{response:?}");
                            let told = text(response).await;
                            last.lock().unwrap()[n] = told;
                            answered.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(error) => errors.lock().unwrap().push(format!("{error:?}")),
                    }
                }
            })
        };
        Self {
            tasks: (0..CALLERS).map(call).collect(),
            ..this
        }
    }

    async fn all_are_told(&self, revision: &str) {
        let all = || self.last.lock().unwrap().iter().all(|told| told.starts_with(revision));
        eventually(revision, all).await;
    }

    /// How many were answered, and what failed.
    async fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            soon(task).await.unwrap();
        }
        let errors = self.errors.lock().unwrap().clone();
        (self.answered.load(Ordering::SeqCst), errors)
    }
}

/// By turns promoted, and retired when nothing rests on it any more, and replaced at once.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_on_http1_is_lost_while_the_identity_rotates() {
    let scene = Scene::new();
    let seen = Arc::new(Seen::default());
    // The grace is so long that nothing but an answer closes a connection.
    let server = start(&scene.acceptor(LONG), about(&seen), |server| {
        server.renew_within(Duration::from_millis(100))
    })
    .await;
    let callers = Callers::start(&scene.client(&scene.c1, &["http/1.1"]), server.address);
    let mut old = scene.leaves[0].clone();
    callers.all_are_told("r1 ").await;
    for n in 2..10 {
        let (before, now) = (format!("r{}", n - 1), format!("r{n}"));
        let new = scene.servers.issue(NAME, |_| {});
        if n % 2 == 0 {
            let both = revisions(&[(&before, &old), (&now, &new)]);
            scene.own.publish(both).unwrap();
            eventually("nothing rests on it", || scene.uses(&before) == 0).await;
        }
        scene.own.publish(revisions(&[(&now, &new)])).unwrap();
        callers.all_are_told(&format!("{now} ")).await;
        old = new;
    }
    let (answered, errors) = callers.end().await;
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(seen.requests(), answered, "the server has counted the same");
}

/// The control: what everybody does, at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_shutdown_at_once_loses_requests() {
    let scene = Scene::new();
    let seen = Arc::new(Seen::default());
    let acceptor = scene.acceptor(LONG);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = about(&seen);
    let serving = tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (acceptor, service) = (acceptor.clone(), service.clone());
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                let connection = tls.connection().clone();
                let superseded = connection.identity().unwrap().superseded();
                let service = tower::util::MapRequest::new(service, move |mut request: http::Request<_>| {
                    request.extensions_mut().insert(connection.clone());
                    request
                });
                let service = TowerToHyperService::new(service);
                let mut http = pin!(http1::Builder::new().serve_connection(TokioIo::new(tls), service));
                tokio::select! {
                    _ = http.as_mut() => return,
                    () = superseded => http.as_mut().graceful_shutdown(),
                }
                let _ = http.await;
            });
        }
    });
    let callers = Callers::start(&scene.client(&scene.c1, &["http/1.1"]), address);
    callers.all_are_told("r1 ").await;
    for n in 2..8 {
        let now = format!("r{n}");
        let new = scene.servers.issue(NAME, |_| {});
        // The old one stands beside it, so nothing but the shutdown can fail.
        let before = scene.leaves[0].clone();
        scene.own.publish(revisions(&[("r1", &before), (&now, &new)])).unwrap();
        callers.all_are_told(&format!("{now} ")).await;
    }
    let (_, errors) = callers.end().await;
    assert!(!errors.is_empty());
    serving.abort();
}

/// Nothing asks, so nothing can be told with an answer.
#[tokio::test]
async fn who_is_idle_is_shut_down_in_the_second_half_of_the_grace() {
    for alpn in ["http/1.1", "h2"] {
        let scene = Scene::new();
        let seen = Arc::new(Seen::default());
        let grace = Duration::from_millis(1000);
        let server = start(&scene.acceptor(grace), about(&seen), |server| server).await;
        let config = scene.client(&scene.c1, &[alpn]);
        // Ended in order: cut, the stream would be without a close_notify, which clients take for an error.
        if alpn == "h2" {
            let mut client = h2(&config, server.address).await;
            text(soon(client.send.send_request(get("/"))).await.unwrap()).await;
            scene.remove_c1();
            soon(client.end).await.unwrap().unwrap();
        } else {
            let mut client = h1(&config, server.address).await;
            text(soon(client.send.send_request(get1("/"))).await.unwrap()).await;
            scene.remove_c1();
            soon(client.end).await.unwrap().unwrap();
        }
        assert_eq!(seen.requests(), 1);
        eventually("no connection is left", || server.acceptor.connections() == 0).await;
    }
}

/// HTTP/1 is told with an answer, HTTP/2 by GOAWAY while one is waited for.
#[tokio::test]
async fn a_superseded_identity_moves_the_connection_with_the_next_answer() {
    let scene = Scene::new();
    let seen = Arc::new(Seen::default());
    let server = start(&scene.acceptor(LONG), about(&seen), |server| {
        server.renew_within(Duration::ZERO)
    })
    .await;
    let config = |alpn| scene.client(&scene.c1, &[alpn]);
    let mut one = h1(&config("http/1.1"), server.address).await;
    let mut two = h2(&config("h2"), server.address).await;
    let first = soon(one.send.send_request(get1("/"))).await.unwrap();
    assert!(!closes(&first));
    assert_eq!(text(first).await, "r1 c1");
    let first = soon(two.send.send_request(get("/"))).await.unwrap();
    assert_eq!(text(first).await, "r1 c1");
    scene.promote();
    let last = soon(one.send.send_request(get1("/"))).await.unwrap();
    assert!(closes(&last));
    assert_eq!(text(last).await, "r1 c1");
    soon(one.end).await.unwrap().unwrap();
    let last = soon(two.send.send_request(get("/"))).await.unwrap();
    assert_eq!(text(last).await, "r1 c1");
    soon(two.end).await.unwrap().unwrap();
    let mut next = h2(&config("h2"), server.address).await;
    let answer = soon(next.send.send_request(get("/"))).await.unwrap();
    assert_eq!(text(answer).await, "r2 c1");
    assert!(!next.end.is_finished());
}

/// A shutdown of HTTP/2 between two requests loses the second if it is on its way to the connection; one that comes while
/// as many are waited for as ever does not.
#[tokio::test]
async fn http2_is_shut_down_while_as_many_requests_wait_as_ever_did() {
    let scene = Scene::new();
    let held = Held::new();
    let server = start(&scene.acceptor(LONG), held.service(), |server| {
        server.renew_within(Duration::ZERO)
    })
    .await;
    let client = h2(&scene.client(&scene.c1, &["h2"]), server.address).await;
    let ask = || {
        let mut send = client.send.clone();
        tokio::spawn(async move { soon(send.send_request(get("/"))).await.unwrap() })
    };
    let both = (ask(), ask());
    held.started(2).await;
    held.go(2);
    let _ = (soon(both.0).await.unwrap(), soon(both.1).await.unwrap());
    scene.promote();
    let one = ask();
    held.started(1).await;
    held.go(1);
    soon(one).await.unwrap();
    assert!(!client.end.is_finished(), "another may be on its way");
    let both = (ask(), ask());
    held.started(2).await;
    held.go(2);
    let _ = (soon(both.0).await.unwrap(), soon(both.1).await.unwrap());
    soon(client.end).await.unwrap().unwrap();
}

/// A burst in the past does not keep a connection where it is: who waits for the old revision to be unused would never see
/// it.
#[tokio::test]
async fn http2_moves_on_also_if_never_again_as_many_wait() {
    let scene = Scene::new();
    let held = Held::new();
    let server = start(&scene.acceptor(LONG), held.service(), |server| {
        server.renew_within(Duration::ZERO)
    })
    .await;
    let mut client = h2(&scene.client(&scene.c1, &["h2"]), server.address).await;
    let mut other = client.send.clone();
    let burst =
        tokio::spawn(async move { tokio::join!(other.clone().send_request(get("/")), other.send_request(get("/"))) });
    held.started(2).await;
    held.go(2);
    let burst = soon(burst).await.unwrap();
    let _ = (text(burst.0.unwrap()).await, text(burst.1.unwrap()).await);
    scene.promote();
    let moved = async {
        while scene.uses("r1") > 0 {
            held.go(1);
            if let Ok(response) = client.send.send_request(get("/")).await {
                assert_eq!(text(response).await, "done");
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon(moved).await;
    soon(client.end).await.unwrap().unwrap();
}

/// Not all at once: within a long window most connections stay.
#[tokio::test]
async fn renewal_is_spread() {
    let scene = Scene::new();
    let seen = Arc::new(Seen::default());
    let server = start(&scene.acceptor(LONG), about(&seen), |server| server.renew_within(LONG)).await;
    let config = scene.client(&scene.c1, &["http/1.1"]);
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(h1(&config, server.address).await);
    }
    scene.promote();
    let mut closing = 0;
    for client in &mut clients {
        let response = soon(client.send.send_request(get1("/"))).await.unwrap();
        closing += usize::from(closes(&response));
    }
    // One in a thousand runs of a window of an hour would have one that is due within the first seconds.
    assert!(closing <= 2, "{closing}");
}
