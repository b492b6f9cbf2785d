//! What ends a connection and when, where that is not plain: at the edges of the grace, of runtimes and of handshakes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keydir::Dir;
use keydir_rustls::{Connection, Ended, Identity, client_config, server_config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::connections::*;
use crate::support::*;

/// The peer reads nothing, so that the end cannot be told.
#[tokio::test]
async fn a_shutdown_does_not_outlive_the_grace() {
    let scene = Scene::new();
    let acceptor = acceptor(&scene, WAYS[0]);
    let (_client, mut server) = meet(&connector(&scene, &scene.c1, WAYS[0]), &acceptor).await.unwrap();
    let connection = server.connection().clone();
    let full = async {
        loop {
            server.write_all(&[0; 4096]).await.unwrap();
        }
    };
    tokio::select! {
        biased;
        () = full => {}
        () = std::future::ready(()) => {}
    }
    scene.remove_c1();
    timeout(PATIENCE, connection.ended()).await.unwrap();
    let error = timeout(PATIENCE, server.shutdown()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
    drop(server);
    assert_eq!(acceptor.connections(), 0);
}

#[tokio::test]
async fn a_shutdown_after_the_grace_tells_the_peer() {
    let scene = Scene::new();
    let acceptor = acceptor(&scene, WAYS[0]);
    let (mut client, mut server) = meet(&connector(&scene, &scene.c1, WAYS[0]), &acceptor).await.unwrap();
    scene.remove_c1();
    let error = timeout(PATIENCE, server.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
    server.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "a close_notify");
}

#[tokio::test]
async fn the_longest_grace_cuts_nothing() {
    let scene = Scene::new();
    let acceptor = acceptor(&scene, WAYS[0]).with_grace(Duration::MAX);
    let (mut client, mut server) = meet(&connector(&scene, &scene.c1, WAYS[0]), &acceptor).await.unwrap();
    scene.remove_c1();
    timeout(PATIENCE, server.connection().ended()).await.unwrap();
    server.write_all(b"?").await.unwrap();
    server.flush().await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'?');
}

/// What looks after connections ran on the runtime that has gone.
#[test]
fn connections_of_another_runtime_are_told_of_what_happened_meanwhile() {
    let scene = Scene::new();
    let acceptor = acceptor(&scene, WAYS[0]);
    let (first, second) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    let of = |ca| connector(&scene, ca, WAYS[0]);
    let _first = first.block_on(meet(&of(&scene.c1), &acceptor)).unwrap();
    let (_client, server) = second.block_on(meet(&of(&scene.c1), &acceptor)).unwrap();
    drop(first);
    scene.remove_c1();
    second.block_on(async {
        let _new = meet(&of(&scene.c2), &acceptor).await.unwrap();
        let why = timeout(PATIENCE, server.connection().ended()).await.unwrap();
        assert!(matches!(why, Ended::Peer { .. }), "{why:?}");
    });
}

/// Two revisions of an identity, of which this one is the primary.
fn marked(primary: &str, leaves: &[(&str, &Leaf)]) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for (id, leaf) in leaves {
        let mark = if *id == primary { ".primary" } else { "" };
        files.push((format!("{id}.crt{mark}"), leaf.crt.clone()));
        files.push((format!("{id}.key"), leaf.key.clone()));
    }
    files
}

/// Who rotates waits for it to go, so that it has to know that it is to go.
#[tokio::test]
async fn a_connection_whose_handshake_a_promotion_overtakes_is_superseded() {
    for way in WAYS {
        let scene = Scene::new();
        let (r1, r2) = (scene.root.leaf(NAME), scene.root.leaf(NAME));
        let both = [("r1", &r1), ("r2", &r2)];
        let own = Dir::in_memory(marked("r1", &both));
        let builder = server_config(&Identity::in_dir(&own).unwrap()).require_client(&scene.anchors);
        let builder = builder.versions(way.versions);
        let builder = if way.tickets { builder.tickets() } else { builder };
        let acceptor = builder.acceptor().unwrap();
        let accepted = straddle(
            &in_small_records(&scene, way),
            async |io| acceptor.accept(io).await,
            || own.publish(marked("r2", &both)).unwrap(),
        )
        .await;
        let tls = accepted.unwrap();
        let id = |connection: &Connection| connection.identity().unwrap().id().to_string();
        assert_eq!(id(tls.connection()), "r1");
        assert!(tls.connection().stands() && tls.connection().is_superseded(), "{way:?}");
    }
}

/// Other content under the same id takes nothing away; a marker of that id does.
#[tokio::test]
async fn a_marker_reaches_what_rests_on_the_former_content_of_its_id() {
    let scene = Scene::new();
    let leaves = [(); 3].map(|()| scene.root.leaf(NAME));
    let [first, second, other] = leaves.each_ref();
    let own = Dir::in_memory(first.files("tls"));
    let acceptor = server_config(&Identity::in_dir(&own).unwrap())
        .require_client(&scene.anchors)
        .acceptor()
        .unwrap();
    let connector = connector(&scene, &scene.c1, WAYS[0]);
    let (_client, old) = meet(&connector, &acceptor).await.unwrap();
    own.publish(second.files("tls")).unwrap();
    let (_client, new) = meet(&connector, &acceptor).await.unwrap();
    assert!(old.connection().stands() && new.connection().stands());
    assert!(old.connection().is_superseded());

    let mut files = marked("r2", &[("tls", second), ("r2", other)]);
    files.push(("tls.revoked".to_owned(), String::new()));
    own.publish(files).unwrap();
    for tls in [old, new] {
        let why = timeout(PATIENCE, tls.connection().ended()).await.unwrap();
        assert!(matches!(&why, Ended::Identity(id) if id.as_str() == "tls"), "{why:?}");
    }
}

/// As with files of fixed names, whose content is renewed for years.
#[tokio::test]
async fn a_former_content_that_nothing_rests_on_is_not_kept() {
    let scene = Scene::new();
    let own = Dir::in_memory(scene.c1.leaf("client").files("tls"));
    let identity = Identity::in_dir(&own).unwrap();
    let connector = client_config(&scene.server_ca).identity(&identity).connector().unwrap();
    let acceptor = acceptor(&scene, WAYS[0]);
    let mut former = Vec::new();
    for _ in 0..3 {
        drop(meet(&connector, &acceptor).await.unwrap());
        former.push(Arc::downgrade(&identity.primary().unwrap()));
        own.publish(scene.c1.leaf("client").files("tls")).unwrap();
    }
    drop(meet(&connector, &acceptor).await.unwrap());
    assert!(former.iter().all(|key| key.strong_count() == 0), "{former:?}");
}

#[tokio::test]
async fn a_rule_that_panics_refuses_and_keeps_no_other_connection_alive() {
    let scene = Scene::new();
    let panics = Arc::new(AtomicBool::new(false));
    let rule = Arc::clone(&panics);
    let anchors = scene.anchors.only(move |_| {
        assert!(!rule.load(Ordering::SeqCst), "a fault of the application");
        true
    });
    let builder = server_config(&scene.server_identity).require_client(&anchors);
    let acceptor = builder.acceptor().unwrap();
    let connector = connector(&scene, &scene.c1, WAYS[0]);
    let (_client, first) = meet(&connector, &acceptor).await.unwrap();
    let (_client, second) = meet(&connector, &acceptor).await.unwrap();
    panics.store(true, Ordering::SeqCst);
    acceptor.recheck();
    for tls in [first, second] {
        timeout(PATIENCE, tls.connection().ended()).await.unwrap();
    }
    assert!(meet(&connector, &acceptor).await.is_err());
}

/// A connection that ends for our own sake goes on answering, so it has to know of the peer.
#[tokio::test]
async fn a_peer_can_lose_its_trust_after_our_identity_was_revoked() {
    let scene = Scene::new();
    let (r1, r2) = (scene.root.leaf(NAME), scene.root.leaf(NAME));
    let own = Dir::in_memory(r1.files("r1"));
    let builder = server_config(&Identity::in_dir(&own).unwrap()).require_client(&scene.anchors);
    let acceptor = builder.acceptor().unwrap();
    let connector = connector(&scene, &scene.c1, WAYS[0]);
    let (_client, server) = meet(&connector, &acceptor).await.unwrap();
    let connection = server.connection();
    assert!(connection.stands() && connection.peer_stands());
    own.publish(r2.files("r2")).unwrap();
    assert!(!connection.stands() && connection.peer_stands());
    scene.remove_c1();
    assert!(!connection.peer_stands());
    assert!(
        matches!(connection.why(), Some(Ended::Identity(_))),
        "the first reason stays"
    );
}
