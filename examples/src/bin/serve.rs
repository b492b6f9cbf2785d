//! An HTTPS service whose certificate and whose clients' CAs rotate while it runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use keydir_examples::{Clients, Failure, Log, Server, asked_to_end, print_line, run};
use keydir_rustls::{Identity, TrustAnchors};
use tokio::net::TcpListener;

/// Answers each GET with how its connection's handshake went.
#[derive(Debug, Parser)]
#[command(name = "serve")]
struct Args {
    /// Where to listen, such as 127.0.0.1:8443.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// The key directory of the server's certificate, such as r1.crt and r1.key.
    #[arg(long, value_name = "DIR")]
    identity: PathBuf,
    /// The key directory of the CAs whose clients are let in; without it clients are not asked.
    #[arg(long, value_name = "DIR")]
    clients: Option<PathBuf>,
    /// Clients without a certificate are let in too.
    #[arg(long, requires = "clients")]
    optional: bool,
    /// Sessions are given to the clients as tickets, not kept in memory.
    #[arg(long)]
    tickets: bool,
    /// So long may connections that rest on what was revoked finish what is in flight.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(..=86_400))]
    grace: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(Log::Info, serve(args))
}

async fn serve(args: Args) -> Result<ExitCode, Failure> {
    let identity = Identity::open(&args.identity)?;
    let clients = match &args.clients {
        None => Clients::Unasked,
        Some(clients) if args.optional => Clients::Optional(TrustAnchors::open(clients)?),
        Some(clients) => Clients::Required(TrustAnchors::open(clients)?),
    };
    let server = Server::new(&identity, clients, args.tickets, Duration::from_secs(args.grace))?;

    let fail = |error| Failure::Listen(args.listen, error);
    let listener = TcpListener::bind(args.listen).await.map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    let end = asked_to_end()?;
    print_line(&format!("listening {address}"))?;
    server.serve(listener, end).await;
    Ok(ExitCode::SUCCESS)
}
