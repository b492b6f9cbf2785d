//! The CA that the client trusts; the server is a plain one, and says which of its own leaves each request came to.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use http::Response;
use hyper::body::Incoming;
use keydir::Dir;
use keydir_hyper::{Client, Retry};
use keydir_rustls::{TrustAnchors, client_config};
use tower::Service;

use crate::load::{ALPN, Counts, Load, rotations, rotations_of_a_control};
use crate::pki::{Ca, plain_server};
use crate::plain_client::{Body, get, pool, send};
use crate::plain_server::{Seen, Server, answering};

/// When the client stops trusting the old CA.
#[derive(Clone, Copy, PartialEq)]
enum Remove {
    AfterTheServerMoved,
    Before,
}

async fn rotate<C>(
    alpn: &str,
    rotations: u64,
    remove: Remove,
    make: impl FnOnce(&TrustAnchors, std::net::SocketAddr) -> C,
) -> (Counts, Arc<Seen>)
where
    C: Service<http::Request<Body>, Response = Response<Incoming>, Error: std::fmt::Debug>
        + Clone
        + Send
        + Sync
        + 'static,
    C::Future: Send,
{
    let mut ca = Ca::new("ca 1");
    let served = Arc::default();
    let server = Server::start(
        plain_server(&ca.leaf(1), None),
        alpn,
        |_, on| on.own,
        answering(&served),
    )
    .await;
    let dir = Dir::in_memory(Ca::files(&[(1, &ca)]));
    let address = server.address;
    let client = make(&TrustAnchors::in_dir(&dir).unwrap(), address);
    let load = Load::start(move |floor| {
        let client = client.clone();
        async move { send(client, get(address, floor)).await.map(|_| None) }
    });
    load.step().await;
    for n in 1..=rotations {
        let next = Ca::new(&format!("ca {}", n + 1));
        if remove == Remove::AfterTheServerMoved {
            dir.publish(Ca::files(&[(n, &ca), (n + 1, &next)])).unwrap();
            load.step().await;
            server.serve_as(n + 1, plain_server(&next.leaf(n + 1), None), alpn);
            load.step().await;
        }
        dir.publish(Ca::files(&[(n + 1, &next)])).unwrap();
        load.removed_before(n + 1);
        load.step().await;
        server.serve_as(n + 1, plain_server(&next.leaf(n + 1), None), alpn);
        load.step().await;
        ca = next;
    }
    let counts = load.end().await;
    let seen = Arc::clone(&server.seen);
    assert_eq!(seen.requests.load(SeqCst), counts.ok, "both sides count the same");
    (counts, seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ca_that_the_client_trusts() {
    for alpn in ALPN {
        let ours = |anchors: &TrustAnchors, _| {
            let client = Client::builder(client_config(anchors)).retry(Retry::Off);
            client.build::<Body>().unwrap()
        };
        let (counts, seen) = rotate(alpn, rotations(), Remove::AfterTheServerMoved, ours).await;
        let on_removed = seen.on_removed.load(SeqCst);
        println!(
            "the CA that a client trusts, {alpn}, {} rotations: {counts}, {on_removed} on what was removed",
            rotations()
        );
        assert_eq!((counts.failed, on_removed), (0, 0), "{:?}", counts.errors);

        let few = rotations_of_a_control();
        let one_pool = |anchors: &TrustAnchors, address| {
            let mut config = client_config(anchors).build().unwrap();
            config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
            pool(&Arc::new(config), address)
        };
        let (counts, seen) = rotate(alpn, few, Remove::AfterTheServerMoved, one_pool).await;
        let on_removed = seen.on_removed.load(SeqCst);
        println!("- one pool with a verifier that follows: {counts}, {on_removed} on what was removed");
        assert!(on_removed > 0, "{counts}");

        let (counts, _) = rotate(alpn, few, Remove::Before, ours).await;
        println!("- removed before the server moves: {counts}");
        assert!(counts.failed > 0, "{counts}");
    }
}
