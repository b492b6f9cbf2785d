//! `cargo xtask bench`: what keydir costs, beside the plain library and the peers; docs/performance.md has what came
//! out.

use crate::{Outcome, run, tools};

/// In the order in which they run; each prints one table.
const BENCHES: &[&str] = &[
    "load",
    "latency",
    "parse",
    "poll",
    "idle",
    "handshake",
    "http",
    "postgres",
];

pub(crate) const USAGE: &str = "\
usage: cargo xtask bench [<name>] [--quick]

  load       P1: reading the current set, beside a bare ArcSwap
  latency    P4: from a publication to its being visible, beside the peers
  parse      P5: loading 10,000 revisions, beside a plain loop
  poll       P6: system calls of a poll that finds nothing new (needs strace)
  idle       P7: 1,000 directories in which nothing happens (needs strace; 13 minutes)
  handshake  P2, P3: TLS handshakes, beside a static rustls config (needs valgrind)
  http       P8: requests through our client and layers, beside plain hyper-util and tower; passwords (needs valgrind)
  postgres   P9, P10: logins and pools, beside tokio-postgres and the pools without keydir (needs valgrind, PostgreSQL)

Without a name, all of them. --quick does a tenth of the work, to see that they run.
";

pub(crate) fn bench(arguments: &[String]) -> Outcome {
    let (names, quick) = chosen(arguments)?;
    tools::bench_tools()?;
    let package = ["-p", "keydir-benches", "--features", "peers"];
    run::run(run::cargo().args(["build", "--release", "--quiet"]).args(package))?;
    for name in names {
        let mut bench = run::cargo();
        bench.args(["run", "--release", "--quiet"]).args(package);
        bench.args(["--", name]).args(quick.then_some("--quick"));
        run::run(&mut bench)?;
    }
    Ok(())
}

fn chosen(arguments: &[String]) -> Outcome<(Vec<&'static str>, bool)> {
    let (options, names): (Vec<&str>, Vec<&str>) = arguments
        .iter()
        .map(String::as_str)
        .partition(|argument| argument.starts_with('-'));
    let known = match names.as_slice() {
        [] => BENCHES.to_vec(),
        [name] => BENCHES.iter().copied().filter(|known| known == name).collect(),
        _ => Vec::new(),
    };
    match (known.is_empty(), options.as_slice()) {
        (false, []) => Ok((known, false)),
        (false, ["--quick"]) => Ok((known, true)),
        _ => Err(format!("that is no bench\n\n{USAGE}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_bench_is_refused() {
        let chosen = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
            chosen(&arguments)
        };
        assert_eq!(chosen(&[]), Ok((BENCHES.to_vec(), false)));
        assert_eq!(chosen(&["load", "--quick"]), Ok((vec!["load"], true)));
        for bad in [&["all"][..], &["load", "poll"], &["--fast"], &["--quick", "--quick"]] {
            assert!(chosen(bad).is_err_and(|error| error.ends_with(USAGE)), "{bad:?}");
        }
    }
}
