//! tonic's server over our connections.

use std::convert::Infallible;
use std::time::Duration;

use http::{Request, Response};
use keydir_hyper::{GateLayer, Incoming};
use keydir_rustls::Connection;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::transport::Server;
use tower::service_fn;

use crate::client::{get, h2};
use crate::scene::{Scene, describe, eventually, soon};

/// A method without a message that says OK.
async fn method(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let connection = request.extensions().get::<Connection>().unwrap();
    let response = Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", "0")
        .header("rests-on", describe(connection));
    Ok(response.body(Body::empty()).unwrap())
}

#[tokio::test]
async fn a_rotation_under_tonic() {
    let scene = Scene::new();
    let acceptor = scene.acceptor_of(&["h2"], Duration::from_secs(2));
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let incoming = Incoming::new(tcp, acceptor.clone());
    let address = incoming.local_addr().unwrap();
    let (end, ended) = oneshot::channel::<()>();
    let ended = async { ended.await.unwrap() };
    let serving = tokio::spawn(Server::builder().layer(GateLayer::new()).serve_with_incoming_shutdown(
        service_fn(method),
        incoming,
        ended,
    ));

    let connect = async |ca| h2(&scene.client(ca, &["h2"]), address).await;
    let ask = async |client: &mut crate::client::Conn<hyper::client::conn::http2::SendRequest<_>>| {
        let mut request = get("/test.Service/Method");
        let headers = request.headers_mut();
        headers.insert("content-type", "application/grpc".parse().unwrap());
        let response = soon(client.send.send_request(request)).await.unwrap();
        let header = |name| {
            let value = response.headers().get(name);
            value
                .map(|value| value.to_str().unwrap().to_owned())
                .unwrap_or_default()
        };
        (header("grpc-status"), header("rests-on"))
    };
    let ok = |rests_on: &str| ("0".to_owned(), rests_on.to_owned());

    let mut old = connect(&scene.c1).await;
    assert_eq!(ask(&mut old).await, ok("r1 c1"));
    scene.promote();
    assert_eq!(ask(&mut old).await, ok("r1 c1"));
    let mut new = connect(&scene.c1).await;
    assert_eq!(ask(&mut new).await, ok("r2 c1"));
    scene.retire();
    assert_eq!(ask(&mut old).await, ok("r1 c1"), "served until the end of the grace");
    let _ = soon(old.end).await.unwrap();

    let mut stays = connect(&scene.c2).await;
    scene.remove_c1();
    assert_eq!(ask(&mut new).await, ("14".to_owned(), String::new()));
    let _ = soon(new.end).await.unwrap();
    assert_eq!(ask(&mut stays).await, ok("r2 c2"));

    end.send(()).unwrap();
    soon(serving).await.unwrap().unwrap();
    eventually("no connection is left", || acceptor.connections() == 0).await;
}
