//! Against servers of hyper's, over TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use keydir_hyper::{AuthorizationLayer, BoxError, Client};
use tower::{Layer, Service, ServiceExt};

use crate::https::{Https, closes};
use crate::support::{files, ok, token_of, tokens, unauthorized};

/// A refusal with a body, so that there is something to read before the connection can be used again.
fn refusal(bytes: usize) -> Response<Full<Bytes>> {
    unauthorized("Bearer error=\"invalid_token\"").map(|_| Full::new(Bytes::from(vec![b'x'; bytes])))
}

fn post(server: &Https) -> Request<Full<Bytes>> {
    Request::post(server.uri())
        .body(Full::new(Bytes::from("the body")))
        .unwrap()
}

async fn read<S>(client: &S, request: Request<Full<Bytes>>) -> u16
where
    S: Service<Request<Full<Bytes>>, Response = Response<Incoming>, Error = BoxError> + Clone,
{
    let response = client.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    response.into_body().collect().await.unwrap();
    status
}

#[tokio::test]
async fn another_is_tried_on_the_same_connection() {
    for (alpn, refusal_bytes, connections) in [
        ("http/1.1", 60 * 1024, 1),
        ("http/1.1", 65 * 1024, 2),
        ("h2", 60 * 1024, 1),
        ("h2", 65 * 1024, 1),
    ] {
        let (_, token) = tokens("r2", &["r1"]);
        let server = Https::start(alpn, move |credential| match credential {
            "Bearer token-of-r1" => ok(),
            _ => refusal(refusal_bytes),
        })
        .await;
        let layer = AuthorizationLayer::bearer(&token)
            .try_another()
            .only_for([server.origin()]);
        let client = layer.unwrap().layer(server.client());
        assert_eq!(read(&client, post(&server)).await, 200);
        assert_eq!(
            server.credentials(),
            ["Bearer token-of-r2", "Bearer token-of-r1"],
            "{alpn}"
        );
        assert!(
            server
                .seen
                .requests
                .lock()
                .unwrap()
                .iter()
                .all(|got| got.body == "the body")
        );
        assert_eq!(
            server.seen.connections.load(Ordering::SeqCst),
            connections,
            "{alpn}, {refusal_bytes} bytes"
        );
    }
}

/// A connection that breaks says nothing of a credential: the error is the caller's, no other is tried, and the next
/// request presents the same.
#[tokio::test]
async fn a_server_that_closes_in_the_middle_of_a_request() {
    let (dir, token) = tokens("r2", &["r1"]);
    let server = Https::start("http/1.1", |_| closes()).await;
    let layer = AuthorizationLayer::bearer(&token)
        .try_another()
        .only_for([server.origin()]);
    let client = layer.unwrap().layer(server.client());
    for _ in 0..2 {
        client.clone().oneshot(post(&server)).await.unwrap_err();
    }
    assert_eq!(server.credentials(), ["Bearer token-of-r2", "Bearer token-of-r2"]);
    let report = dir.report().sets.remove(0).revisions;
    assert!(
        report
            .values()
            .all(|revision| revision.uses == 0 && revision.last_use.is_none())
    );
}

/// The longest token that is usable comes through by HTTP/2, the one limit that the file's reader names.
#[tokio::test]
async fn the_longest_token_comes_through() {
    let long = "x".repeat(15 * 1024);
    let dir = keydir::Dir::in_memory([("r1.token.primary", long.clone())]);
    let token = keydir_hyper::Token::in_dir(&dir).unwrap();
    for alpn in ["http/1.1", "h2"] {
        let server = Https::start(alpn, |_| ok()).await;
        let client = AuthorizationLayer::bearer(&token).any_origin().layer(server.client());
        assert_eq!(read(&client, post(&server)).await, 200, "{alpn}");
        assert_eq!(server.credentials(), [format!("Bearer {long}")]);
    }
}

/// The server refuses the new token three times, and all the while requests go on: none fails, the server has refused
/// nothing else, and each refusal was at least a pause after the one before.
async fn bad_rotation(alpn: &'static str) {
    const WORKERS: usize = 8;
    let refused = Arc::new(AtomicUsize::new(0));
    let noted = Arc::clone(&refused);
    let server = Https::start(alpn, move |credential| {
        let is_new = credential == "Bearer token-of-r2";
        match is_new && noted.load(Ordering::SeqCst) < 3 {
            true => {
                noted.fetch_add(1, Ordering::SeqCst);
                refusal(100)
            }
            false => ok(),
        }
    })
    .await;
    let (dir, token) = tokens("r1", &[]);
    let layer = AuthorizationLayer::bearer(&token)
        .try_another()
        .only_for([server.origin()]);
    let client = layer.unwrap().layer(server.client());
    assert_eq!(read(&client, post(&server)).await, 200);

    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(1)));
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (client, stop, answered) = (client.clone(), Arc::clone(&stop), Arc::clone(&answered));
            let uri = server.uri();
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let request = Request::post(uri.clone()).body(Full::new(Bytes::from("x"))).unwrap();
                    assert_eq!(read(&client, request).await, 200);
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    dir.publish(files("r2", &["r1"])).unwrap();
    let new = format!("Bearer {}", token_of("r2"));
    let is_adopted = || {
        let requests = server.seen.requests.lock().unwrap();
        let last = requests.iter().rev().take(WORKERS * 4);
        last.into_iter().all(|got| got.credential == new)
    };
    while refused.load(Ordering::SeqCst) < 3 || !is_adopted() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    dir.publish(files("r2", &[])).unwrap();
    stop.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.await.unwrap();
    }

    let requests = server.seen.requests.lock().unwrap();
    let tries: Vec<_> = requests
        .iter()
        .filter(|got| got.credential == new)
        .map(|got| got.at)
        .collect();
    assert!(tries[1].duration_since(tries[0]) >= Duration::from_secs(1));
    assert!(tries[2].duration_since(tries[1]) >= Duration::from_secs(2));
    assert!(tries[3].duration_since(tries[2]) >= Duration::from_secs(4));
    assert_eq!(
        requests.len(),
        answered.load(Ordering::SeqCst) + 3,
        "both sides count the same"
    );
    println!("{alpn}: {} requests, 3 refusals", requests.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http1_a_bad_rotation_costs_one_refusal_a_step() {
    bad_rotation("http/1.1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_a_bad_rotation_costs_one_refusal_a_step() {
    bad_rotation("h2").await;
}

/// A directory that rotates while requests go on: none is refused by a server that accepts what was published last, nor
/// is one sent with what was removed before it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_rotate_under_load() {
    const ROTATIONS: usize = 50;
    let floor = Arc::new(AtomicUsize::new(1));
    let server = Https::start("h2", |_| ok()).await;
    let (dir, token) = tokens("r1", &[]);
    let client = AuthorizationLayer::bearer(&token).any_origin().layer(server.client());
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (client, stop, floor, uri) = (client.clone(), Arc::clone(&stop), Arc::clone(&floor), server.uri());
            tokio::spawn(async move {
                let mut done = 0;
                while !stop.load(Ordering::SeqCst) {
                    let floor = floor.load(Ordering::SeqCst).to_string();
                    let request = Request::post(uri.clone()).body(Full::new(Bytes::from(floor))).unwrap();
                    assert_eq!(read(&client, request).await, 200);
                    done += 1;
                }
                done
            })
        })
        .collect();
    let so_many = |server: &Https| server.seen.requests.lock().unwrap().len();
    for number in 1..=ROTATIONS {
        let (old, new) = (format!("r{number}"), format!("r{}", number + 1));
        dir.publish(files(&new, &[&old])).unwrap();
        dir.publish(files(&new, &[])).unwrap();
        floor.store(number + 1, Ordering::SeqCst);
        let before = so_many(&server);
        while so_many(&server) < before + 20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    stop.store(true, Ordering::SeqCst);
    let mut done = 0;
    for worker in workers {
        done += worker.await.unwrap();
    }
    let requests = server.seen.requests.lock().unwrap();
    assert_eq!(requests.len(), done);
    for got in &*requests {
        let presented: usize = got.credential.trim_start_matches("Bearer token-of-r").parse().unwrap();
        let floor: usize = std::str::from_utf8(&got.body).unwrap().parse().unwrap();
        assert!(presented >= floor, "r{presented} when all before r{floor} were gone");
    }
}

/// The layer stands over any client, hyper-util's own among them.
#[tokio::test]
async fn over_a_client_of_hyper_util() {
    let (_, token) = tokens("r1", &[]);
    let plain =
        hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http::<Full<Bytes>>();
    let client = AuthorizationLayer::bearer(&token).any_origin().layer(plain);
    let error = client
        .oneshot(Request::get("https://localhost:1/").body(Full::default()).unwrap())
        .await;
    let error = error.unwrap_err();
    assert!(
        error.is::<hyper_util::client::legacy::Error>(),
        "the client's own error: {error}"
    );
}

#[test]
fn it_is_a_client_like_any_other() {
    fn is<S: Service<Request<Full<Bytes>>, Response = Response<Incoming>> + Clone + Send + Sync + 'static>() {}
    is::<keydir_hyper::Authorization<Client<Full<Bytes>>>>();
}

#[cfg(feature = "tonic")]
#[test]
fn it_carries_grpc() {
    fn is<S: tonic::client::GrpcService<tonic::body::Body>>() {}
    is::<keydir_hyper::Authorization<Client<tonic::body::Body>>>();
}
