//! Over reqwest: its own client by plain HTTP, and something in its place that answers as it does by HTTPS.

use keydir_rustls::rustls::crypto::CryptoProvider;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use keydir_hyper::AuthorizationLayer;
use reqwest::ResponseBuilderExt;
use tokio::net::TcpListener;
use tower::{Layer, Service, ServiceExt};

use crate::support::{bearer, ok, tokens};

/// Accepts `r1`; its refusals come from another URL if it is told so.
#[derive(Clone, Default)]
struct Fake {
    elsewhere: Option<&'static str>,
    sent: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Service<reqwest::Request> for Fake {
    type Response = reqwest::Response;
    type Error = reqwest::Error;
    type Future = Ready<Result<reqwest::Response, reqwest::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), reqwest::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: reqwest::Request) -> Self::Future {
        let values = request.headers().get_all(AUTHORIZATION).iter();
        let credentials: Vec<_> = values.map(|value| value.to_str().unwrap().to_owned()).collect();
        let url = self
            .elsewhere
            .map_or_else(|| request.url().clone(), |url| url.parse().unwrap());
        let response = match credentials == bearer("r1") {
            true => http::Response::builder().status(200),
            false => http::Response::builder().status(401).header(WWW_AUTHENTICATE, "Bearer"),
        };
        self.sent.lock().unwrap().push(credentials);
        ready(Ok(response.url(url).body("said the server").unwrap().into()))
    }
}

fn client() -> reqwest::Client {
    // Where another member has turned its TLS on, it wants to know by which cryptography. A second call changes nothing.
    let provider = keydir_rustls::crypto_provider().unwrap();
    let _ = CryptoProvider::clone(&provider).install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

#[tokio::test]
async fn the_credential_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
            let mut response = ok();
            response
                .headers_mut()
                .insert("x-got", request.headers()[AUTHORIZATION].clone());
            ready(Ok::<_, Infallible>(response))
        });
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(tcp), service)
            .await;
    });
    let (_, token) = tokens("r1", &[]);
    let layer = AuthorizationLayer::bearer(&token)
        .also_plain_http()
        .only_for([&uri])
        .unwrap();
    let client = layer.layer(client());
    let request = self::client().get(&uri).build().unwrap();
    let response = client.oneshot(request).await.unwrap();
    assert_eq!(response.headers()["x-got"], "Bearer token-of-r1");
    server.abort();
}

#[tokio::test]
async fn another_is_tried_if_the_answer_is_the_servers_own() {
    for (elsewhere, url, expected) in [
        (None, "https://api.internal/v1", vec!["r2", "r1"]),
        (
            Some("https://api.internal/moved"),
            "https://api.internal/v1",
            vec!["r2", "r1"],
        ),
        (Some("https://evil.test/"), "https://api.internal/v1", vec!["r2"]),
        (Some("http://api.internal/"), "https://api.internal/v1", vec!["r2"]),
        (None, "https://evil.test/", vec![]),
        (None, "http://api.internal/", vec![]),
    ] {
        let (_, token) = tokens("r2", &["r1"]);
        let fake = Fake {
            elsewhere,
            ..Fake::default()
        };
        let layer = AuthorizationLayer::bearer(&token)
            .try_another()
            .only_for(["api.internal"])
            .unwrap();
        let request = client().post(url).body("again").build().unwrap();
        let response = layer.layer(fake.clone()).oneshot(request).await.unwrap();
        assert_eq!(response.status() == 200, expected.len() == 2, "{url}");
        let sent: Vec<_> = fake
            .sent
            .lock()
            .unwrap()
            .drain(..)
            .filter(|sent| !sent.is_empty())
            .collect();
        assert_eq!(
            sent,
            expected.into_iter().map(bearer).collect::<Vec<_>>(),
            "{url} {elsewhere:?}"
        );
    }
}
