//! quinn on both ends.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use keydir_hosts::BoxError;
use keydir_hosts::quinn_client::Client;
use keydir_hosts::quinn_server::{self, ENDED, peer};
use quinn::{Connection, ConnectionError, Endpoint};

use crate::load::{Carried, Load};
use crate::scene::{Scene, name_in, uses};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A server that says who has asked; ends with the test's runtime.
fn serve(scene: &Scene) -> SocketAddr {
    let (identity, anchors) = (scene.server.identity.clone(), scene.server.anchors.clone());
    let config = quinn_server::config(&identity, &anchors).unwrap();
    let endpoint = Endpoint::server(config, LOOPBACK).unwrap();
    let address = endpoint.local_addr().unwrap();
    let served = Arc::clone(&scene.served);
    drop(tokio::spawn(quinn_server::serve(
        endpoint,
        identity,
        anchors,
        move |client, _| {
            served.fetch_add(1, SeqCst);
            name_in(client).into_bytes()
        },
    )));
    address
}

fn client(scene: &Scene, server: SocketAddr) -> Client {
    let endpoint = Endpoint::client(LOOPBACK).unwrap();
    let server = (server, "localhost".to_owned());
    Client::new(&scene.client.identity, &scene.client.anchors, endpoint, server).unwrap()
}

async fn ask(client: &Client) -> Result<String, BoxError> {
    ask_over(&client.connection().await?).await
}

async fn ask_over(connection: &Connection) -> Result<String, BoxError> {
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(b"who am I?").await?;
    send.finish()?;
    let answer = String::from_utf8(receive.read_to_end(100).await?)?;
    Ok(format!("{} {answer}", name_in(&peer(connection))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_rotate_under_load() {
    let mut scene = Scene::new();
    let client = Arc::new(client(&scene, serve(&scene)));
    let load = Load::start(move || {
        let client = Arc::clone(&client);
        async move { Ok::<_, BoxError>(Carried::from(&ask(&client).await?)) }
    });
    for _ in 0..4 {
        scene.rotate(&load).await;
    }
    load.end_well(&scene.served).await;
}

/// Something ends the client's connection: it carries no request any more, and the next one goes by what there is then.
async fn ends(mut scene: Scene, end: impl FnOnce(&mut Scene)) {
    let client = client(&scene, serve(&scene));
    assert_eq!(ask(&client).await.unwrap(), "r1 r1");
    let connection = client.connection().await.unwrap();
    let counted = [&scene.server, &scene.client].map(|end| uses(end.identity.live(), "r1"));
    assert_eq!(counted, [1, 0], "the client's report does not know of it");
    scene.stage();
    scene.promote();
    assert_eq!(ask(&client).await.unwrap(), "r1 r1");
    end(&mut scene);
    ask_over(&connection).await.unwrap_err();
    assert_eq!(scene.served.load(SeqCst), 2);
    match connection.closed().await {
        ConnectionError::ApplicationClosed(close) => assert_eq!(close.error_code, ENDED),
        other => panic!("{other:?}"),
    }
    assert_eq!(ask(&client).await.unwrap(), "r2 r2");
}

#[tokio::test]
async fn a_connection_of_a_removed_ca_is_closed() {
    ends(Scene::new(), |scene| scene.server.distrust(1)).await;
}

#[tokio::test]
async fn a_connection_of_a_retired_identity_is_closed() {
    ends(Scene::new(), |scene| scene.server.retire(1)).await;
}
