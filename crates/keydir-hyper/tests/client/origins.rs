//! Where requests go to: names, addresses, schemes, and servers that change what they speak.

use std::error::Error;
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use keydir::Dir;
use keydir_hyper::{Client, ConnectError, Retry};
use keydir_rustls::rustls::version::TLS13;
use keydir_rustls::{TrustAnchors, client_config};
use rcgen::SanType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::*;

fn why(error: &hyper_util::client::legacy::Error) -> &ConnectError {
    assert!(error.is_connect(), "{error:?}");
    error.source().unwrap().downcast_ref().unwrap()
}

#[tokio::test]
async fn an_ipv6_address_stands_in_brackets() {
    let ca = Ca::new("the ca");
    let leaf = ca.leaf_with("server", |params| {
        params.subject_alt_names = vec![SanType::IpAddress("::1".parse().unwrap())];
    });
    let Ok(server) = Server::start_at("[::1]:0".parse().unwrap(), &leaf, &ca, &["h2"]).await else {
        println!("no IPv6 here");
        return;
    };
    let (_, identity) = identity("r1", &ca.leaf("r1"));
    let client = Client::builder(client_config(&ca.anchors().1).identity(&identity))
        .build()
        .unwrap();
    let uri = format!("https://{}/", server.address).parse().unwrap();
    assert_eq!(carried_by(&client, uri).await, "r1");
}

/// Both schemes without a port are one authority; and what speaks HTTP/2 over TLS need not do so without.
#[tokio::test]
async fn without_a_port_the_scheme_decides() {
    let ca = Ca::new("the ca");
    let server = Server::start(&ca.leaf("server"), &ca, &["h2", "http/1.1"]).await;
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (https, http) = (server.address, plain.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut tcp, _) = plain.accept().await.unwrap();
            let mut request = [0; 14];
            tcp.read_exact(&mut request).await.unwrap();
            assert_eq!(&request, b"GET / HTTP/1.1");
            let _ = tcp
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nplain")
                .await;
            // Until it has read that.
            let _ = tcp.read_to_end(&mut Vec::new()).await;
        }
    });
    let dialled = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&dialled);
    let transport = tower::service_fn(move |uri: http::Uri| {
        noted.lock().unwrap().push(uri.to_string());
        let to = if uri.scheme_str() == Some("https") { https } else { http };
        async move { TcpStream::connect(to).await.map(TokioIo::new) }
    });
    let dir = Dir::in_memory(cas(&[("c1", &ca), ("c2", &Ca::new("another"))]));
    let anchors = TrustAnchors::in_dir(&dir).unwrap();
    let (_, identity) = identity("r1", &ca.leaf("r1"));
    let builder = Client::builder(client_config(&anchors).identity(&identity)).also_plain_http();
    let client = builder.build_over::<Payload, _>(transport).unwrap();
    for _ in 0..2 {
        let response = client.get("https://localhost/".parse().unwrap()).await.unwrap();
        assert_eq!(carrier(&response), "r1");
        let response = client.get("http://localhost/".parse().unwrap()).await.unwrap();
        assert!(response.extensions().get::<keydir_rustls::Connection>().is_none());
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "plain");
        // In the next pool it is known who speaks HTTP/2.
        dir.publish(cas(&[("c1", &ca)])).unwrap();
    }
    let dialled = dialled.lock().unwrap();
    assert_eq!(
        *dialled,
        [
            "https://localhost/",
            "http://localhost/",
            "https://localhost/",
            "http://localhost/"
        ]
    );
}

#[tokio::test]
async fn what_is_no_https_is_refused() {
    let ca = Ca::new("the ca");
    let (_, identity) = identity("r1", &ca.leaf("r1"));
    let client = Client::builder(client_config(&ca.anchors().1).identity(&identity))
        .build::<Payload>()
        .unwrap();
    let error = client.get("http://localhost:1/".parse().unwrap()).await.unwrap_err();
    assert_eq!(*why(&error), ConnectError::NotHttps("http".to_owned()));
    let error = client.get("https://a_b..c/".parse().unwrap()).await.unwrap_err();
    assert_eq!(*why(&error), ConnectError::NoName("a_b..c".to_owned()));
    let error = client.get("/relative".parse().unwrap()).await.unwrap_err();
    assert!(!error.is_connect(), "{error:?}");
}

/// A client whose first pool has ended, so that the next one knows who speaks HTTP/2.
async fn experienced(retry: Retry, servers: &[&Server], ca: &Ca) -> Client<Payload> {
    let dir = Dir::in_memory(cas(&[("c1", ca), ("c2", &Ca::new("another"))]));
    let anchors = TrustAnchors::in_dir(&dir).unwrap();
    let (_, identity) = identity("r1", &ca.leaf("r1"));
    let builder = Client::builder(client_config(&anchors).identity(&identity)).retry(retry);
    let client = builder.build().unwrap();
    for server in servers {
        carried_by(&client, server.uri("/")).await;
    }
    dir.publish(cas(&[("c1", ca)])).unwrap();
    for server in servers {
        carried_by(&client, server.uri("/")).await;
        assert_eq!(server.seen.handshakes(), 2);
    }
    client
}

#[tokio::test]
async fn a_server_that_speaks_http2_no_more_gets_http1() {
    let ca = Ca::new("the ca");
    for retry in [Retry::Off, Retry::Idempotent] {
        let leaf = ca.leaf("server");
        let server = Server::start(&leaf, &ca, &["h2", "http/1.1"]).await;
        let bystander = Server::start(&leaf, &ca, &["h2", "http/1.1"]).await;
        let client = experienced(retry, &[&server, &bystander], &ca).await;
        server.serve_as(&leaf, &["http/1.1"], &[&TLS13]);
        server.close_connections();
        until("they are closed", || server.seen.open() == 0).await;
        if retry == Retry::Off {
            // It may find that the connection has broken first.
            let error = loop {
                match client.get(server.uri("/")).await {
                    Err(error) if error.is_connect() => break error,
                    other => assert!(other.is_err()),
                }
            };
            assert_eq!(*why(&error), ConnectError::NotHttp2);
        }
        for _ in 0..3 {
            let response = client.get(server.uri("/")).await.unwrap();
            assert_eq!(response.version(), http::Version::HTTP_11);
            response.into_body().collect().await.unwrap();
        }
        carried_by(&client, bystander.uri("/")).await;
        assert_eq!(bystander.seen.handshakes(), 2, "nobody else is bothered");
        // And back.
        server.serve_as(&leaf, &["h2", "http/1.1"], &[&TLS13]);
        server.close_connections();
        until("they are closed", || server.seen.open() == 0).await;
        let response = loop {
            match client.get(server.uri("/")).await {
                Ok(response) => break response,
                Err(error) => assert!(retry == Retry::Off, "{error:?}"),
            }
        };
        assert_eq!(response.version(), http::Version::HTTP_2);
    }
}

#[tokio::test]
async fn http2_only_means_that() {
    let ca = Ca::new("the ca");
    let h2 = Server::start(&ca.leaf("server"), &ca, &["h2"]).await;
    let (_, identity) = identity("r1", &ca.leaf("r1"));
    let client = Client::builder(client_config(&ca.anchors().1).identity(&identity))
        .http2_only()
        .build()
        .unwrap();
    // At once, and yet it is one handshake.
    let many = (0..10).map(|_| tokio::spawn(client.get(h2.uri("/"))));
    for one in many.collect::<Vec<_>>() {
        assert_eq!(one.await.unwrap().unwrap().version(), http::Version::HTTP_2);
    }
    // The first one refuses what it is asked for, the other knows nothing of ALPN.
    for alpn in [&["http/1.1"][..], &[]] {
        let server = Server::start(&ca.leaf("server"), &ca, alpn).await;
        let error = client.get(server.uri("/")).await.unwrap_err();
        assert!(error.is_connect(), "{error:?}");
        assert_eq!(server.seen.requests(), 0);
    }
    carried_by(&client, h2.uri("/")).await;
    assert_eq!(h2.seen.handshakes(), 1);
}
