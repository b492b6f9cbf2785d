//! reqwest against plain hyper.

use std::sync::Arc;

use http::header::LOCATION;
use http::{Request, StatusCode, Uri};
use keydir_hosts::BoxError;
use keydir_hosts::hyper_server;
use keydir_hosts::reqwest_client::Client;
use keydir_rustls::client_config;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::service_fn;

use crate::load::{Carried, Load};
use crate::scene::Scene;

pub(crate) async fn get(client: &Client, uri: &Uri) -> Result<String, reqwest::Error> {
    let url = uri.to_string();
    let response = client.send(|client| client.get(&url)).await?;
    response.error_for_status()?.text().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_rotate_under_load() {
    let mut scene = Scene::new();
    let uri = crate::hyper::serve(&scene).await;
    let client = Client::new(&scene.client.identity, &scene.client.anchors).unwrap();
    let load = Load::start(move || {
        let (client, uri) = (client.clone(), uri.clone());
        async move { Ok::<_, reqwest::Error>(Carried::from(&get(&client, &uri).await?)) }
    });
    for _ in 0..4 {
        scene.rotate(&load).await;
    }
    load.end_well(&scene.served).await;
}

/// The way without keydir's help: one client for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_never_made_anew_goes_on_with_what_was_removed() {
    let mut scene = Scene::new();
    let uri = crate::hyper::serve(&scene).await.to_string();
    let tls = client_config(&scene.client.anchors).identity(&scene.client.identity);
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls.build().unwrap());
    let client = client.build().unwrap();
    let load = Load::start(move || {
        let request = client.get(&uri);
        async move { Ok::<_, reqwest::Error>(Carried::from(&request.send().await?.text().await?)) }
    });
    scene.stage();
    load.more().await;
    scene.promote();
    scene.client.retire(1);
    load.clients_from(2);
    load.more().await;
    let counts = load.end().await;
    assert!(counts.failed == 0 && counts.violations >= 60, "{counts:?}");
}

/// A limit: reqwest follows redirects with the client that the request began with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_goes_out_where_its_request_has_begun() {
    let mut scene = Scene::new();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = |path: &str| format!("https://localhost:{}{path}", tcp.local_addr().unwrap().port());
    let (begins, root) = (uri("/begins").parse().unwrap(), uri("/").parse().unwrap());
    let [asked, released] = [(); 2].map(|()| Arc::new(Semaphore::new(0)));
    let (ask, release, served) = (Arc::clone(&asked), Arc::clone(&released), Arc::clone(&scene.served));
    let service = service_fn(move |request: Request<_>| {
        let mut answer = crate::hyper::whoami(&served, &request);
        let (ask, release) = (Arc::clone(&ask), Arc::clone(&release));
        async move {
            if request.uri().path() == "/begins" {
                ask.add_permits(1);
                drop(release.acquire().await);
                *answer.status_mut() = StatusCode::FOUND;
                answer.headers_mut().insert(LOCATION, "/".parse()?);
            }
            Ok::<_, BoxError>(answer)
        }
    });
    let (identity, anchors) = (scene.server.identity.clone(), scene.server.anchors.clone());
    drop(tokio::spawn(async move {
        hyper_server::serve(tcp, &identity, &anchors, service).await.unwrap();
    }));

    let client = Client::new(&scene.client.identity, &scene.client.anchors).unwrap();
    let first = client.clone();
    let first = tokio::spawn(async move { get(&first, &begins).await });
    drop(asked.acquire().await.unwrap());
    scene.stage();
    scene.promote();
    scene.client.retire(1);
    released.add_permits(1);
    assert_eq!(first.await.unwrap().unwrap(), "r1 CN=r1");
    assert_eq!(get(&client, &root).await.unwrap(), "r2 CN=r2");
}
