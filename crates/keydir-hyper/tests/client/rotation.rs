//! Rotations under load: no request fails, and none that began after a removal is carried by what was removed. The full
//! count is for `cargo xtask prove requests`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use keydir_hyper::{Client, HttpsConnector, Retry};
use keydir_rustls::client_config;
use tower_service::Service;

use crate::support::*;

const WORKERS: usize = 8;

fn rotations() -> u64 {
    match std::env::var("KEYDIR_PROVE") {
        Ok(_) => 200,
        Err(_) => 25,
    }
}

struct Outcome {
    requests: usize,
    failed: usize,
    violations: usize,
    connections: usize,
}

/// Rotates the client's identity while `client` is under load.
async fn rotate<C>(
    alpn: &str,
    make: impl FnOnce(&keydir_rustls::TrustAnchors, &keydir_rustls::Identity) -> C,
) -> Outcome
where
    C: Service<Request<Payload>, Response = http::Response<hyper::body::Incoming>> + Clone + Send + 'static,
    C::Future: Send,
    C::Error: std::fmt::Debug + Send,
{
    let ca = Ca::new("the ca");
    let server = Server::start(&ca.leaf("server"), &ca, &[alpn]).await;
    let (_, anchors) = ca.anchors();
    let mut leaf = ca.leaf("r1");
    let (dir, identity) = identity("r1", &leaf);
    let client = make(&anchors, &identity);

    let floor = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let (ok, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (mut client, floor, stop) = (client.clone(), Arc::clone(&floor), Arc::clone(&stop));
            let (ok, failed, uri) = (Arc::clone(&ok), Arc::clone(&failed), server.uri("/"));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let floor = floor.load(Ordering::SeqCst);
                    let request = Request::get(uri.clone())
                        .header("x-floor", floor)
                        .body(Payload::default())
                        .unwrap();
                    let answer = async { client.call(request).await.map_err(|error| format!("{error:?}")) };
                    match answer.await {
                        Ok(response) if response.status() == 200 => {
                            response.into_body().collect().await.unwrap();
                            ok.fetch_add(1, Ordering::SeqCst);
                        }
                        other => {
                            failed.fetch_add(1, Ordering::SeqCst);
                            println!("failed: {other:?}");
                        }
                    }
                }
            })
        })
        .collect();

    // Each step under load: so many requests more have been answered.
    let more = |requests: usize| {
        let before = ok.load(Ordering::SeqCst);
        let (ok, failed) = (Arc::clone(&ok), Arc::clone(&failed));
        async move {
            while ok.load(Ordering::SeqCst) < before + requests && failed.load(Ordering::SeqCst) < 1000 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    for n in 1..=rotations() {
        let (old, new) = (format!("r{n}"), format!("r{}", n + 1));
        let next = ca.leaf(&new);
        dir.publish(files((&old, &leaf), &[(&new, &next)])).unwrap();
        more(5).await;
        dir.publish(files((&new, &next), &[(&old, &leaf)])).unwrap();
        more(40).await;
        dir.publish(files((&new, &next), &[])).unwrap();
        floor.store(n + 1, Ordering::SeqCst);
        more(40).await;
        leaf = next;
    }
    stop.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.await.unwrap();
    }
    let seen = &server.seen;
    assert_eq!(
        seen.requests.load(Ordering::SeqCst),
        ok.load(Ordering::SeqCst),
        "both sides count the same"
    );
    let outcome = Outcome {
        requests: ok.load(Ordering::SeqCst),
        failed: failed.load(Ordering::SeqCst),
        violations: seen.violations.load(Ordering::SeqCst),
        connections: seen.connections.load(Ordering::SeqCst),
    };
    println!(
        "{alpn}: {} requests, {} failed, {} on what was removed, {} connections, {} rotations",
        outcome.requests,
        outcome.failed,
        outcome.violations,
        outcome.connections,
        rotations()
    );
    outcome
}

async fn ours(alpn: &'static str) -> Outcome {
    rotate(alpn, |anchors, identity| {
        Client::builder(client_config(anchors).identity(identity))
            .retry(Retry::Off)
            .promotion_window(Duration::from_millis(10))
            .build::<Payload>()
            .unwrap()
    })
    .await
}

/// One pool for ever, whose connector presents whatever is the primary.
async fn naive(alpn: &'static str) -> Outcome {
    rotate(alpn, |anchors, identity| {
        let connector = client_config(anchors)
            .identity(identity)
            .connector_with(|config| config.alpn_protocols = vec![alpn.as_bytes().to_vec()])
            .unwrap();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        let generation = keydir_hyper::Swap::new(&connector, |generation| {
            Ok::<_, std::convert::Infallible>(generation.clone())
        });
        let https: HttpsConnector<_> = generation.unwrap().current().unwrap().https(http);
        hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build::<_, Payload>(https)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http1_identities_rotate_under_load() {
    let outcome = ours("http/1.1").await;
    assert_eq!((outcome.failed, outcome.violations), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_identities_rotate_under_load() {
    let outcome = ours("h2").await;
    assert_eq!((outcome.failed, outcome.violations), (0, 0));
    // One for each swap, and there may be two of these in a rotation.
    let swaps = usize::try_from(rotations()).unwrap() * 2;
    assert!(
        outcome.connections <= swaps + WORKERS,
        "{} connections",
        outcome.connections
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_naive_way_carries_requests_on_what_was_removed() {
    for alpn in ["http/1.1", "h2"] {
        let outcome = naive(alpn).await;
        assert!(outcome.violations > 0, "{alpn}: {} requests", outcome.requests);
    }
}
