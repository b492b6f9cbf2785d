//! The report as a service: in a router of axum, under plain hyper with curl, and never in an executor's way.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails shall panic"
)]

use std::sync::mpsc;

use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Bytes;
use keydir::{Broken, Candidates, Dir, Live, Parsed, Revision, Unusable, Usage, View, uses};
use keydir_hyper::ReportService;
use tower_service::Service;

struct Any(Usage);

impl View for Any {
    type Item = ();
    type Whole = ();

    fn usage(&self) -> &Usage {
        &self.0
    }

    fn parse(&self, revision: &Revision<'_>) -> Result<Parsed<()>, Unusable> {
        let mut parts = self.0.parts().filter_map(|part| revision.part(part));
        if parts.any(|content| content.contains(&b'\n')) {
            return Err(Unusable::new("lines", "it has more than one line"));
        }
        Ok(Parsed::new(()))
    }

    fn combine(&self, _: &Candidates<'_, ()>) -> Result<(), Broken> {
        Ok(())
    }
}

fn open() -> Live<Any> {
    Dir::in_memory([("r1.token.primary", "one")])
        .view(Any(uses::TOKEN))
        .unwrap()
}

fn request(method: Method) -> Request<()> {
    Request::builder().method(method).uri("/any").body(()).unwrap()
}

async fn ask(service: &ReportService, method: Method) -> (Response<()>, Bytes) {
    let response = service.clone().call(request(method)).await.unwrap();
    let (parts, body) = response.into_parts();
    (
        Response::from_parts(parts, ()),
        body.collect().await.unwrap().to_bytes(),
    )
}

#[tokio::test]
async fn answers_get_and_head_and_nothing_else() {
    let live = open();
    for (service, content_type) in [
        (ReportService::json(), "application/json"),
        (ReportService::prometheus(), "text/plain; version=0.0.4; charset=utf-8"),
    ] {
        // Until no other test has changed the report in between.
        let (get, head, length) = loop {
            let (get, body) = ask(&service, Method::GET).await;
            let (head, none) = ask(&service, Method::HEAD).await;
            assert!(!body.is_empty() && none.is_empty());
            if get.headers()[CONTENT_LENGTH] == head.headers()[CONTENT_LENGTH] {
                break (get, head, body.len());
            }
        };
        for response in [get, head] {
            let headers = response.headers();
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(headers[CONTENT_TYPE], content_type);
            assert_eq!(headers[CACHE_CONTROL], "no-store");
            assert_eq!(headers[CONTENT_LENGTH], length.to_string());
        }
        for method in [
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::OPTIONS,
            Method::CONNECT,
        ] {
            let (refused, body) = ask(&service, method).await;
            assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(refused.headers()[ALLOW], "GET, HEAD");
            assert!(body.is_empty());
        }
    }
    drop(live);
}

#[tokio::test]
async fn each_request_gets_the_report_of_its_moment() {
    let live = open();
    let (json, prometheus) = (ReportService::json(), ReportService::prometheus());
    let uses = live.primary().unwrap().hold();
    let id = "moment-7";
    live.dir()
        .publish([("r1.token", "one"), ("moment-7.token.primary", "two")])
        .unwrap();
    let (_, body) = ask(&json, Method::GET).await;
    let report: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let sets = report["directories"]
        .as_array()
        .unwrap()
        .iter()
        .map(|dir| &dir["sets"][0]);
    let set = sets.into_iter().find(|set| set["primary"] == id).unwrap();
    assert_eq!(set["revisions"]["r1"]["uses"], 1);
    let (_, body) = ask(&prometheus, Method::GET).await;
    let text = String::from_utf8(body.into()).unwrap();
    let line = r#"keydir_revision_primary{directory="(memory)",use="token",revision="moment-7"} 1"#;
    assert!(text.lines().any(|found| found == line), "{text}");
    drop(uses);
}

/// The only thread for blocking work is taken, so a report that needs it is not built, and everything else goes on.
#[test]
fn no_report_is_built_on_an_executor() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (release, released) = mpsc::channel::<()>();
        let blocked = tokio::task::spawn_blocking(move || released.recv());
        let mut service = ReportService::prometheus();
        let mut first = service.call(request(Method::GET));
        let mut second = service.call(request(Method::GET));
        for _ in 0..100 {
            tokio::select! {
                biased;
                _ = &mut first => panic!("built on the executor"),
                _ = &mut second => panic!("built on the executor"),
                () = tokio::task::yield_now() => {}
            }
        }
        // One that nobody waits for any more does not keep its turn.
        drop(first);
        release.send(()).unwrap();
        assert_eq!(second.await.unwrap().status(), StatusCode::OK);
        blocked.await.unwrap().unwrap();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_are_all_answered() {
    let live = open();
    let service = ReportService::json();
    let asked: Vec<_> = (0..64)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { ask(&service, Method::GET).await })
        })
        .collect();
    for asked in asked {
        let (response, body) = asked.await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        serde_json::from_slice::<serde_json::Value>(&body).unwrap();
    }
    drop(live);
}

/// What a search for a secret has to look for: itself, hex, and base64 at each of its three phases.
fn forms(secret: &str) -> Vec<String> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![secret.to_owned(), hex.to_uppercase(), hex];
    for phase in 0..3 {
        // Without the characters that the bytes around it have a share in.
        let padded = ["\0".repeat(phase).as_str(), secret].concat();
        for engine in [&BASE64_STANDARD_NO_PAD, &BASE64_URL_SAFE_NO_PAD] {
            let text = engine.encode(&padded);
            let end = text.len() - usize::from(padded.len() % 3 > 0);
            forms.push(text[[0, 2, 3][phase]..end].to_owned());
        }
    }
    forms
}

fn finds(text: &str, secret: &str) -> bool {
    // In part, too.
    forms(&secret[3..15]).iter().any(|form| text.contains(form))
}

#[tokio::test]
async fn no_secret_is_in_a_report() {
    let secret = "kanarie-5b81f0d6c2-report";
    let live: Vec<_> = uses::ALL
        .into_iter()
        .map(|usage| {
            let parts = |id: &str, mark: &str, content: &str| -> Vec<_> {
                let parts = usage.parts().filter(|part| *part != "username");
                parts
                    .map(|part| (format!("{id}.{part}{mark}"), content.to_owned()))
                    .collect()
            };
            let dir = Dir::in_memory(parts("good", ".primary", secret));
            let live = dir.view(Any(usage)).unwrap();
            let bad = format!("{secret}\n{secret}");
            dir.publish([parts("good", ".primary", &bad), parts("bad", "", &bad)].concat())
                .unwrap();
            live
        })
        .collect();
    assert!(live.iter().all(|live| !live.load().is_adopted()));
    for service in [ReportService::json(), ReportService::prometheus()] {
        let (_, body) = ask(&service, Method::GET).await;
        let text = String::from_utf8(body.into()).unwrap();
        assert!(!finds(&text, secret), "a secret was reported");
        assert!(text.contains("good"));
        for (before, after) in [("", ""), ("a", "b"), ("ab", "c"), ("abc", "")] {
            let around = format!("{before}{secret}{after}");
            let hex: String = around.bytes().map(|byte| format!("{byte:02x}")).collect();
            for leak in [around.clone(), hex, BASE64_STANDARD_NO_PAD.encode(&around)] {
                assert!(finds(&format!("{text}{leak}"), secret), "the search is blind to {leak}");
            }
        }
    }
}

#[tokio::test]
async fn no_private_key_is_in_a_report() {
    let leaf = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (crt, key) = (leaf.cert.pem(), leaf.signing_key.serialize_pem());
    let dir = Dir::in_memory([("leaf.crt.primary", crt), ("leaf.key", key.clone())]);
    let identity = keydir_rustls::Identity::in_dir(&dir).unwrap();
    let der: String = leaf
        .signing_key
        .serialized_der()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    for service in [ReportService::json(), ReportService::prometheus()] {
        let (_, body) = ask(&service, Method::GET).await;
        let text = String::from_utf8(body.into()).unwrap();
        assert!(text.contains("tls-identity") && text.contains("leaf"));
        let mut lines = key.lines().filter(|line| !line.starts_with("--"));
        assert!(lines.all(|line| !text.contains(&line[..12])));
        assert!(!text.contains(&der[80..104]) && !text.contains("PRIVATE"));
    }
    drop(identity);
}

#[cfg(feature = "axum")]
mod in_axum {
    use axum::Router;
    use axum::body::Body;
    use axum::extract::Request;
    use axum::middleware::{Next, from_fn};
    use tower::ServiceExt;

    use super::*;

    async fn get(app: &Router, path: &str, token: Option<&str>) -> (StatusCode, Bytes) {
        let mut request = Request::get(path);
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        (
            response.status(),
            response.into_body().collect().await.unwrap().to_bytes(),
        )
    }

    #[tokio::test]
    async fn it_mounts_beside_other_routes_under_a_guard() {
        let live = open();
        let guard = from_fn(async |request: Request, next: Next| {
            let may = request
                .headers()
                .get("authorization")
                .is_some_and(|token| token == "Bearer one");
            if may {
                Ok(next.run(request).await)
            } else {
                Err(StatusCode::UNAUTHORIZED)
            }
        });
        let app = Router::new()
            .route_service("/report", ReportService::json())
            .route_service("/metrics", ReportService::prometheus())
            .layer(guard)
            .route("/", axum::routing::get(|| async { "hello" }));
        assert_eq!(get(&app, "/", None).await.1, "hello");
        for path in ["/report", "/metrics"] {
            assert_eq!(get(&app, path, None).await.0, StatusCode::UNAUTHORIZED);
            let (status, body) = get(&app, path, Some("Bearer one")).await;
            assert_eq!(status, StatusCode::OK);
            assert_eq!(body.starts_with(b"{"), path == "/report");
            assert_eq!(body.starts_with(b"# HELP keydir_adopted "), path == "/metrics");
        }
        drop(live);
    }
}

#[cfg(feature = "server")]
mod under_hyper {
    use std::net::SocketAddr;
    use std::process::Command;

    use hyper::server::conn::{http1, http2};
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::net::TcpListener;

    use super::*;

    /// As Prometheus 3 asks.
    const ACCEPT: &str = "accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                          application/openmetrics-text;version=0.0.1;q=0.4,\
                          text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";

    async fn serve(h2: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let service = ReportService::prometheus();
                let service = service_fn(move |request| service.clone().call(request));
                let io = TokioIo::new(tcp);
                if h2 {
                    tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(io, service));
                } else {
                    tokio::spawn(http1::Builder::new().serve_connection(io, service));
                }
            }
        });
        address
    }

    /// Head and body of the answer.
    fn curl(address: SocketAddr, options: &[&str]) -> (String, String) {
        let output = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "60",
                "--noproxy",
                "*",
                "--include",
                "-H",
                ACCEPT,
            ])
            .args(options)
            .arg(format!("http://{address}/metrics"))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{options:?} {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let answer = String::from_utf8(output.stdout).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_lowercase(), body.to_owned())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn curl_gets_what_prometheus_would() {
        let live = open();
        for (h2, version) in [(false, "--http1.1"), (true, "--http2-prior-knowledge")] {
            let address = serve(h2).await;
            let ask = async |option: &'static str| {
                tokio::task::spawn_blocking(move || curl(address, &[version, option]))
                    .await
                    .unwrap()
            };
            let (headers, body) = ask("-XGET").await;
            assert!(
                headers.contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
                "{headers}"
            );
            assert!(headers.contains("cache-control: no-store"), "{headers}");
            assert!(
                headers.contains(&format!("content-length: {}", body.len())),
                "{headers}"
            );
            assert!(
                body.contains("\nkeydir_loads_total{directory=\"(memory)\",outcome=\"ok\"} "),
                "{body}"
            );
            let (headers, body) = ask("--head").await;
            assert!(headers.contains(" 200") && body.is_empty(), "{headers}\n{body}");
            assert!(
                headers.contains("content-length: ") && !headers.contains("content-length: 0"),
                "{headers}"
            );
            let (headers, _) = ask("-XPOST").await;
            assert!(
                headers.contains(" 405") && headers.contains("allow: get, head"),
                "{headers}"
            );
        }
        drop(live);
    }
}
