//! What the pool does when.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use keydir_hyper::Client;
use keydir_rustls::client_config;

use crate::support::{Ca, Server, files, identity};

async fn carried_by(client: &Client<Empty<Bytes>>, server: &Server) -> String {
    let response = client.get(server.uri("/")).await.unwrap();
    let carried = response.extensions().get::<keydir_rustls::Connection>().unwrap();
    let id = carried.identity().unwrap().id().as_str().to_owned();
    assert_eq!(carried.peer().unwrap().ca().unwrap().as_str(), "c1");
    let told = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(told, id.as_bytes());
    id
}

#[tokio::test]
async fn a_promotion_is_taken_up_within_the_window_and_a_removal_at_once() {
    let ca = Ca::new("the ca");
    let server = Server::start(&ca.leaf("server"), &ca, &["h2", "http/1.1"]).await;
    let (_, anchors) = ca.anchors();
    let (one, two, three) = (ca.leaf("r1"), ca.leaf("r2"), ca.leaf("r3"));
    let (dir, identity) = identity("r1", &one);
    let client = Client::builder(client_config(&anchors).identity(&identity))
        .promotion_window(Duration::from_millis(1))
        .build()
        .unwrap();
    assert_eq!(carried_by(&client, &server).await, "r1");
    assert_eq!(server.seen.handshakes.load(Ordering::SeqCst), 1);

    dir.publish(files(("r1", &one), &[("r2", &two)])).unwrap();
    assert_eq!(carried_by(&client, &server).await, "r1");
    assert_eq!(
        server.seen.handshakes.load(Ordering::SeqCst),
        1,
        "what is only staged changes nothing"
    );

    dir.publish(files(("r2", &two), &[("r1", &one)])).unwrap();
    while carried_by(&client, &server).await == "r1" {}
    assert_eq!(
        server.seen.handshakes.load(Ordering::SeqCst),
        2,
        "one connection was made ahead"
    );

    // Both at once: nobody waits for the window.
    dir.publish(files(("r3", &three), &[])).unwrap();
    assert_eq!(carried_by(&client, &server).await, "r3");
}
