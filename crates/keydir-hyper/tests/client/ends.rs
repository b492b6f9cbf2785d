//! What ends a pool, and that its idle connections close though nobody asks for anything.

use std::error::Error;

use keydir::Dir;
use keydir_hyper::Client;
use keydir_rustls::{HandshakeError, Identity, TrustAnchors, client_config};
use rcgen::SerialNumber;

use crate::support::*;

const ALPN: [&str; 2] = ["http/1.1", "h2"];

/// The error of a handshake behind that of a request.
fn refused(error: &hyper_util::client::legacy::Error) -> &HandshakeError {
    assert!(error.is_connect(), "{error:?}");
    error.source().unwrap().downcast_ref().unwrap()
}

#[tokio::test]
async fn idle_connections_close_when_the_identity_is_revoked() {
    for alpn in ALPN {
        let ca = Ca::new("the ca");
        let server = Server::start(&ca.leaf("server"), &ca, &[alpn]).await;
        let (dir, identity) = identity("r1", &ca.leaf("r1"));
        let client = Client::builder(client_config(&ca.anchors().1).identity(&identity))
            .build::<Payload>()
            .unwrap();
        assert_eq!(carried_by(&client, server.uri("/")).await, "r1");
        assert_eq!(server.seen.open(), 1);
        dir.publish(files(("r2", &ca.leaf("r2")), &[])).unwrap();
        until("it closes", || server.seen.open() == 0).await;
        assert_eq!(server.seen.handshakes(), 1, "nothing is dialled for nobody");
        assert_eq!(carried_by(&client, server.uri("/")).await, "r2");
    }
}

#[tokio::test]
async fn a_server_whose_ca_was_removed_gets_no_request() {
    for alpn in ALPN {
        let (ca, other) = (Ca::new("the ca"), Ca::new("the other"));
        let server = Server::start(&ca.leaf("server"), &ca, &[alpn]).await;
        let elsewhere = Server::start(&other.leaf("server"), &ca, &[alpn]).await;
        let dir = Dir::in_memory(cas(&[("c1", &ca), ("c2", &other)]));
        let anchors = TrustAnchors::in_dir(&dir).unwrap();
        let (_, identity) = identity("r1", &ca.leaf("r1"));
        let client = Client::builder(client_config(&anchors).identity(&identity))
            .build::<Payload>()
            .unwrap();
        carried_by(&client, server.uri("/")).await;
        carried_by(&client, elsewhere.uri("/")).await;

        dir.publish(cas(&[("c2", &other)])).unwrap();
        let error = client.get(server.uri("/")).await.unwrap_err();
        assert!(matches!(refused(&error), HandshakeError::Tls(_)), "{error:?}");
        assert_eq!(server.seen.requests(), 1);
        until("it closes", || server.seen.open() == 0).await;
        carried_by(&client, elsewhere.uri("/")).await;

        dir.publish(cas(&[("c1", &ca), ("c2", &other)])).unwrap();
        carried_by(&client, server.uri("/")).await;
    }
}

#[tokio::test]
async fn a_server_that_a_crl_revokes_gets_no_request() {
    for alpn in ALPN {
        let ca = Ca::new("the ca");
        let numbered = |serial: u64| {
            ca.leaf_with("server", |params| {
                params.serial_number = Some(SerialNumber::from(serial))
            })
        };
        let server = Server::start(&numbered(7), &ca, &[alpn]).await;
        let (dir, anchors) = ca.anchors();
        let (_, identity) = identity("r1", &ca.leaf("r1"));
        let client = Client::builder(client_config(&anchors).identity(&identity))
            .build::<Payload>()
            .unwrap();
        carried_by(&client, server.uri("/")).await;

        let mut files = cas(&[("c1", &ca)]);
        files.push(("c1.crl".to_owned(), ca.crl(7)));
        dir.publish(files).unwrap();
        let error = client.get(server.uri("/")).await.unwrap_err();
        assert!(matches!(refused(&error), HandshakeError::Tls(_)), "{error:?}");
        assert_eq!(server.seen.requests(), 1);
        until("it closes", || server.seen.open() == 0).await;

        server.serve_as(&numbered(8), &[alpn], &[&keydir_rustls::rustls::version::TLS13]);
        carried_by(&client, server.uri("/")).await;
    }
}

#[tokio::test]
async fn a_server_whose_certificate_expires_gets_no_request_until_it_has_another() {
    for alpn in ALPN {
        let clock = Hand::start();
        let ca = Ca::new("the ca");
        let server = Server::start(&ca.leaf_until("server", 1), &ca, &[alpn]).await;
        let dir = Dir::in_memory_at(cas(&[("c1", &ca)]), clock.clone());
        let anchors = TrustAnchors::in_dir(&dir).unwrap();
        let (_, identity) = identity("r1", &ca.leaf("r1"));
        let client = Client::builder(client_config(&anchors).identity(&identity))
            .build::<Payload>()
            .unwrap();
        carried_by(&client, server.uri("/")).await;

        clock.set(2);
        // What comes in has the connections looked at now.
        dir.publish(cas(&[("c1", &ca), ("c2", &Ca::new("another"))])).unwrap();
        until("it closes", || server.seen.open() == 0).await;
        for _ in 0..3 {
            let error = client.get(server.uri("/")).await.unwrap_err();
            assert!(matches!(refused(&error), HandshakeError::Tls(_)), "{error:?}");
        }
        assert_eq!(server.seen.requests(), 1);

        server.serve_as(
            &ca.leaf_until("server", 9),
            &[alpn],
            &[&keydir_rustls::rustls::version::TLS13],
        );
        let before = server.seen.handshakes();
        for _ in 0..3 {
            carried_by(&client, server.uri("/")).await;
        }
        assert_eq!(server.seen.handshakes() - before, 1, "the new pool is kept");
    }
}

#[tokio::test]
async fn a_pool_ends_with_the_validity_of_what_was_presented_and_only_once() {
    for alpn in ALPN {
        let clock = Hand::start();
        let ca = Ca::new("the ca");
        let server = Server::start(&ca.leaf("server"), &ca, &[alpn]).await;
        let (own, next) = (ca.leaf_until("r1", 1), ca.leaf("r2"));
        let dir = Dir::in_memory_at(files(("r1", &own), &[]), clock.clone());
        let identity = Identity::in_dir(&dir).unwrap();
        let client = Client::builder(client_config(&ca.anchors().1).identity(&identity))
            .build::<Payload>()
            .unwrap();
        carried_by(&client, server.uri("/")).await;

        clock.set(2);
        dir.publish(files(("r1", &own), &[("r2", &next)])).unwrap();
        until("it closes", || server.seen.open() == 0).await;
        // Nothing else is marked, so there is nothing better to present.
        for _ in 0..3 {
            assert_eq!(carried_by(&client, server.uri("/")).await, "r1");
        }
        dir.publish(files(("r1", &own), &[])).unwrap();
        for _ in 0..3 {
            assert_eq!(carried_by(&client, server.uri("/")).await, "r1");
        }
        assert_eq!(server.seen.handshakes(), 2, "{alpn}");
    }
}
