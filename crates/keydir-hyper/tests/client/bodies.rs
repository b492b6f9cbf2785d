//! What is under way when something is revoked.

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use keydir_hyper::Client;
use keydir_rustls::client_config;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;

use crate::support::*;

#[tokio::test]
async fn a_running_download_finishes_while_new_requests_go_elsewhere() {
    for alpn in ["http/1.1", "h2"] {
        let ca = Ca::new("the ca");
        let server = Server::start(&ca.leaf("server"), &ca, &[alpn]).await;
        let (dir, identity) = identity("r1", &ca.leaf("r1"));
        let client = Client::builder(client_config(&ca.anchors().1).identity(&identity))
            .build::<Payload>()
            .unwrap();
        let running = client.get(server.uri("/piecewise")).await.unwrap();
        assert_eq!(carrier(&running), "r1");
        let mut running = running.into_body();
        let first = running.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first, "first, ");

        dir.publish(files(("r2", &ca.leaf("r2")), &[])).unwrap();
        for _ in 0..3 {
            assert_eq!(carried_by(&client, server.uri("/")).await, "r2", "{alpn}");
        }
        server.go();
        assert_eq!(running.collect().await.unwrap().to_bytes(), "rest", "{alpn}");
        until("the old connection closes then", || server.seen.open() == 1).await;
        assert_eq!(server.seen.handshakes(), 2, "{alpn}");
    }
}

#[tokio::test]
async fn a_running_upload_finishes_while_new_requests_go_elsewhere() {
    for alpn in ["http/1.1", "h2"] {
        let ca = Ca::new("the ca");
        let server = Server::start(&ca.leaf("server"), &ca, &[alpn]).await;
        let (dir, identity) = identity("r1", &ca.leaf("r1"));
        let client = Client::builder(client_config(&ca.anchors().1).identity(&identity))
            .build::<Payload>()
            .unwrap();
        let (send, receive) = mpsc::channel(1);
        let upload = Request::post(server.uri("/"))
            .body(Payload::Piecewise(Piecewise(receive)))
            .unwrap();
        let running = tokio::spawn(client.request(upload));
        send.send(Bytes::from_static(b"four")).await.unwrap();
        until("the first piece is there", || {
            server.seen.taken.load(Ordering::SeqCst) == 4
        })
        .await;

        dir.publish(files(("r2", &ca.leaf("r2")), &[])).unwrap();
        for _ in 0..3 {
            assert_eq!(carried_by(&client, server.uri("/")).await, "r2", "{alpn}");
        }
        send.send(Bytes::from_static(b"more")).await.unwrap();
        drop(send);
        let answer = running.await.unwrap().unwrap();
        assert_eq!(carrier(&answer), "r1", "{alpn}");
        assert_eq!(server.seen.taken.load(Ordering::SeqCst), 8, "{alpn}");
        drop(answer);
        until("the old connection closes then", || server.seen.open() == 1).await;
    }
}

#[tokio::test]
async fn what_runs_longer_than_the_grace_is_cut() {
    for alpn in ["http/1.1", "h2"] {
        let ca = Ca::new("the ca");
        let server = Server::start(&ca.leaf("server"), &ca, &[alpn]).await;
        let (dir, identity) = identity("r1", &ca.leaf("r1"));
        let client = Client::builder(client_config(&ca.anchors().1).identity(&identity))
            .grace(Duration::from_millis(1))
            .build::<Payload>()
            .unwrap();
        let running = client.get(server.uri("/piecewise")).await.unwrap();
        dir.publish(files(("r2", &ca.leaf("r2")), &[])).unwrap();
        assert!(running.into_body().collect().await.is_err(), "{alpn}");
        assert_eq!(carried_by(&client, server.uri("/")).await, "r2", "{alpn}");
    }
}
