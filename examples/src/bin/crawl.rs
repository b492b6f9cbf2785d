//! An HTTP client under load whose certificate, CAs and token rotate while it runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Parser;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, Uri};
use keydir_examples::{Failure, Log, Target, TargetError, causes, print_line, run};
use keydir_hyper::{AuthorizationLayer, BoxError, Token};
use keydir_rustls::{Identity, TrustAnchors, client_config};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, timeout};
use tower::{Layer, Service, ServiceExt};

/// A request takes no longer than this.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer answers are none that this client wants to see.
const MAX_BODY: usize = 64 << 20;
/// So many failures are told; the others only count.
const TOLD: u64 = 10;

/// Sends requests on connections that are kept, and prints what came of them as a line of JSON each second and at the
/// end. Exit code 1 if one failed.
#[derive(Debug, Parser)]
#[command(name = "crawl")]
struct Args {
    /// The key directory of the CAs whose servers are trusted.
    #[arg(long, value_name = "DIR")]
    trust: PathBuf,
    /// The key directory of the client's certificate, such as r1.crt and r1.key.
    #[arg(long, value_name = "DIR")]
    identity: Option<PathBuf>,
    /// The key directory of the bearer token, such as t1.token.
    #[arg(long, value_name = "DIR")]
    tokens: Option<PathBuf>,
    /// Speak HTTP/2; without it HTTP/1.1.
    #[arg(long)]
    http2: bool,
    /// How many requests are under way at a time.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    workers: u32,
    /// For how long.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seconds: u64,
    /// Where to, such as https://localhost:8443/whoami.
    #[arg(value_parser = https)]
    url: Uri,
}

/// What came of the requests so far.
#[derive(Clone, Debug, Default, Serialize)]
struct Counts {
    ok: u64,
    failed: u64,
    /// Answers, by the revision of the certificate that was shown on their connection; `none` if none was.
    by_identity: BTreeMap<String, u64>,
}

type Body = Empty<Bytes>;

fn https(url: &str) -> Result<Uri, TargetError> {
    let target: Target = url.parse()?;
    Ok(target.uri().clone())
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(Log::Warn, crawl(args))
}

async fn crawl(args: Args) -> Result<ExitCode, Failure> {
    // All of keydir: a client whose connections follow the directories, and a header that does.
    let anchors = TrustAnchors::open(&args.trust)?;
    let mut tls = client_config(&anchors);
    if let Some(identity) = &args.identity {
        tls = tls.identity(&Identity::open(identity)?);
    }
    let client = keydir_hyper::Client::builder(tls);
    let client = if args.http2 {
        client.http2_only()
    } else {
        client.http1_only()
    };
    let client = client.build::<Body>()?;
    let counts = Arc::<Mutex<Counts>>::default();
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let mut workers = JoinSet::new();
    match &args.tokens {
        None => start(&mut workers, &args, client, end, &counts),
        Some(tokens) => {
            let layer = AuthorizationLayer::bearer(&Token::open(tokens)?);
            let origin = args.url.authority().map(|authority| format!("https://{authority}"));
            start(&mut workers, &args, layer.only_for(origin)?.layer(client), end, &counts);
        }
    }

    let mut seconds = interval_at(Instant::now() + Duration::from_secs(1), Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = seconds.tick() => print(&counts)?,
            ended = workers.join_next() => if ended.is_none() { break },
        }
    }
    print(&counts)?;
    let all_fine = lock(&counts).failed == 0;
    Ok(if all_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn start<S>(workers: &mut JoinSet<()>, args: &Args, client: S, end: Instant, counts: &Arc<Mutex<Counts>>)
where
    S: Service<Request<Body>, Response = hyper::Response<hyper::body::Incoming>> + Clone + Send + 'static,
    S: Service<Request<Body>, Error: Into<BoxError>, Future: Send>,
{
    for _ in 0..args.workers {
        let (client, url, counts) = (client.clone(), args.url.clone(), Arc::clone(counts));
        workers.spawn(async move {
            while Instant::now() < end {
                let answer = timeout(PATIENCE, get(client.clone(), url.clone())).await;
                let answer =
                    answer.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs()).into()));
                let mut counts = lock(&counts);
                match answer {
                    Ok(identity) => {
                        counts.ok += 1;
                        *counts.by_identity.entry(identity).or_default() += 1;
                    }
                    Err(error) => {
                        counts.failed += 1;
                        if counts.failed <= TOLD {
                            tracing::warn!(error = causes(&*error), "a request failed");
                        }
                    }
                }
            }
        });
    }
}

/// One request, and the revision that was shown on its connection.
async fn get<S>(client: S, url: Uri) -> Result<String, BoxError>
where
    S: Service<Request<Body>, Response = hyper::Response<hyper::body::Incoming>, Error: Into<BoxError>>,
{
    let request = Request::get(url).body(Body::new())?;
    let response = client.oneshot(request).await.map_err(Into::into)?;
    let connection = response.extensions().get::<keydir_rustls::Connection>();
    let shown = connection.and_then(keydir_rustls::Connection::identity);
    let identity = shown.map_or_else(|| "none".to_owned(), |key| key.id().to_string());
    let status = response.status();
    Limited::new(response.into_body(), MAX_BODY).collect().await?;
    match status.is_success() {
        true => Ok(identity),
        false => Err(format!("the server answered {status}").into()),
    }
}

fn print(counts: &Mutex<Counts>) -> Result<(), Failure> {
    let counts = lock(counts).clone();
    let json = serde_json::to_string(&counts).map_err(|error| Failure::Output(error.into()))?;
    print_line(&json)
}

fn lock(counts: &Mutex<Counts>) -> std::sync::MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}
