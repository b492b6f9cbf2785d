//! What the pool does when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keydir_hyper::{Builder, Client};
use keydir_rustls::{Identity, client_config};

use crate::support::*;

fn soon(ca: &Ca, identity: &Identity) -> Builder {
    Client::builder(client_config(&ca.anchors().1).identity(identity)).promotion_window(Duration::from_millis(1))
}

#[tokio::test]
async fn a_promotion_is_taken_up_within_the_window_and_a_removal_at_once() {
    let ca = Ca::new("the ca");
    let server = Server::start(&ca.leaf("server"), &ca, &["h2", "http/1.1"]).await;
    let (one, two, three) = (ca.leaf("r1"), ca.leaf("r2"), ca.leaf("r3"));
    let (dir, identity) = identity("r1", &one);
    let client = soon(&ca, &identity).build().unwrap();
    assert_eq!(carried_by(&client, server.uri("/")).await, "r1");
    assert_eq!(server.seen.handshakes(), 1);

    dir.publish(files(("r1", &one), &[("r2", &two)])).unwrap();
    assert_eq!(carried_by(&client, server.uri("/")).await, "r1");
    assert_eq!(server.seen.handshakes(), 1, "what is only staged changes nothing");

    dir.publish(files(("r2", &two), &[("r1", &one)])).unwrap();
    while carried_by(&client, server.uri("/")).await == "r1" {}
    assert_eq!(server.seen.handshakes(), 2, "one connection was made ahead");

    // Both at once: nobody waits for the window.
    dir.publish(files(("r3", &three), &[])).unwrap();
    assert_eq!(carried_by(&client, server.uri("/")).await, "r3");
}

/// Under load, where the pool alone would let each waiting request shake hands for itself.
#[tokio::test]
async fn http2_shakes_hands_once_for_each_swap() {
    let ca = Ca::new("the ca");
    let server = Server::start(&ca.leaf("server"), &ca, &["h2", "http/1.1"]).await;
    let (dir, identity) = identity("r1", &ca.leaf("r1"));
    let client = soon(&ca, &identity).build().unwrap();
    carried_by(&client, server.uri("/")).await;
    // It is known from now on which HTTP it is.
    let mut leaf = ca.leaf("r2");
    dir.publish(files(("r2", &leaf), &[])).unwrap();
    carried_by(&client, server.uri("/")).await;
    assert_eq!(server.seen.handshakes(), 2);

    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let (client, uri, stop) = (client.clone(), server.uri("/"), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    carried_by(&client, uri.clone()).await;
                }
            })
        })
        .collect();
    for swap in 3..10 {
        let (old, new) = (format!("r{}", swap - 1), format!("r{swap}"));
        let next = ca.leaf(&new);
        if swap % 2 == 0 {
            dir.publish(files((&new, &next), &[(&old, &leaf)])).unwrap();
            until("it is taken up", || server.seen.carried(&new) > 10).await;
        }
        dir.publish(files((&new, &next), &[])).unwrap();
        until("it is taken up", || server.seen.carried(&new) > 20).await;
        assert_eq!(server.seen.handshakes(), swap);
        leaf = next;
    }
    stop.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.await.unwrap();
    }
}

#[tokio::test]
async fn a_promotion_waits_until_the_server_can_be_connected_to() {
    for alpn in ["http/1.1", "h2"] {
        let ca = Ca::new("the ca");
        let mut server = Server::start(&ca.leaf("server"), &ca, &[alpn]).await;
        let (one, two) = (ca.leaf("r1"), ca.leaf("r2"));
        let (dir, identity) = identity("r1", &one);
        let client = soon(&ca, &identity).build().unwrap();
        carried_by(&client, server.uri("/")).await;
        server.stop_accepting().await;

        dir.publish(files(("r2", &two), &[("r1", &one)])).unwrap();
        for _ in 0..100 {
            assert_eq!(carried_by(&client, server.uri("/")).await, "r1", "{alpn}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        server.accept_again().await;
        while carried_by(&client, server.uri("/")).await == "r1" {}
        assert_eq!(server.seen.handshakes(), 2, "{alpn}");
    }
}

/// A server that takes connections and says nothing keeps nobody from closing what is revoked.
#[tokio::test]
async fn a_revocation_does_not_wait_for_a_promotion_that_hangs() {
    let ca = Ca::new("the ca");
    let server = Server::start(&ca.leaf("server"), &ca, &["h2"]).await;
    let (one, two) = (ca.leaf("r1"), ca.leaf("r2"));
    let (dir, identity) = identity("r1", &one);
    let client = soon(&ca, &identity).build().unwrap();
    carried_by(&client, server.uri("/")).await;
    server.hold(true);
    dir.publish(files(("r2", &two), &[("r1", &one)])).unwrap();
    until("it is dialled", || server.seen.open() == 2).await;
    dir.publish(files(("r2", &two), &[])).unwrap();
    let closed = tokio::time::timeout(
        Duration::from_secs(4),
        until("the pooled one closes", || server.seen.open() == 1),
    );
    closed.await.unwrap();
    server.release();
    assert_eq!(carried_by(&client, server.uri("/")).await, "r2");
}

#[tokio::test]
async fn what_was_dialled_ahead_for_nobody_closes() {
    let ca = Ca::new("the ca");
    let server = Server::start(&ca.leaf("server"), &ca, &["http/1.1"]).await;
    let (one, two) = (ca.leaf("r1"), ca.leaf("r2"));
    let (dir, identity) = identity("r1", &one);
    let client = soon(&ca, &identity).build().unwrap();
    carried_by(&client, server.uri("/")).await;
    dir.publish(files(("r2", &two), &[("r1", &one)])).unwrap();
    until("it is dialled", || server.seen.handshakes() == 2).await;
    until("it closes", || server.seen.open() == 0).await;
}

#[tokio::test]
async fn connections_have_a_maximum_age() {
    for alpn in ["http/1.1", "h2"] {
        let ca = Ca::new("the ca");
        let server = Server::start(&ca.leaf("server"), &ca, &[alpn]).await;
        let (_, identity) = identity("r1", &ca.leaf("r1"));
        let client = soon(&ca, &identity).max_age(Duration::ZERO).build().unwrap();
        carried_by(&client, server.uri("/")).await;
        while server.seen.handshakes() < 3 {
            carried_by(&client, server.uri("/")).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(server.seen.requests() > 10, "{alpn}: it is no more than one a second");
        until("the old ones close", || server.seen.open() <= 2).await;
    }
}

#[tokio::test]
async fn nothing_is_left_of_a_client_that_is_dropped() {
    let ca = Ca::new("the ca");
    let server = Server::start(&ca.leaf("server"), &ca, &["h2"]).await;
    let (dir, identity) = identity("r1", &ca.leaf("r1"));
    let client = soon(&ca, &identity).promotion_window(Duration::MAX).build().unwrap();
    carried_by(&client, server.uri("/")).await;
    dir.publish(files(("r2", &ca.leaf("r2")), &[("r1", &ca.leaf("r1"))]))
        .unwrap();
    carried_by(&client, server.uri("/")).await;
    let connector = client.connector().clone();
    drop(client);
    until("it closes", || server.seen.open() == 0 && connector.connections() == 0).await;
    let tasks = tokio::runtime::Handle::current().metrics();
    // The server's, and the connector's own.
    until("tasks end", || tasks.num_alive_tasks() <= 2).await;
}
