//! What is sent again, and what is not.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use keydir_hyper::{Client, Retry};
use keydir_rustls::client_config;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::support::*;

const WORKERS: usize = 8;
const REQUESTS: usize = 4000;
const PATIENCE: Duration = Duration::from_secs(60);
/// Of a few hundred HTTP/2 connections of hyper that are drained, one forgets the answers of its last streams, whatever
/// the client is: hyper-util's own waits for ever too. So this is no failure.
const STUCK: Duration = Duration::from_secs(5);

fn client(ca: &Ca, retry: Retry) -> Client<Payload> {
    let (_, identity) = identity("r1", &ca.leaf("r1"));
    let builder = Client::builder(client_config(&ca.anchors().1).identity(&identity));
    builder.retry(retry).build().unwrap()
}

fn refused_by_go_away(error: &hyper_util::client::legacy::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
        }
        cause = error.source();
    }
    false
}

/// Sends requests until there were so many, or until there is a failure that counts if that is what is waited for.
async fn storm(
    server: &Server,
    client: &Client<Payload>,
    method: &Method,
    counts: fn(&hyper_util::client::legacy::Error) -> bool,
    one_is_enough: bool,
) -> usize {
    let (sent, failed, begun) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
        Instant::now(),
    );
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (client, uri, method) = (client.clone(), server.uri("/"), method.clone());
            let (sent, failed) = (Arc::clone(&sent), Arc::clone(&failed));
            tokio::spawn(async move {
                let goes_on = || match one_is_enough {
                    true => failed.load(Ordering::SeqCst) == 0 && begun.elapsed() < PATIENCE,
                    false => sent.load(Ordering::SeqCst) < REQUESTS,
                };
                while goes_on() {
                    let request = Request::builder().method(method.clone()).uri(uri.clone());
                    let request = request.body(Payload::from("a body")).unwrap();
                    let exchange = async {
                        let response = client.request(request).await?;
                        drop(response.into_body().collect().await);
                        Ok(())
                    };
                    if let Ok(Err(error)) = timeout(STUCK, exchange).await
                        && counts(&error)
                    {
                        failed.fetch_add(1, Ordering::SeqCst);
                    }
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    assert!(server.seen.requests() > 0);
    failed.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_drains_all_the_time_fails_no_get() {
    let ca = Ca::new("the ca");
    for alpn in ["http/1.1", "h2"] {
        let server = Server::start(&ca.leaf("server"), &ca, &[alpn]).await;
        server.drain_after(20);
        let failed = storm(&server, &client(&ca, Retry::Idempotent), &Method::PUT, |_| true, false).await;
        assert_eq!(failed, 0, "{alpn}");
        assert!(server.seen.handshakes() > 2, "{alpn}: it does drain");
        // Without it some fail.
        let failed = storm(&server, &client(&ca, Retry::Off), &Method::PUT, |_| true, true).await;
        assert!(failed > 0, "{alpn}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_that_the_server_refuses_is_sent_again_on_request() {
    let ca = Ca::new("the ca");
    let server = Server::start(&ca.leaf("server"), &ca, &["h2"]).await;
    server.drain_after(20);
    let failed = storm(
        &server,
        &client(&ca, Retry::Refused),
        &Method::POST,
        refused_by_go_away,
        false,
    )
    .await;
    assert_eq!(failed, 0);
    let failed = storm(
        &server,
        &client(&ca, Retry::Idempotent),
        &Method::POST,
        refused_by_go_away,
        true,
    )
    .await;
    assert!(failed > 0);
}

/// The connection breaks without an answer, so nobody knows what the server did.
#[tokio::test]
async fn what_may_have_been_processed_is_sent_again_only_if_that_is_harmless() {
    let ca = Ca::new("the ca");
    let server = Server::start(&ca.leaf("server"), &ca, &["http/1.1"]).await;
    let whole = || Payload::from("body");
    for (method, retry, times) in [
        (Method::GET, Retry::Idempotent, 3),
        (Method::PUT, Retry::Idempotent, 3),
        (Method::PUT, Retry::Refused, 3),
        (Method::GET, Retry::Off, 1),
        (Method::POST, Retry::Idempotent, 1),
        (Method::POST, Retry::Refused, 1),
        (Method::PATCH, Retry::Refused, 1),
    ] {
        let (before, taken) = (server.seen.requests(), server.seen.taken.load(Ordering::SeqCst));
        let request = Request::builder().method(method.clone()).uri(server.uri("/die"));
        let request = request.body(if method == Method::GET {
            Payload::default()
        } else {
            whole()
        });
        client(&ca, retry).request(request.unwrap()).await.unwrap_err();
        assert_eq!(server.seen.requests() - before, times, "{method} {retry:?}");
        let bodies = if method == Method::GET { 0 } else { times };
        let taken = server.seen.taken.load(Ordering::SeqCst) - taken;
        assert_eq!(taken, bodies * "body".len(), "{method} {retry:?}");
    }

    let before = server.seen.requests();
    let (send, receive) = mpsc::channel(1);
    drop(send);
    let once = Request::put(server.uri("/die")).body(Payload::Piecewise(Piecewise(receive)));
    client(&ca, Retry::Refused).request(once.unwrap()).await.unwrap_err();
    assert_eq!(server.seen.requests() - before, 1, "that body is gone");
}

/// As when a server goes away: whatever else is in the pool is as good as dead.
#[tokio::test]
async fn the_last_try_has_a_connection_of_its_own() {
    let ca = Ca::new("the ca");
    let server = Server::start(&ca.leaf("server"), &ca, &["http/1.1"]).await;
    let client = client(&ca, Retry::Idempotent);
    let many: Vec<_> = (0..6).map(|_| tokio::spawn(client.get(server.uri("/wait")))).collect();
    until("all wait", || server.seen.requests() == 6).await;
    many.iter().for_each(|_| server.go());
    for one in many {
        one.await.unwrap().unwrap().into_body().collect().await.unwrap();
    }
    server.answer_only(1);
    carried_by(&client, server.uri("/")).await;
    assert_eq!(server.seen.handshakes(), 7);
}

/// Refuses the first stream of each connection, and answers the others by which one it is.
async fn refuses_the_first_stream(ca: &Ca, reason: h2::Reason) -> http::Uri {
    let config = config(
        &ca.leaf("server"),
        &ca.der(),
        &["h2"],
        &[&keydir_rustls::rustls::version::TLS13],
    );
    let acceptor = TlsAcceptor::from(config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(tls) = acceptor.accept(tcp).await else { continue };
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(tls).await.unwrap();
                let mut first = true;
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    if std::mem::take(&mut first) {
                        respond.send_reset(reason);
                    } else {
                        let response = Response::builder().status(StatusCode::NO_CONTENT).body(());
                        respond.send_response(response.unwrap(), true).unwrap();
                    }
                }
            });
        }
    });
    uri.parse().unwrap()
}

#[tokio::test]
async fn a_stream_that_is_refused_is_sent_again() {
    let ca = Ca::new("the ca");
    for (reason, method, retry, answered) in [
        (h2::Reason::REFUSED_STREAM, Method::GET, Retry::Idempotent, true),
        (h2::Reason::REFUSED_STREAM, Method::POST, Retry::Idempotent, false),
        (h2::Reason::REFUSED_STREAM, Method::POST, Retry::Refused, true),
        (h2::Reason::REFUSED_STREAM, Method::GET, Retry::Off, false),
        // It has seen this one.
        (h2::Reason::CANCEL, Method::GET, Retry::Refused, false),
        (h2::Reason::INTERNAL_ERROR, Method::GET, Retry::Refused, false),
    ] {
        let uri = refuses_the_first_stream(&ca, reason).await;
        let request = Request::builder().method(method.clone()).uri(uri);
        let answer = client(&ca, retry)
            .request(request.body(Payload::default()).unwrap())
            .await;
        assert_eq!(answer.is_ok(), answered, "{reason} {method} {retry:?}: {answer:?}");
    }
}
