//! The layer in its hosts: hyper with curl in front of it, axum, tonic.

#[cfg(feature = "server")]
mod curl {
    use std::process::Command;

    use hyper::server::conn::{http1, http2};
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use keydir_hyper::AuthenticateLayer;
    use tower::ServiceExt;

    use crate::support::{behind, tokens};

    async fn serve(layer: AuthenticateLayer) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let service = behind(&layer);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let service = service.clone();
                let answer = service_fn(move |request| service.clone().oneshot(request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(tcp), answer));
            }
        });
        url
    }

    async fn curl(url: &str, options: &[&str]) -> String {
        let mut command = Command::new("curl");
        command.args(["-sS", "-i", "--max-time", "60"]).args(options).arg(url);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().replace('\r', "")
    }

    #[tokio::test]
    async fn curl_presents_tokens() {
        let (dir, tokens) = tokens(&[("r1.token", "correct-horse"), ("r2.token", "battery-staple")]);
        let url = serve(AuthenticateLayer::bearer(&tokens).realm("api").unwrap()).await;
        let bearer = ["--oauth2-bearer", "correct-horse"];
        let answer = curl(&url, &bearer).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("r1 - "),
            "{answer}"
        );

        let answer = curl(&url, &[]).await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        assert!(
            answer.contains("\nwww-authenticate: Bearer realm=\"api\"\n"),
            "{answer}"
        );

        dir.publish([("r2.token", "battery-staple")]).unwrap();
        let answer = curl(&url, &bearer).await;
        assert!(
            answer.contains("\nwww-authenticate: Bearer realm=\"api\", error=\"invalid_token\"\n"),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn the_longest_token_passes_by_http2_and_that_is_about_the_limit() {
        let longest = "x".repeat(15 * 1024);
        let (_dir, tokens) = tokens(&[("r1.token", &longest)]);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let service = behind(&AuthenticateLayer::bearer(&tokens));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let service = service.clone();
                let answer = service_fn(move |request| service.clone().oneshot(request));
                let builder = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(builder.serve_connection(TokioIo::new(tcp), answer));
            }
        });
        let h2 = async |token: &str| curl(&url, &["--http2-prior-knowledge", "--oauth2-bearer", token]).await;
        let answer = h2(&longest).await;
        assert!(answer.starts_with("HTTP/2 200") && answer.contains("r1 - "), "{answer}");
        let answer = h2(&"x".repeat(16 * 1024)).await;
        assert!(
            answer.starts_with("HTTP/2 431"),
            "the limit of hyper is another now: {answer}"
        );
    }

    #[cfg(feature = "password-hash")]
    #[tokio::test]
    async fn curl_presents_passwords() {
        let (_dir, passwords) = crate::support::passwords::passwords(&[("r1", "ali", "open sesame", 8)]);
        let url = serve(AuthenticateLayer::basic(&passwords)).await;
        // `--anyauth` asks first, and presents what the challenge asks for.
        for options in [&["-u", "ali:open sesame"][..], &["--anyauth", "-u", "ali:open sesame"]] {
            let answer = curl(&url, options).await;
            assert!(
                answer.contains("HTTP/1.1 200") && answer.contains("r1 ali "),
                "{answer}"
            );
        }
        let answer = curl(&url, &["-u", "ali:open barley"]).await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        assert!(
            answer.contains("\nwww-authenticate: Basic realm=\"restricted\", charset=\"UTF-8\"\n"),
            "{answer}"
        );
    }
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn axum_takes_the_layer_and_hands_the_caller_out() {
    use axum::extract::Extension;
    use axum::routing::get;
    use keydir_hyper::{AuthenticateLayer, Authenticated};
    use tower::ServiceExt;

    let (_dir, tokens) = crate::support::tokens(&[("r1.token", "token")]);
    let hello = async |Extension(caller): Extension<Authenticated>| caller.revision().to_string();
    let app = axum::Router::new()
        .route("/", get(hello))
        .layer(AuthenticateLayer::bearer(&tokens))
        .route("/open", get(async || "open"));
    let get = |path: &str, header: &str| {
        let request = http::Request::get(path).header("authorization", header);
        app.clone().oneshot(request.body(axum::body::Body::empty()).unwrap())
    };
    let answer = get("/", "Bearer token").await.unwrap();
    let body = http_body_util::BodyExt::collect(answer.into_body())
        .await
        .unwrap()
        .to_bytes();
    assert_eq!(body, "r1");
    assert_eq!(get("/", "Bearer other").await.unwrap().status(), 401);
    assert_eq!(get("/open", "Bearer other").await.unwrap().status(), 200);
}

#[cfg(feature = "tonic")]
#[tokio::test]
async fn tonic_takes_the_layer() {
    use keydir_hyper::AuthenticateLayer;
    use tonic::body::Body;
    use tower::{Layer, ServiceExt, service_fn};

    let (_dir, tokens) = crate::support::tokens(&[("r1.token", "token")]);
    let method = service_fn(async |_: http::Request<Body>| {
        Ok::<_, std::convert::Infallible>(http::Response::new(Body::empty()))
    });
    let service = AuthenticateLayer::bearer(&tokens).layer(method);
    let answer = service.oneshot(http::Request::new(Body::empty())).await.unwrap();
    assert_eq!(answer.status(), 401);
}
