//! No credential goes where it is not meant for.

use http::{HeaderValue, Request, Uri};
use keydir_hyper::AuthorizationLayer;
use tower::{Layer, Service, ServiceExt};

use crate::support::{Server, bearer, get, ok, send, status, tokens};

#[tokio::test]
async fn other_requests_go_out_as_they_are() {
    let (_, token) = tokens("r1", &[]);
    let server = Server::new(|_| ok());
    let layer = AuthorizationLayer::bearer(&token)
        .only_for(["api.internal", "https://x.internal:8443"])
        .unwrap();
    let client = layer.layer(server.clone());
    for (uri, expected) in [
        ("https://api.internal/", true),
        ("https://x.internal:8443/", true),
        ("https://x.internal/", false),
        ("http://api.internal/", false),
        ("https://elsewhere.test/", false),
        ("/path", false),
        ("*", false),
    ] {
        assert_eq!(send(&client, get(uri)).await, 200, "{uri}");
        let expected = if expected { bearer("r1") } else { Vec::new() };
        assert_eq!(server.credentials(), [expected], "{uri}");
    }
}

/// Behind one certificate there may be many hosts: whom a request reaches is what its `Host` says.
#[tokio::test]
async fn the_host_that_a_request_names_counts_too() {
    let (_, token) = tokens("r1", &[]);
    let server = Server::new(|_| ok());
    let builder = || AuthorizationLayer::bearer(&token).also_plain_http();
    let only = builder()
        .only_for(["10.0.0.1", "api.internal", "api.internal:8443"])
        .unwrap();
    let any = builder().any_origin();
    for (hosts, expected) in [
        (&[][..], true),
        (&["10.0.0.1"], true),
        (&["api.internal"], true),
        (&["API.internal:443"], true),
        (&["api.internal:8443"], true),
        (&["evil.test"], false),
        (&["api.internal:80"], false),
        (&["api.internal:"], false),
        (&["api.internal@evil.test"], false),
        (&["api.internal", "evil.test"], false),
        (&["evil.test", "api.internal"], false),
        (&["api.internal/x"], false),
        (&[""], false),
        (&["\u{e9}"], false),
    ] {
        let request = || {
            let mut request = get("https://10.0.0.1/");
            for host in hosts {
                let host = HeaderValue::from_bytes(host.as_bytes()).unwrap();
                request.headers_mut().append("host", host);
            }
            request
        };
        send(&only.layer(server.clone()), request()).await;
        send(&any.layer(server.clone()), request()).await;
        let given = if expected { bearer("r1") } else { Vec::new() };
        assert_eq!(server.credentials(), [given, bearer("r1")], "{hosts:?}");
    }
}

#[tokio::test]
async fn plain_http_has_to_be_allowed() {
    let (_, token) = tokens("r1", &[]);
    let error = AuthorizationLayer::bearer(&token)
        .only_for(["http://api.internal"])
        .unwrap_err();
    assert!(error.to_string().contains("also_plain_http"), "{error}");
    let layer = AuthorizationLayer::bearer(&token)
        .also_plain_http()
        .only_for(["http://api.internal"])
        .unwrap();
    let server = Server::new(|_| ok());
    send(&layer.layer(server.clone()), get("http://api.internal/")).await;
    send(&layer.layer(server.clone()), get("https://api.internal/")).await;
    assert_eq!(server.credentials(), [bearer("r1"), Vec::new()]);

    let layer = AuthorizationLayer::bearer(&token).any_origin();
    send(&layer.layer(server.clone()), get("http://api.internal/")).await;
    send(&layer.layer(server.clone()), get("https://whatever.test/")).await;
    assert_eq!(server.credentials(), [Vec::new(), bearer("r1")]);
}

/// What a layer that follows redirects does, above ours.
async fn follow<S>(client: S, mut uri: Uri) -> u16
where
    S: Service<
            Request<http_body_util::Full<bytes::Bytes>>,
            Response = http::Response<http_body_util::Full<bytes::Bytes>>,
        > + Clone,
    S::Error: std::fmt::Debug,
{
    loop {
        let response = client.clone().oneshot(get(&uri.to_string())).await.unwrap();
        match response.headers().get("location") {
            Some(location) => uri = location.to_str().unwrap().parse().unwrap(),
            None => return response.status().as_u16(),
        }
    }
}

#[tokio::test]
async fn a_redirect_that_is_followed_above_takes_nothing_along() {
    let (_, token) = tokens("r1", &[]);
    let server = Server::new(|sent| {
        let next = match sent.uri.to_string().as_str() {
            "https://api.internal/" => "https://api.internal/moved",
            "https://api.internal/moved" => "https://evil.test/",
            "https://evil.test/" => "http://api.internal/plain",
            _ => return ok(),
        };
        let mut response = status(307);
        response.headers_mut().insert("location", next.parse().unwrap());
        response
    });
    let client = AuthorizationLayer::bearer(&token)
        .only_for(["api.internal"])
        .unwrap()
        .layer(server.clone());
    assert_eq!(follow(client, "https://api.internal/".parse().unwrap()).await, 200);
    let none = Vec::new();
    assert_eq!(server.credentials(), [bearer("r1"), bearer("r1"), none.clone(), none]);
}
