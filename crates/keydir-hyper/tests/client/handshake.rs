//! Removals in the middle of a handshake.

use keydir_hyper::Client;
use keydir_rustls::client_config;
use keydir_rustls::rustls::version::{TLS12, TLS13};

use crate::support::*;

#[tokio::test]
async fn a_request_that_waits_for_a_handshake_is_carried_by_what_stands_at_its_end() {
    let ca = Ca::new("the ca");
    for (alpn, version, from_the_beginning) in [
        ("http/1.1", &TLS13, true),
        ("h2", &TLS13, true),
        // Of these versions only the older has a client wait when it has presented its certificate.
        ("http/1.1", &TLS12, false),
        ("h2", &TLS12, false),
    ] {
        let leaf = ca.leaf("server");
        let server = Server::start(&leaf, &ca, &[alpn]).await;
        server.serve_as(&leaf, &[alpn], &[version]);
        let (dir, identity) = identity("r1", &ca.leaf("r1"));
        let client = Client::builder(client_config(&ca.anchors().1).identity(&identity))
            .build()
            .unwrap();
        server.hold(from_the_beginning);
        let waits = tokio::spawn({
            let (client, uri) = (client.clone(), server.uri("/"));
            async move { carried_by(&client, uri).await }
        });
        match from_the_beginning {
            true => until("it is there", || server.seen.open() == 1).await,
            false => until("it is presented", || uses(&dir, "r1") > 0).await,
        }
        dir.publish(files(("r2", &ca.leaf("r2")), &[])).unwrap();
        server.release();
        assert_eq!(waits.await.unwrap(), "r2", "{alpn} {version:?}");
        assert_eq!(server.seen.carried("r1"), 0, "{alpn} {version:?}");
        assert_eq!(carried_by(&client, server.uri("/")).await, "r2");
    }
}
