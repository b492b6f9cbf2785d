//! The end of a server.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::client::{closes, get, get1, h1, h2, text, tls};
use crate::limits::{STOPS, Stops, stop};
use crate::scene::{Held, LONG, PATIENCE, Scene, Seen, about, eventually, soon, start};

#[tokio::test]
async fn what_is_in_flight_is_finished_and_nothing_new_is_accepted() {
    let scene = Scene::new();
    let held = Held::new();
    let (end, ended) = oneshot::channel::<()>();
    let mut server = start(&scene.acceptor(LONG), held.service(), |server| {
        let when = async { ended.await.unwrap() };
        server.shutdown(when).shutdown_grace(LONG)
    })
    .await;
    let config = |alpn| scene.client(&scene.c1, &[alpn]);
    let mut one = h1(&config("http/1.1"), server.address).await;
    let mut two = h2(&config("h2"), server.address).await;
    let first = tokio::spawn(one.send.send_request(get1("/")));
    let second = tokio::spawn(two.send.send_request(get("/")));
    held.started(2).await;
    end.send(()).unwrap();
    let refused = async { while TcpStream::connect(server.address).await.is_ok() {} };
    soon(refused).await;
    assert!(!server.task.is_finished());
    held.go(2);
    let first = soon(first).await.unwrap().unwrap();
    assert!(closes(&first));
    assert_eq!(text(first).await, "done");
    assert_eq!(text(soon(second).await.unwrap().unwrap()).await, "done");
    soon(&mut server.task).await.unwrap();
}

/// Clients that are idle may have a request on its way: it is answered, and no connection is closed before.
#[tokio::test]
async fn idle_connections_get_a_last_answer_and_end_before_the_grace() {
    let scene = Scene::new();
    let seen = Arc::new(Seen::default());
    let (end, ended) = oneshot::channel::<()>();
    let mut server = start(&scene.acceptor(LONG), about(&seen), |server| {
        let when = async { ended.await.unwrap() };
        server.shutdown(when).shutdown_grace(Duration::from_secs(4))
    })
    .await;
    let config = |alpn| scene.client(&scene.c1, &[alpn]);
    let mut asks = h1(&config("http/1.1"), server.address).await;
    let mut idle = h1(&config("http/1.1"), server.address).await;
    let mut two = h2(&config("h2"), server.address).await;
    for client in [&mut asks, &mut idle] {
        text(soon(client.send.send_request(get1("/"))).await.unwrap()).await;
    }
    text(soon(two.send.send_request(get("/"))).await.unwrap()).await;
    end.send(()).unwrap();
    let last = soon(asks.send.send_request(get1("/"))).await.unwrap();
    assert!(closes(&last));
    assert_eq!(text(last).await, "r1 c1");
    soon(asks.end).await.unwrap().unwrap();
    let last = soon(two.send.send_request(get("/"))).await.unwrap();
    assert_eq!(text(last).await, "r1 c1");
    soon(two.end).await.unwrap().unwrap();
    soon(idle.end).await.unwrap().unwrap();
    soon(&mut server.task).await.unwrap();
    assert_eq!(seen.requests(), 5);
}

#[tokio::test]
async fn what_never_ends_is_cut_at_the_end_of_the_grace() {
    let scene = Scene::new();
    let held = Held::new();
    let (end, ended) = oneshot::channel::<()>();
    let mut server = start(&scene.acceptor(LONG).with_timeout(LONG), held.service(), |server| {
        let when = async { ended.await.unwrap() };
        server.shutdown(when).shutdown_grace(Duration::from_millis(300))
    })
    .await;
    let config = |alpn| scene.client(&scene.c1, &[alpn]);
    let mut one = h1(&config("http/1.1"), server.address).await;
    let mut two = h2(&config("h2"), server.address).await;
    let _silent = TcpStream::connect(server.address).await.unwrap();
    let answers = (
        tokio::spawn(one.send.send_request(get1("/"))),
        tokio::spawn(two.send.send_request(get("/"))),
    );
    held.started(2).await;
    end.send(()).unwrap();
    assert!(soon(answers.0).await.unwrap().is_err());
    assert!(soon(answers.1).await.unwrap().is_err());
    soon(&mut server.task).await.unwrap();
    eventually("no connection is left", || server.acceptor.connections() == 0).await;
}

/// Dropped, a server leaves its connections alone.
#[tokio::test]
async fn connections_outlive_a_server_that_is_dropped() {
    let scene = Scene::new();
    let seen = Arc::new(Seen::default());
    let mut server = start(&scene.acceptor(LONG), about(&seen), |server| server).await;
    let config = scene.client(&scene.c1, &["http/1.1"]);
    let mut client = h1(&config, server.address).await;
    server.task.abort();
    assert!((&mut server.task).await.unwrap_err().is_cancelled());
    assert!(tls(&config, server.address).await.is_err());
    let response = soon(client.send.send_request(get1("/"))).await.unwrap();
    assert_eq!(text(response).await, "r1 c1");
}

/// Neither a handshake is waited for, nor the rest of a head.
#[tokio::test]
async fn who_has_asked_for_nothing_goes_soon() {
    let scene = Scene::new();
    let seen = Arc::new(Seen::default());
    let (end, ended) = oneshot::channel::<()>();
    let mut server = start(&scene.acceptor(LONG).with_timeout(LONG), about(&seen), |server| {
        let when = async { ended.await.unwrap() };
        server.shutdown(when).shutdown_grace(LONG).header_timeout(LONG)
    })
    .await;
    let config = |alpn| scene.client(&scene.c1, &[alpn]);
    let configs = [config("http/1.1"), config("h2")];
    let stopping = STOPS.map(|stops| tokio::spawn(stop(stops, configs.clone(), server.address)));
    // The two that come first have no handshake.
    eventually("the last ones are connected", || server.acceptor.connections() == 5).await;
    end.send(()).unwrap();
    for (stops, client) in STOPS.into_iter().zip(stopping) {
        tokio::time::timeout(PATIENCE, client)
            .await
            .unwrap_or_else(|_| panic!("{stops:?}"))
            .unwrap();
    }
    soon(&mut server.task).await.unwrap();
    assert_eq!(seen.requests(), 0);
}

/// Of a client whose first request was on its way: it is answered, however long that takes.
#[tokio::test]
async fn a_first_request_that_comes_in_the_last_moment_is_answered() {
    let scene = Scene::new();
    let held = Held::new();
    let (end, ended) = oneshot::channel::<()>();
    let mut server = start(&scene.acceptor(LONG), held.service(), |server| {
        let when = async { ended.await.unwrap() };
        server.shutdown(when).shutdown_grace(LONG).header_timeout(LONG)
    })
    .await;
    let config = |alpn| scene.client(&scene.c1, &[alpn]);
    let configs = [config("http/1.1"), config("h2")];
    let mut asks = tls(&configs[0], server.address).await.unwrap();
    asks.write_all(b"GET / HTTP/1.1\r\nhost: loc").await.unwrap();
    let silent = tokio::spawn(stop(Stops::InTheHead, configs, server.address));
    eventually("both are connected", || server.acceptor.connections() == 2).await;
    end.send(()).unwrap();
    asks.write_all(b"alhost\r\n\r\n").await.unwrap();
    held.started(1).await;
    soon(silent).await.unwrap();
    held.go(1);
    let mut answer = String::new();
    soon(asks.read_to_string(&mut answer)).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"),
        "{answer}"
    );
    assert!(answer.ends_with("done"), "{answer}");
    soon(&mut server.task).await.unwrap();
}
