//! Nothing begins on a connection whose peer is not trusted any more.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use keydir::Dir;
use keydir_hyper::{AuthenticateLayer, GateLayer, Tokens};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Barrier;
use tower::util::BoxCloneService;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::client::{closes, get, get1, h1, h2, text, tls};
use crate::scene::{Held, LONG, Scene, Seen, about, answering, soon, start};

#[tokio::test]
async fn a_removed_client_is_refused_and_closed_on_http1() {
    let scene = Scene::new();
    let seen = Arc::new(Seen::default());
    let server = start(&scene.acceptor(LONG), about(&seen), |server| server).await;
    let mut removed = h1(&scene.client(&scene.c1, &["http/1.1"]), server.address).await;
    let mut stays = h1(&scene.client(&scene.c2, &["http/1.1"]), server.address).await;
    for client in [&mut removed, &mut stays] {
        let response = soon(client.send.send_request(get1("/"))).await.unwrap();
        assert!(response.status().is_success() && !closes(&response));
        text(response).await;
    }
    scene.remove_c1();
    let refused = soon(removed.send.send_request(get1("/"))).await.unwrap();
    assert_eq!(refused.status(), StatusCode::MISDIRECTED_REQUEST);
    assert!(closes(&refused));
    assert_eq!(text(refused).await, "");
    soon(removed.end).await.unwrap().unwrap();
    assert_eq!(seen.requests(), 2, "nothing was processed");
    let response = soon(stays.send.send_request(get1("/"))).await.unwrap();
    assert_eq!((text(response).await.as_str(), seen.requests()), ("r1 c2", 3));
}

/// The grace would last an hour, and two requests have waited at once: the first refusal ends the connection all the same.
#[tokio::test]
async fn a_removed_client_is_refused_and_sent_away_on_http2() {
    let scene = Scene::new();
    let both = Arc::new(Barrier::new(2));
    let seen = Arc::new(Seen::default());
    let (wait, noting) = (Arc::clone(&both), Arc::clone(&seen));
    let service = answering(move |_| {
        noting.requests.fetch_add(1, Ordering::SeqCst);
        let wait = Arc::clone(&wait);
        async move {
            wait.wait().await;
            Response::new(Full::<Bytes>::default())
        }
    });
    let server = start(&scene.acceptor(LONG), service, |server| server).await;
    let mut removed = h2(&scene.client(&scene.c1, &["h2"]), server.address).await;
    let mut again = removed.send.clone();
    let answers = tokio::join!(removed.send.send_request(get("/")), again.send_request(get("/")));
    assert!(answers.0.unwrap().status().is_success() && answers.1.unwrap().status().is_success());
    scene.remove_c1();
    let refused = soon(removed.send.send_request(get("/"))).await.unwrap();
    assert_eq!(refused.status(), StatusCode::MISDIRECTED_REQUEST);
    soon(removed.end).await.unwrap().unwrap();
    assert_eq!(seen.requests(), 2);
}

/// A connection of a revoked identity is served for the grace, but not for a client that is removed meanwhile.
#[tokio::test]
async fn a_client_is_removed_after_our_identity_was() {
    let scene = Scene::new();
    let seen = Arc::new(Seen::default());
    let server = start(&scene.acceptor(LONG), about(&seen), |server| server).await;
    let mut client = h1(&scene.client(&scene.c1, &["http/1.1"]), server.address).await;
    text(soon(client.send.send_request(get1("/"))).await.unwrap()).await;
    scene.retire();
    scene.remove_c1();
    let refused = soon(client.send.send_request(get1("/"))).await.unwrap();
    assert_eq!(refused.status(), StatusCode::MISDIRECTED_REQUEST);
    assert!(closes(&refused));
    assert_eq!(seen.requests(), 1);
}

#[tokio::test]
async fn grpc_clients_hear_that_they_may_try_again() {
    let scene = Scene::new();
    let seen = Arc::new(Seen::default());
    let server = start(&scene.acceptor(LONG), about(&seen), |server| server).await;
    let mut removed = h2(&scene.client(&scene.c1, &["h2"]), server.address).await;
    text(soon(removed.send.send_request(get("/"))).await.unwrap()).await;
    scene.remove_c1();
    let mut request = get("/a.Service/Method");
    let kind = "application/grpc+proto".parse().unwrap();
    request.headers_mut().insert("content-type", kind);
    let refused = soon(removed.send.send_request(request)).await.unwrap();
    assert_eq!(refused.status(), StatusCode::OK);
    assert_eq!(refused.headers()["grpc-status"], "14");
    assert_eq!(seen.requests(), 1);
}

/// A client that writes the whole of a body, of which the server reads nothing, before it reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_arrives_though_nobody_reads_the_body() {
    let scene = Scene::new();
    let seen = Arc::new(Seen::default());
    let server = start(&scene.acceptor(LONG), about(&seen), |server| server).await;
    let mut tls = tls(&scene.client(&scene.c1, &["http/1.1"]), server.address)
        .await
        .unwrap();
    let mut buffer = vec![0; 4096];
    tls.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let n = soon(tls.read(&mut buffer)).await.unwrap();
    assert!(buffer[..n].starts_with(b"HTTP/1.1 200 "));
    scene.remove_c1();
    let head = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4000000\r\n\r\n";
    tls.write_all(head).await.unwrap();
    soon(tls.write_all(&vec![b'x'; 4_000_000])).await.unwrap();
    buffer.clear();
    soon(tls.read_to_end(&mut buffer)).await.unwrap();
    assert!(buffer.starts_with(b"HTTP/1.1 421 "));
    assert_eq!(seen.requests(), 1);
}

/// Likewise of a layer that refuses: the client writes it all before it reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_401_arrives_though_nobody_reads_the_body() {
    let scene = Scene::new();
    let tokens = Tokens::in_dir(&Dir::in_memory([("r1.token", "correct-horse")])).unwrap();
    let seen = Arc::new(Seen::default());
    let service = BoxCloneService::new(AuthenticateLayer::bearer(&tokens).layer(about(&seen)));
    let server = start(&scene.acceptor(LONG), service, |server| server).await;
    let config = scene.client(&scene.c1, &["http/1.1"]);
    for n in 0..20 {
        let mut tls = tls(&config, server.address).await.unwrap();
        let head = b"POST / HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer x\r\ncontent-length: 4000000\r\n\r\n";
        tls.write_all(head).await.unwrap();
        soon(tls.write_all(&vec![b'x'; 4_000_000]))
            .await
            .unwrap_or_else(|error| panic!("{n}: {error}"));
        let mut answer = Vec::new();
        soon(tls.read_to_end(&mut answer))
            .await
            .unwrap_or_else(|error| panic!("{n}: {error}"));
        assert!(answer.starts_with(b"HTTP/1.1 401 "));
    }
    assert_eq!(seen.requests(), 0);
}

/// What is in flight at the removal may finish: the answer has its whole body, and then the connection closes.
#[tokio::test]
async fn what_was_let_in_is_finished() {
    for alpn in ["http/1.1", "h2"] {
        let scene = Scene::new();
        let held = Held::new();
        let server = start(&scene.acceptor(LONG), held.service(), |server| server).await;
        let config = scene.client(&scene.c1, &[alpn]);
        let (answer, end) = if alpn == "h2" {
            let mut client = h2(&config, server.address).await;
            (tokio::spawn(client.send.send_request(get("/"))), client.end)
        } else {
            let mut client = h1(&config, server.address).await;
            let answer = tokio::spawn(client.send.send_request(get1("/")));
            (answer, client.end)
        };
        held.started(1).await;
        scene.remove_c1();
        held.go(1);
        let response = soon(answer).await.unwrap().unwrap();
        assert_eq!(text(response).await, "done");
        drop((end, server));
    }
}

#[tokio::test]
async fn a_gate_alone_needs_to_know_the_connection() {
    let scene = Scene::new();
    let (acceptor, config) = (scene.acceptor(LONG), scene.client(&scene.c1, &["http/1.1"]));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accept = async {
        let (tcp, _) = listener.accept().await.unwrap();
        acceptor.accept(tcp).await.unwrap()
    };
    let (stream, _client) = tokio::join!(accept, tls(&config, address));
    let connection = stream.connection().clone();

    let inner = service_fn(async |_: Request<()>| Ok::<_, hyper::Error>(Response::new(Full::<Bytes>::default())));
    let mut gate = GateLayer::new().layer(inner);
    let mut ask = async |known: bool| {
        let mut request = Request::new(());
        if known {
            request.extensions_mut().insert(connection.clone());
        }
        let response = gate.ready().await.unwrap().call(request).await.unwrap();
        let closes = response.headers().contains_key("connection");
        (response.status(), closes)
    };
    assert_eq!(ask(true).await, (StatusCode::OK, false));
    assert_eq!(ask(false).await, (StatusCode::INTERNAL_SERVER_ERROR, false));
    scene.promote();
    assert_eq!(ask(true).await, (StatusCode::OK, true), "renewed");
    scene.retire();
    assert_eq!(ask(true).await, (StatusCode::OK, true), "the client is still trusted");
}
