//! The chores of this repository: `cargo xtask <chore>`.

mod alone;
mod bench;
mod canaries;
mod deny;
mod files;
mod fresh;
mod installed;
mod lint;
mod metadata;
mod package;
mod prove;
mod run;
mod steps;
mod test;
mod tidy;
mod tools;

use std::process::ExitCode;

/// What a chore answers: an error is one text for the person at the terminal.
type Outcome<T = ()> = Result<T, String>;

const USAGE: &str = "\
usage: cargo xtask <chore>

  test     everything that must pass; the chores marked + are steps of it
  tools  + find the programs that the tests call, install them where that is possible
  tidy   + what lints cannot see: file heads, manifests, edges, the minimum Rust version
  alone  + each library package by itself, its features off, as they are, and all on
  fresh  + the first command of the README, from a fresh clone
  package+ the archives for the registry: built, complete, and able to compile
  format   rustfmt, checking only
  clippy   all targets, all features, warnings are errors
  docs     rustdoc with private items, warnings are errors
  deny     licences, bans and sources of dependencies; advisories if their database is in reach
  bench    figures: load, latency, parse, poll, idle, handshake, http; all without a name; --quick for a tenth
  prove    a proof at its full count: torn, rotation, rotator, sessions, requests, soak, mutants, fuzz
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (chore, rest) = match arguments.split_first() {
        Some((chore, rest)) => (Some(chore.as_str()), rest),
        None => (None, arguments.as_slice()),
    };
    match files::enter_root().and_then(|()| dispatch(chore, rest)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(chore: Option<&str>, rest: &[String]) -> Outcome {
    match chore {
        Some("bench") => return bench::bench(rest),
        Some("prove") => return prove::prove(rest),
        _ => {}
    }
    if let Some(surplus) = rest.first() {
        return Err(format!("one chore at a time, `{surplus}` is too much\n\n{USAGE}"));
    }
    match chore {
        Some("test") => test::test(),
        Some("tools") => tools::tools(),
        Some("tidy") => tidy::tidy(),
        Some("alone") => alone::alone(),
        Some("package") => package::package(),
        Some("fresh") => fresh::first_command(),
        Some("format") => lint::format(),
        Some("clippy") => lint::clippy(),
        Some("docs") => lint::docs(),
        Some("deny") => deny::deny(),
        None | Some("help" | "--help" | "-h") => {
            print!("{USAGE}");
            Ok(())
        }
        Some(other) => Err(format!("no chore is called `{other}`\n\n{USAGE}")),
    }
}
