//! A complete CA rotation under load, with nothing restarted and nothing failed, and an intruder who stays out.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use keydir_examples::demo::{self, Plan};
use keydir_examples::{Log, asked_to_end, run};

/// Rotates the CA of an HTTPS service with mutual TLS, in a temporary folder, while clients keep it busy.
///
/// Ends by itself. Exit code 0 if no request failed and nobody of the removed CA was let in, else 1.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Args {
    /// About how long it is to take.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// How many clients keep the service busy.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=100))]
    clients: u16,
    /// How often the CA is rotated.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rotations: u32,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let plan = Plan {
        time: Duration::from_secs(args.seconds),
        clients: args.clients.into(),
        rotations: args.rotations,
    };
    run(Log::Error, async move { demo::run(plan, asked_to_end()?).await })
}
