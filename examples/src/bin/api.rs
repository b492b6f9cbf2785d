//! An axum service whose certificate, clients' CAs and tokens rotate while it runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use axum::extract::Query;
use axum::routing::get;
use axum::{Extension, Json, Router};
use clap::Parser;
use keydir::RevisionId;
use keydir_examples::{Failure, Log, asked_to_end, print_line, run};
use keydir_hyper::{AuthenticateLayer, Authenticated, ReportService, Server, Tokens};
use keydir_rustls::{Connection, Identity, Peer, TrustAnchors, server_config};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::time::sleep;

/// A slow answer takes no longer than this.
const SLOWEST: u64 = 600_000;

/// Serves HTTPS, HTTP/1.1 and HTTP/2, to whoever has a token: `/whoami`, and `/slow?ms=N`, which takes its time. `/report`
/// and `/metrics` say what the process holds.
#[derive(Debug, Parser)]
#[command(name = "api")]
struct Args {
    /// Where to listen, such as 127.0.0.1:8443.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// The key directory of the server's certificate, such as r1.crt and r1.key.
    #[arg(long, value_name = "DIR")]
    identity: PathBuf,
    /// The key directory of the CAs of clients, which must show a certificate then.
    #[arg(long, value_name = "DIR")]
    clients: Option<PathBuf>,
    /// The key directory of the tokens that are accepted, such as t1.token or t1.token-sha256.
    #[arg(long, value_name = "DIR")]
    tokens: PathBuf,
    /// Connections that rest on what was revoked get so long to finish what is in flight.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(..=86_400))]
    grace: u64,
    /// Connections move to a new certificate of the server within this time.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(..=86_400))]
    renew: u64,
    /// Ask for a token before `/report` and `/metrics` too.
    #[arg(long)]
    guard_report: bool,
}

/// Who asks.
#[derive(Debug, Serialize)]
struct Whoami {
    token: RevisionId,
    client: Option<String>,
    ca: Option<RevisionId>,
}

#[derive(Debug, Deserialize)]
struct Slow {
    #[serde(default)]
    ms: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(Log::Info, serve(args))
}

async fn serve(args: Args) -> Result<ExitCode, Failure> {
    // All of keydir: what to present, whom to trust, which tokens to accept; the server that follows them.
    let identity = Identity::open(&args.identity)?;
    let tls = match &args.clients {
        Some(clients) => server_config(&identity).require_client(&TrustAnchors::open(clients)?),
        None => server_config(&identity).no_client(),
    };
    let acceptor = tls.alpn(["h2", "http/1.1"]).acceptor()?;
    let server = Server::new(acceptor.with_grace(Duration::from_secs(args.grace)));
    let server = server.renew_within(Duration::from_secs(args.renew));
    let tokens = AuthenticateLayer::bearer(&Tokens::open(&args.tokens)?);

    let reports = Router::new()
        .route_service("/report", ReportService::json())
        .route_service("/metrics", ReportService::prometheus());
    let app = Router::new().route("/whoami", get(whoami)).route("/slow", get(slow));
    let app = match args.guard_report {
        true => app.merge(reports).layer(tokens),
        false => app.layer(tokens).merge(reports),
    };

    let fail = |error| Failure::Listen(args.listen, error);
    let listener = TcpListener::bind(args.listen).await.map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    let end = asked_to_end()?;
    print_line(&format!("listening {address}"))?;
    server.shutdown(end).serve(listener, app).await;
    Ok(ExitCode::SUCCESS)
}

async fn whoami(
    Extension(caller): Extension<Authenticated>,
    Extension(connection): Extension<Connection>,
) -> Json<Whoami> {
    let peer = connection.peer();
    Json(Whoami {
        token: caller.revision().clone(),
        client: peer.map(Peer::subject),
        ca: peer.and_then(|peer| peer.ca().cloned()),
    })
}

async fn slow(Query(slow): Query<Slow>) -> String {
    let ms = slow.ms.min(SLOWEST);
    sleep(Duration::from_millis(ms)).await;
    format!("{ms} ms\n")
}
