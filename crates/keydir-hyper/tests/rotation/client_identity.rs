//! The client's identity; the server is a plain one, and says whose certificate carried each request.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Plain;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use keydir::Dir;
use keydir_hyper::{Client, HttpsConnector, Retry, Swap};
use keydir_rustls::{ClientBuilder, Identity, client_config};
use tower::Service;

use crate::load::{ALPN, Counts, Load, rotations, rotations_of_a_control};
use crate::pki::{Ca, Leaf, plain_server};
use crate::plain_client::{Body, get, send};
use crate::plain_server::{Seen, Server, answering};

/// A client over what the directory holds.
async fn rotate<C>(alpn: &str, rotations: u64, make: impl FnOnce(ClientBuilder) -> C) -> (Counts, Arc<Seen>)
where
    C: Service<Request<Body>, Response = Response<Incoming>, Error: std::fmt::Debug> + Clone + Send + Sync + 'static,
    C::Future: Send,
{
    let ca = Ca::new("the ca");
    let served = Arc::default();
    let config = plain_server(&ca.leaf(1), Some(&ca));
    let server = Server::start(config, alpn, |_, on| on.client.unwrap(), answering(&served)).await;
    let mut leaf = ca.leaf(1);
    let dir = Dir::in_memory(Leaf::files(&[(1, &leaf)]));
    let client = make(client_config(&ca.anchors()).identity(&Identity::in_dir(&dir).unwrap()));
    let address = server.address;
    let load = Load::start(move |floor| {
        let client = client.clone();
        async move { send(client, get(address, floor)).await.map(|_| None) }
    });
    for n in 1..=rotations {
        let next = ca.leaf(n + 1);
        dir.publish(Leaf::files(&[(n, &leaf), (n + 1, &next)])).unwrap();
        load.step().await;
        dir.publish(Leaf::files(&[(n + 1, &next), (n, &leaf)])).unwrap();
        load.step().await;
        dir.publish(Leaf::files(&[(n + 1, &next)])).unwrap();
        load.removed_before(n + 1);
        load.step().await;
        leaf = next;
    }
    let counts = load.end().await;
    let seen = Arc::clone(&server.seen);
    assert_eq!(seen.requests.load(SeqCst), counts.ok, "both sides count the same");
    (counts, seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_identity() {
    for alpn in ALPN {
        let (counts, seen) = rotate(alpn, rotations(), |tls| {
            let client = Client::builder(tls).retry(Retry::Off);
            client
                .promotion_window(Duration::from_millis(10))
                .build::<Body>()
                .unwrap()
        })
        .await;
        let on_removed = seen.on_removed.load(SeqCst);
        let connections = seen.connections.load(SeqCst);
        println!(
            "a client's identity, {alpn}, {} rotations: {counts}, {on_removed} on what was removed; {connections} \
             connections",
            rotations()
        );
        assert_eq!((counts.failed, on_removed), (0, 0), "{:?}", counts.errors);
        // HTTP/2 needs one for each swap, and there may be two of these in a rotation.
        let swaps = usize::try_from(rotations()).unwrap() * 2;
        assert!(alpn != "h2" || connections <= swaps + 8, "{connections} connections");

        let (counts, seen) = rotate(alpn, rotations_of_a_control(), |tls| one_pool(tls, alpn)).await;
        let on_removed = seen.on_removed.load(SeqCst);
        println!("- one pool with a resolver that follows: {counts}, {on_removed} on what was removed");
        assert!(on_removed > 0, "{counts}");
    }
}

/// One pool for ever, whose connector presents whatever is the primary.
fn one_pool(tls: ClientBuilder, alpn: &str) -> Plain<HttpsConnector<HttpConnector>, Body> {
    let adjusted = tls.connector_with(|config| config.alpn_protocols = vec![alpn.as_bytes().to_vec()]);
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    let swap = Swap::new(&adjusted.unwrap(), |generation| Ok::<_, Infallible>(generation.clone()));
    let https = swap.unwrap().current().unwrap().https(http);
    Plain::builder(TokioExecutor::new()).build(https)
}
