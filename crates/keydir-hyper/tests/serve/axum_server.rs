//! axum-server over our acceptor.

use std::net::SocketAddr;
use std::time::Duration;

use axum_server::Handle;
use keydir_hyper::AxumAcceptor;

use axum_server::service::MakeService;
use tower::make::Shared;

use crate::client::{closes, get, get1, h1, h2, text};
use crate::scene::{Scene, Seen, about, eventually, soon};

fn is_make_service<M: MakeService<SocketAddr, http::Request<hyper::body::Incoming>>>(make: M) -> M {
    make
}

#[tokio::test]
async fn a_rotation_under_axum_server() {
    let scene = Scene::new();
    // Long: what ends within the test was shut down, not cut.
    let grace = Duration::from_secs(4);
    let acceptor = scene.acceptor(grace);
    let seen = std::sync::Arc::new(Seen::default());
    let handle = Handle::new();
    let server = axum_server::bind("127.0.0.1:0".parse::<SocketAddr>().unwrap())
        .handle(handle.clone())
        .acceptor(AxumAcceptor::new(acceptor.clone()));
    let service = is_make_service(Shared::new(about(&seen)));
    let serving = tokio::spawn(server.serve(service));
    let address = soon(handle.listening()).await.unwrap();

    let config = |ca, alpn| scene.client(ca, &[alpn]);
    let mut one = h1(&config(&scene.c1, "http/1.1"), address).await;
    let mut two = h2(&config(&scene.c1, "h2"), address).await;
    assert_eq!(
        text(soon(one.send.send_request(get1("/"))).await.unwrap()).await,
        "r1 c1"
    );
    assert_eq!(
        text(soon(two.send.send_request(get("/"))).await.unwrap()).await,
        "r1 c1"
    );

    // Our identity rotates: HTTP/1 is told with the answer, HTTP/2 by GOAWAY.
    scene.promote();
    let mut new = h2(&config(&scene.c1, "h2"), address).await;
    assert_eq!(
        text(soon(new.send.send_request(get("/"))).await.unwrap()).await,
        "r2 c1"
    );
    scene.retire();
    let last = soon(one.send.send_request(get1("/"))).await.unwrap();
    assert!(closes(&last));
    assert_eq!(text(last).await, "r1 c1");
    soon(one.end).await.unwrap().unwrap();
    soon(two.end).await.unwrap().unwrap();

    // The clients' CA is removed: the refusal is the last answer.
    let mut stays = h2(&config(&scene.c2, "h2"), address).await;
    scene.remove_c1();
    let refused = soon(new.send.send_request(get("/"))).await.unwrap();
    assert_eq!(refused.status(), 421);
    soon(new.end).await.unwrap().unwrap();
    assert_eq!(
        text(soon(stays.send.send_request(get("/"))).await.unwrap()).await,
        "r2 c2"
    );
    assert_eq!(seen.requests(), 5);

    // Nothing is left behind by a connection that has gone.
    drop(stays);
    eventually("no connection is left", || acceptor.connections() == 0).await;
    handle.shutdown();
    soon(serving).await.unwrap().unwrap();
}
