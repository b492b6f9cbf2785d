//! What keydir costs, beside the plain library and the peers: both sides in one run, a table at the end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement that cannot be made stops, and says where"
)]

mod callgrind;
mod handshake;
mod http;
mod idle;
mod kubelet;
mod latency;
mod load;
mod parse;
mod pki;
mod poll;
mod postgres;
mod stats;
mod strace;
mod subjects;
mod table;

use std::process::ExitCode;

const USAGE: &str = "\
usage: keydir-benches <name> [--quick]

  load       reading the current set and its primary, beside a bare ArcSwap
  latency    from a publication to its being visible, beside the peers
  parse      loading 10,000 revisions, beside a plain loop
  poll       system calls of a poll that finds nothing new
  idle       what many directories cost in which nothing happens
  handshake  TLS 1.3, full and resumed, beside a static rustls config
  http       requests through our client and layers, beside plain hyper-util and tower
  postgres   logins and pools, beside tokio-postgres and the pools without keydir

--quick does a tenth of the work.
";

/// How much is to be done.
#[derive(Clone, Copy, Debug)]
enum Work {
    Whole,
    Tenth,
}

impl Work {
    /// So many of what the whole work would do `whole` times.
    fn of(self, whole: usize) -> usize {
        match self {
            Self::Whole => whole,
            Self::Tenth => whole.div_ceil(10),
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (names, work) = match arguments.as_slice() {
        [names @ .., "--quick"] => (names, Work::Tenth),
        names => (names, Work::Whole),
    };
    match names {
        ["load"] => load::bench(work),
        ["latency"] => latency::bench(work),
        ["parse"] => parse::bench(work),
        ["poll"] => poll::bench(work),
        ["idle"] => idle::bench(work),
        ["handshake"] => handshake::bench(work),
        ["http"] => http::bench(work),
        ["postgres"] => postgres::bench(work),
        // What runs inside valgrind or strace, or is watched from outside.
        ["inside", "load", rest @ ..] => load::inside(rest),
        ["inside", "handshake", rest @ ..] => handshake::inside(rest),
        ["inside", "http", rest @ ..] => http::inside(rest),
        ["inside", "postgres", rest @ ..] => postgres::inside(rest),
        ["inside", "poll", rest @ ..] => poll::inside(rest),
        ["inside", "idle", rest @ ..] => idle::inside(rest),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
