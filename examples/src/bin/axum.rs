//! The same config in axum-server: what a service written with axum adds to rotate without a restart.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use axum_server::Handle;
use axum_server::tls_rustls::{RustlsConfig, from_tcp_rustls};
use clap::Parser;
use keydir_examples::{Failure, Log, asked_to_end, print_line, run};
use keydir_rustls::Identity;

/// Says hello over HTTPS, and which certificate it presents now.
#[derive(Debug, Parser)]
#[command(name = "axum")]
struct Args {
    /// Where to listen, such as 127.0.0.1:8443.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// The key directory of the server's certificate, such as r1.crt and r1.key.
    #[arg(long, value_name = "DIR")]
    identity: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(Log::Info, serve(args))
}

async fn serve(args: Args) -> Result<ExitCode, Failure> {
    // All of keydir: open the directory, build the config, hand it over.
    let identity = Identity::open(&args.identity)?;
    let tls = keydir_rustls::server_config(&identity)
        .no_client()
        .alpn(["h2", "http/1.1"])
        .build()?;
    let tls = RustlsConfig::from_config(Arc::new(tls));

    // The rest is any axum service.
    let hello = move || async move {
        match identity.primary() {
            Ok(key) => format!("hello, presenting {}\n", key.id()),
            Err(reason) => format!("hello, presenting nothing: {reason}\n"),
        }
    };
    let app = Router::new().route("/", get(hello));
    let fail = |error| Failure::Listen(args.listen, error);
    let listener = TcpListener::bind(args.listen).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    let end = asked_to_end()?;
    let handle = Handle::new();
    let stopper = handle.clone();
    tokio::spawn(async move {
        end.await;
        stopper.graceful_shutdown(Some(Duration::from_secs(10)));
    });
    print_line(&format!("listening {address}"))?;
    let server = from_tcp_rustls(listener, tls).map_err(fail)?;
    server
        .handle(handle)
        .serve(app.into_make_service())
        .await
        .map_err(fail)?;
    Ok(ExitCode::SUCCESS)
}
