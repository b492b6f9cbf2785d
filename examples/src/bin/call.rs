//! An HTTPS client whose certificate and whose servers' CAs rotate while it runs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use keydir_examples::{Client, Failure, Handshake, Log, RequestError, Target, print_line, run};
use keydir_rustls::{Identity, TrustAnchors};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

/// Sends requests, each on a new connection, and prints a line of JSON for each. Exit code 1 if one failed.
#[derive(Debug, Parser)]
#[command(name = "call")]
struct Args {
    /// The key directory of the CAs whose servers are trusted.
    #[arg(long, value_name = "DIR")]
    trust: PathBuf,
    /// The key directory of the client's certificate, such as r1.crt and r1.key.
    #[arg(long, value_name = "DIR")]
    identity: Option<PathBuf>,
    /// How many requests; 0 goes on until it is stopped.
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: u64,
    /// A request every so many milliseconds; 0 does not pause.
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=86_400_000))]
    every: u64,
    /// Where to, such as https://localhost:8443/.
    url: Target,
}

/// One line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    n: u64,
    ok: bool,
    status: Option<u16>,
    identity: Option<&'a str>,
    server_ca: Option<&'a str>,
    resumed: bool,
    error: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(Log::Warn, call(args))
}

async fn call(args: Args) -> Result<ExitCode, Failure> {
    let anchors = TrustAnchors::open(&args.trust)?;
    let identity = args.identity.as_ref().map(Identity::open).transpose()?;
    let client = Client::new(&anchors, identity.as_ref())?;

    let mut all_fine = true;
    let mut next = Instant::now();
    let mut n = 0;
    while args.count == 0 || n < args.count {
        n += 1;
        sleep_until(next).await;
        next = next.max(Instant::now()) + Duration::from_millis(args.every);
        let (handshake, answer) = request(&client, &args.url).await;
        let line = line(n, handshake.as_ref(), answer);
        all_fine &= line.ok;
        let json = serde_json::to_string(&line).map_err(|error| Failure::Output(error.into()))?;
        print_line(&json)?;
    }
    Ok(if all_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A connection and one request on it. The handshake may be known though the request failed.
async fn request(client: &Client, target: &Target) -> (Option<Handshake>, Result<u16, RequestError>) {
    let mut connection = match client.connect(target).await {
        Ok(connection) => connection,
        Err(error) => return (None, Err(error)),
    };
    let answer = connection.get(target).await;
    let handshake = connection.handshake().clone();
    (Some(handshake), answer.map(|status| status.as_u16()))
}

fn line(n: u64, handshake: Option<&Handshake>, answer: Result<u16, RequestError>) -> Line<'_> {
    let (status, error) = match answer {
        Ok(status) => (Some(status), None),
        Err(error) => (None, Some(error.causes())),
    };
    let ok = status.is_some_and(|status| (200..300).contains(&status));
    Line {
        n,
        ok,
        status,
        identity: handshake.and_then(|handshake| Some(handshake.identity.as_ref()?.as_str())),
        server_ca: handshake.and_then(|handshake| Some(handshake.server_ca.as_ref()?.as_str())),
        resumed: handshake.is_some_and(|handshake| handshake.resumed),
        error: error.or_else(|| {
            status
                .filter(|_| !ok)
                .map(|status| format!("the server answered {status}"))
        }),
    }
}
