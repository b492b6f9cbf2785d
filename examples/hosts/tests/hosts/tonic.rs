//! tonic on both ends.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use http::Uri;
use keydir_hosts::whoami::{Answer, WhoamiClient, WhoamiServer};
use keydir_hosts::{tonic_client, tonic_server};
use keydir_hyper::Swap;
use keydir_rustls::Connection;
use tokio::net::TcpListener;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::load::{Carried, Load};
use crate::scene::Scene;

/// For ever, in a test.
const LONG: Duration = Duration::from_secs(3600);

/// A server that says who has asked whom; ends with the test's runtime.
pub(crate) async fn serve(scene: &Scene, max_age: Duration) -> Uri {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = tcp.local_addr().unwrap().port();
    let (identity, anchors) = (scene.server.identity.clone(), scene.server.anchors.clone());
    let served = Arc::clone(&scene.served);
    let whoami = WhoamiServer::new(move |request: &Request<()>| {
        let said = Scene::describe(&served, request.extensions().get::<Connection>());
        let (server, client) = said.split_once(' ').unwrap();
        Ok(Answer {
            server: server.to_owned(),
            client: client.to_owned(),
        })
    });
    drop(tokio::spawn(async move {
        tonic_server::serve(tcp, &identity, &anchors, whoami, max_age)
            .await
            .unwrap();
    }));
    format!("https://localhost:{port}").parse().unwrap()
}

fn client(scene: &Scene, uri: &Uri) -> WhoamiClient<Swap<Channel>> {
    let channel = tonic_client::channel(&scene.client.identity, &scene.client.anchors, uri.clone());
    WhoamiClient::new(channel.unwrap())
}

async fn ask(client: &WhoamiClient<Swap<Channel>>) -> Result<String, Status> {
    let Answer { server, client } = client.clone().ask().await?;
    Ok(format!("{server} {client}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_rotate_under_load() {
    let mut scene = Scene::new();
    let uri = serve(&scene, LONG).await;
    let client = client(&scene, &uri);
    let load = Load::start(move || {
        let client = client.clone();
        async move { Ok::<_, Status>(Carried::from(&ask(&client).await?)) }
    });
    for _ in 0..4 {
        scene.rotate(&load).await;
    }
    load.end_well(&scene.served).await;
}

#[tokio::test]
async fn a_client_of_a_removed_ca_is_refused_on_the_connection_that_it_has() {
    let mut scene = Scene::new();
    let uri = serve(&scene, LONG).await;
    let client = client(&scene, &uri);
    assert_eq!(ask(&client).await.unwrap(), "r1 CN=r1");
    scene.stage();
    scene.promote();
    scene.server.distrust(1);
    let refused = ask(&client).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert_eq!(scene.served.load(SeqCst), 1);
    // There is no GOAWAY; the connection is cut at the end of the grace.
    scene.server.until_unused(1).await;
}
