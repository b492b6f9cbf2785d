//! Upgraded connections are told, and end with the grace.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use keydir_rustls::Connection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::client::{get1, h1};
use crate::scene::{LONG, Scene, answering, eventually, soon, start};

#[derive(Debug, PartialEq)]
enum Told {
    Ended,
    Cut(ErrorKind),
}

fn upgrading(told: mpsc::UnboundedSender<Told>) -> crate::scene::Service {
    answering(move |mut request| {
        let told = told.clone();
        let connection = request.extensions().get::<Connection>().unwrap().clone();
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let (ended, again) = (connection.ended(), told.clone());
            tokio::spawn(async move {
                ended.await;
                again.send(Told::Ended)
            });
            let mut buffer = [0; 16];
            let kind = loop {
                match io.read(&mut buffer).await {
                    Ok(n @ 1..) => io.write_all(&buffer[..n]).await.unwrap(),
                    Ok(0) => return,
                    Err(error) => break error.kind(),
                }
            };
            let _ = told.send(Told::Cut(kind));
        });
        async {
            let mut response = Response::new(Full::<Bytes>::default());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("upgrade", "echo".parse().unwrap());
            response.headers_mut().insert("connection", "upgrade".parse().unwrap());
            response
        }
    })
}

async fn upgraded(scene: &Scene, address: std::net::SocketAddr) -> TokioIo<hyper::upgrade::Upgraded> {
    let mut client = h1(&scene.client(&scene.c1, &["http/1.1"]), address).await;
    let mut request = get1("/");
    for (name, value) in [("upgrade", "echo"), ("connection", "upgrade")] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let response = soon(client.send.send_request(request)).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS, "{response:?}");
    TokioIo::new(hyper::upgrade::on(response).await.unwrap())
}

async fn echoes(io: &mut TokioIo<hyper::upgrade::Upgraded>) {
    let mut back = [0; 4];
    io.write_all(b"ping").await.unwrap();
    soon(io.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"ping");
}

#[tokio::test]
async fn an_upgraded_connection_is_told_and_ends_with_the_grace() {
    let scene = Scene::new();
    let (told, mut tell) = mpsc::unbounded_channel();
    let grace = Duration::from_millis(500);
    let server = start(&scene.acceptor(grace), upgrading(told), |server| server).await;
    let mut io = upgraded(&scene, server.address).await;
    echoes(&mut io).await;
    scene.remove_c1();
    assert_eq!(soon(tell.recv()).await, Some(Told::Ended));
    assert_eq!(soon(tell.recv()).await, Some(Told::Cut(ErrorKind::ConnectionAborted)));
    let mut rest = Vec::new();
    // Closed, with a close_notify or without one.
    let _ = soon(io.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
    eventually("no connection is left", || server.acceptor.connections() == 0).await;
}

/// It is not closed by the answer that a superseded connection gives, and it counts as a connection.
#[tokio::test]
async fn a_superseded_connection_can_be_upgraded_still_and_counts() {
    let scene = Scene::new();
    let (told, _tell) = mpsc::unbounded_channel();
    let server = start(&scene.acceptor(LONG), upgrading(told), |server| {
        server.renew_within(Duration::ZERO).max_connections(1)
    })
    .await;
    scene.promote();
    // Connects and is superseded before it asks.
    scene
        .own
        .publish(crate::scene::revisions(&[("r1", &scene.leaves[0])]))
        .unwrap();
    let config = scene.client(&scene.c1, &["http/1.1"]);
    let mut client = h1(&config, server.address).await;
    scene.promote();
    let mut request = get1("/");
    for (name, value) in [("upgrade", "echo"), ("connection", "upgrade")] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let response = soon(client.send.send_request(request)).await.unwrap();
    assert_eq!(response.headers()["connection"], "upgrade");
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    echoes(&mut io).await;

    let second = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let in_turn = Arc::clone(&second);
    let waits = tokio::spawn(async move {
        let client = h1(&config, server.address).await;
        assert!(in_turn.load(std::sync::atomic::Ordering::SeqCst));
        (client, server)
    });
    echoes(&mut io).await;
    second.store(true, std::sync::atomic::Ordering::SeqCst);
    drop(io);
    soon(waits).await.unwrap();
}

/// The answer to a CONNECT says nothing of the connection, and what its ends say when one of them has said all arrives.
#[tokio::test]
async fn a_superseded_connection_can_become_a_tunnel_still() {
    let scene = Scene::new();
    let (end, mut ended) = mpsc::unbounded_channel();
    let service = answering(move |mut request| {
        let upgrade = hyper::upgrade::on(&mut request);
        let end = end.clone();
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            io.shutdown().await.unwrap();
            let mut rest = String::new();
            io.read_to_string(&mut rest).await.unwrap();
            end.send(rest)
        });
        async { Response::new(Full::<Bytes>::default()) }
    });
    let server = start(&scene.acceptor(LONG), service, |server| {
        server.renew_within(Duration::ZERO)
    })
    .await;
    let mut client = h1(&scene.client(&scene.c1, &["http/1.1"]), server.address).await;
    scene.promote();
    let mut request = get1("db.test:5432");
    *request.method_mut() = Method::CONNECT;
    let response = soon(client.send.send_request(request)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers().get("connection"), None);
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    assert_eq!(soon(io.read(&mut [0])).await.unwrap(), 0);
    io.write_all(b"the rest").await.unwrap();
    io.shutdown().await.unwrap();
    assert_eq!(soon(ended.recv()).await.unwrap(), "the rest");
}
