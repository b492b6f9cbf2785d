//! Plain hyper on both ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use keydir_hosts::{BoxError, hyper_client, hyper_server};
use keydir_hyper::Client;
use keydir_rustls::Connection;
use tokio::net::TcpListener;
use tower::service_fn;

use crate::load::{Carried, Load};
use crate::scene::Scene;

/// A server that says who has asked whom; ends with the test's runtime.
pub(crate) async fn serve(scene: &Scene) -> Uri {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = tcp.local_addr().unwrap().port();
    let (identity, anchors) = (scene.server.identity.clone(), scene.server.anchors.clone());
    let served = Arc::clone(&scene.served);
    let whoami = service_fn(move |request: Request<_>| {
        let answer = whoami(&served, &request);
        async move { Ok::<_, BoxError>(answer) }
    });
    drop(tokio::spawn(async move {
        hyper_server::serve(tcp, &identity, &anchors, whoami).await.unwrap();
    }));
    format!("https://localhost:{port}/").parse().unwrap()
}

pub(crate) fn whoami<B>(served: &AtomicUsize, request: &Request<B>) -> Response<Full<Bytes>> {
    let answer = Scene::describe(served, request.extensions().get::<Connection>());
    Response::new(answer.into())
}

pub(crate) async fn get(client: &Client<Full<Bytes>>, uri: &Uri) -> Result<String, BoxError> {
    let response = client.get(uri.clone()).await?;
    if response.status() != StatusCode::OK {
        return Err(response.status().to_string().into());
    }
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.into())?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_rotate_under_load() {
    let mut scene = Scene::new();
    let uri = serve(&scene).await;
    let client = hyper_client::client(&scene.client.identity, &scene.client.anchors).unwrap();
    let load = Load::start(move || {
        let (client, uri) = (client.clone(), uri.clone());
        async move { Ok::<_, BoxError>(Carried::from(&get(&client, &uri).await?)) }
    });
    for _ in 0..4 {
        scene.rotate(&load).await;
    }
    load.end_well(&scene.served).await;
}

#[tokio::test]
async fn a_client_of_a_removed_ca_is_refused_on_the_connection_that_it_has() {
    let mut scene = Scene::new();
    let uri = serve(&scene).await;
    let client = hyper_client::client(&scene.client.identity, &scene.client.anchors).unwrap();
    assert_eq!(get(&client, &uri).await.unwrap(), "r1 CN=r1");
    scene.stage();
    scene.promote();
    scene.server.distrust(1);
    let response = client.get(uri).await.unwrap();
    assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(scene.served.load(SeqCst), 1);
    scene.server.until_unused(1).await;
}
