//! actix-web, with plain hyper as its client.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use actix_web::HttpRequest;
use actix_web::web::{Data, ServiceConfig, get as on_get};
use bytes::Bytes;
use http::{StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use keydir_hosts::actix_server::{self, Client as Shown};
use keydir_hosts::{BoxError, hyper_client};
use keydir_hyper::Client;
use keydir_rustls::Connection;

use crate::load::{Carried, Load};
use crate::scene::{Scene, name_in, uses};

/// Says who has asked, and from where; the server's side does not know what it has presented.
async fn whoami(request: HttpRequest, served: Data<AtomicUsize>) -> String {
    served.fetch_add(1, SeqCst);
    let client = request.conn_data::<Shown>().unwrap();
    format!("{} {}", name_in(&client.0), request.peer_addr().unwrap())
}

/// A server; ends with the test's runtime.
fn serve(scene: &Scene) -> Uri {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    let served = Data::from(Arc::clone(&scene.served));
    let routes = move |config: &mut ServiceConfig| {
        config.app_data(served.clone()).route("/", on_get().to(whoami));
    };
    let server = actix_server::server(tcp, &scene.server.identity, &scene.server.anchors, routes);
    drop(tokio::spawn(server.unwrap()));
    format!("https://localhost:{port}/").parse().unwrap()
}

fn client(scene: &Scene) -> Client<Full<Bytes>> {
    hyper_client::client(&scene.client.identity, &scene.client.anchors).unwrap()
}

/// Who has answered, as the client sees it, and the answer.
async fn get(client: &Client<Full<Bytes>>, uri: &Uri) -> Result<(String, String), BoxError> {
    let response = client.get(uri.clone()).await?;
    if response.status() != StatusCode::OK {
        return Err(response.status().to_string().into());
    }
    let server = response
        .extensions()
        .get::<Connection>()
        .unwrap()
        .peer()
        .unwrap()
        .subject();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((server, String::from_utf8(body.into())?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_rotate_under_load() {
    let mut scene = Scene::new();
    let uri = serve(&scene);
    let client = client(&scene);
    let load = Load::start(move || {
        let (client, uri) = (client.clone(), uri.clone());
        async move {
            let (server, answer) = get(&client, &uri).await?;
            let (client, _) = answer.split_once(' ').unwrap();
            Ok::<_, BoxError>(Carried::from(&format!("{server} {client}")))
        }
    });
    for _ in 0..4 {
        scene.rotate(&load).await;
    }
    load.end_well(&scene.served).await;
}

#[tokio::test]
async fn a_client_of_a_removed_ca_is_refused_on_the_connection_that_it_has() {
    let mut scene = Scene::new();
    let uri = serve(&scene);
    let client = client(&scene);
    get(&client, &uri).await.unwrap();
    scene.stage();
    scene.promote();
    scene.server.distrust(1);
    let response = client.get(uri.clone()).await.unwrap();
    assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(scene.served.load(SeqCst), 1);
}

#[tokio::test]
async fn a_connection_of_a_retired_identity_lives_on() {
    let mut scene = Scene::new();
    let uri = serve(&scene);
    let client = client(&scene);
    let (server, first) = get(&client, &uri).await.unwrap();
    assert_eq!(server, "CN=r1");
    let counted = uses(scene.server.identity.live(), "r1");
    assert_eq!(counted, 0, "the report does not know of it");
    scene.stage();
    scene.promote();
    scene.server.retire(1);
    assert_eq!(
        get(&client, &uri).await.unwrap(),
        (server, first),
        "the same certificate, on the same connection"
    );
}
