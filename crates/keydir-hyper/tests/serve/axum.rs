//! `axum::serve` over our listener.

use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::routing::get as route;
use axum::{Extension, Router};
use keydir_hyper::{ConnectionInfo, GateLayer, Listener};
use keydir_rustls::{Acceptor, Connection};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::client::{closes, get, get1, h1, h2, text, tls};
use crate::scene::{LONG, Scene, describe, eventually, soon};

async fn hello(Extension(connection): Extension<Connection>, ConnectInfo(info): ConnectInfo<ConnectionInfo>) -> String {
    assert!(info.remote_addr().ip().is_loopback());
    assert_eq!(describe(&connection), describe(info.connection()));
    describe(&connection)
}

async fn start(acceptor: &Acceptor, end: oneshot::Receiver<()>) -> std::net::SocketAddr {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = Listener::new(tcp, acceptor.clone());
    let address = axum::serve::Listener::local_addr(&listener).unwrap();
    let router = Router::new().route("/", route(hello)).layer(GateLayer::new());
    let service = router.into_make_service_with_connect_info::<ConnectionInfo>();
    tokio::spawn(async move {
        let ended = async { end.await.unwrap_or(()) };
        axum::serve(listener, service).with_graceful_shutdown(ended).await
    });
    address
}

#[tokio::test]
async fn a_rotation_under_axum_serve() {
    let scene = Scene::new();
    let acceptor = scene.acceptor(Duration::from_secs(1));
    let (_end, ended) = oneshot::channel();
    let address = start(&acceptor, ended).await;
    // Whoever is silent keeps nobody waiting.
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let config = |ca, alpn| scene.client(ca, &[alpn]);
    let mut one = h1(&config(&scene.c1, "http/1.1"), address).await;
    let mut two = h2(&config(&scene.c1, "h2"), address).await;
    let mut stays = h2(&config(&scene.c2, "h2"), address).await;
    assert_eq!(
        text(soon(one.send.send_request(get1("/"))).await.unwrap()).await,
        "r1 c1"
    );
    assert_eq!(
        text(soon(two.send.send_request(get("/"))).await.unwrap()).await,
        "r1 c1"
    );

    // Our identity rotates.
    scene.promote();
    let mut new = h1(&config(&scene.c1, "http/1.1"), address).await;
    assert_eq!(
        text(soon(new.send.send_request(get1("/"))).await.unwrap()).await,
        "r2 c1"
    );
    assert_eq!(
        text(soon(stays.send.send_request(get("/"))).await.unwrap()).await,
        "r1 c2"
    );
    scene.retire();
    let last = soon(one.send.send_request(get1("/"))).await.unwrap();
    assert!(closes(&last));
    assert_eq!(text(last).await, "r1 c1");
    soon(one.end).await.unwrap().unwrap();
    let _ = soon(two.end).await.unwrap();
    let _ = soon(stays.end).await.unwrap();

    // The clients' CA is removed.
    let mut stays = h2(&config(&scene.c2, "h2"), address).await;
    scene.remove_c1();
    let refused = soon(new.send.send_request(get1("/"))).await.unwrap();
    assert_eq!(refused.status(), 421);
    assert!(closes(&refused));
    soon(new.end).await.unwrap().unwrap();
    assert_eq!(
        text(soon(stays.send.send_request(get("/"))).await.unwrap()).await,
        "r2 c2"
    );
    drop(silent);
}

#[tokio::test]
async fn the_listener_ends_with_axum() {
    let scene = Scene::new();
    let acceptor = scene.acceptor(LONG);
    let (end, ended) = oneshot::channel();
    let address = start(&acceptor, ended).await;
    let config = scene.client(&scene.c1, &["http/1.1"]);
    let client = h1(&config, address).await;
    end.send(()).unwrap();
    let refused = async { while tls(&config, address).await.is_ok() {} };
    soon(refused).await;
    let _ = soon(client.end).await.unwrap();
    eventually("no connection is left", || acceptor.connections() == 0).await;
}

/// Dropped and called again, `accept` loses no connection.
#[tokio::test]
async fn accept_is_cancel_safe() {
    let scene = Scene::new();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut listener = Listener::new(tcp, scene.acceptor(LONG));
    let address = axum::serve::Listener::local_addr(&listener).unwrap();
    let config = scene.client(&scene.c1, &["http/1.1"]);
    for _ in 0..20 {
        let client = tokio::spawn({
            let config = config.clone();
            async move { tls(&config, address).await.unwrap() }
        });
        let accepted = soon(async {
            loop {
                tokio::select! {
                    biased;
                    accepted = axum::serve::Listener::accept(&mut listener) => break accepted,
                    () = tokio::task::yield_now() => {}
                }
            }
        });
        let (stream, remote) = accepted.await;
        let client = soon(client).await.unwrap();
        assert_eq!(client.get_ref().0.local_addr().unwrap(), remote);
        assert_eq!(describe(stream.connection()), "r1 c1");
    }
}
