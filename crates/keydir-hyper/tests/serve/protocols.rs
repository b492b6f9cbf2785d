//! HTTP/1 or 2 by ALPN, and what a request knows of its connection.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Response, Version};
use http_body_util::Full;

use crate::client::{get, get1, h1, h2, text};
use crate::scene::{LONG, Scene, Seen, about, answering, soon, start};

#[tokio::test]
async fn the_protocol_is_the_one_of_the_handshake_and_requests_know_their_peer() {
    let scene = Scene::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noting = Arc::clone(&seen);
    let service = answering(move |request| {
        let connection = request.extensions().get::<keydir_rustls::Connection>().unwrap();
        let remote = *request.extensions().get::<SocketAddr>().unwrap();
        let peer = connection.peer().unwrap();
        let told = (request.version(), peer.dns_names(), peer.ca().unwrap().to_string());
        noting.lock().unwrap().push(told);
        async move { Response::new(Full::<Bytes>::from(remote.to_string())) }
    });
    let server = start(&scene.acceptor(LONG), service, |server| server).await;

    let mut one = h1(&scene.client(&scene.c1, &["http/1.1"]), server.address).await;
    let first = soon(one.send.send_request(get1("/"))).await.unwrap();
    assert_eq!(first.version(), Version::HTTP_11);
    let mut plain = h1(&scene.client(&scene.c1, &[]), server.address).await;
    let second = soon(plain.send.send_request(get1("/"))).await.unwrap();
    let mut two = h2(&scene.client(&scene.c2, &["h2", "http/1.1"]), server.address).await;
    let third = soon(two.send.send_request(get("/"))).await.unwrap();
    assert_eq!(third.version(), Version::HTTP_2);
    let (first, second, third) = (text(first).await, text(second).await, text(third).await);
    assert!(first != second && second != third && first.starts_with("127.0.0.1:"));

    let told = |version, ca: &str| (version, vec!["client".to_owned()], ca.to_owned());
    assert_eq!(
        *seen.lock().unwrap(),
        [
            told(Version::HTTP_11, "c1"),
            told(Version::HTTP_11, "c1"),
            told(Version::HTTP_2, "c2")
        ]
    );
}

/// HTTP/2 spoken where HTTP/1 was agreed upon is not guessed.
#[tokio::test]
async fn nothing_is_detected() {
    let scene = Scene::new();
    let seen = Arc::new(Seen::default());
    let server = start(&scene.acceptor(LONG), about(&seen), |server| server).await;
    let mut wrong = h2(&scene.client(&scene.c1, &["http/1.1"]), server.address).await;
    assert!(soon(wrong.send.send_request(get("/"))).await.is_err());
    assert_eq!(seen.requests(), 0);
}

/// Neither the flavour of the runtime matters, nor that one which served the acceptor first has ended.
#[test]
fn any_runtime_serves() {
    let scene = Scene::new();
    let acceptor = scene.acceptor(LONG);
    let config = scene.client(&scene.c1, &["h2"]);
    let seen = Arc::new(Seen::default());
    for _ in 0..2 {
        for mut builder in [
            tokio::runtime::Builder::new_current_thread(),
            tokio::runtime::Builder::new_multi_thread(),
        ] {
            let runtime = builder.enable_all().build().unwrap();
            runtime.block_on(async {
                let server = start(&acceptor, about(&seen), |server| server).await;
                let mut client = h2(&config, server.address).await;
                let response = soon(client.send.send_request(get("/"))).await.unwrap();
                assert_eq!(text(response).await, "r1 c1");
            });
        }
    }
    assert_eq!(seen.requests(), 4);
    // What ends connections runs on the runtime that is there.
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let server = start(
            &scene.acceptor(std::time::Duration::from_millis(200)),
            about(&seen),
            |server| server,
        )
        .await;
        let client = h2(&config, server.address).await;
        scene.remove_c1();
        let _ = soon(client.end).await.unwrap();
    });
}
