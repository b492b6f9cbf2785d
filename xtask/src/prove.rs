//! `cargo xtask prove`: the proofs at their full counts; docs/proofs.md has what came out.

use std::env;
use std::path::Path;
use std::process::Command;

use crate::installed::installed;
use crate::{Outcome, files, run};

/// Tests of `keydir-integration` that count more if `KEYDIR_PROVE` is set.
const COUNTED: &[&str] = &["torn", "sessions", "rotation", "soak"];

pub(crate) const USAGE: &str = "\
usage: cargo xtask prove <name>

  torn      R1: no read is torn, no publication goes backwards
  rotation  R2: nothing fails while leaves and CAs rotate under load
  sessions  R3: nobody gets in who was removed, revoked by a CRL, or has expired
  requests  R2, R3: no request fails while each kind of credential over HTTP rotates, none goes on with what was removed
  logins    R2: nothing fails while the logins of PostgreSQL rotate under load
  rotator   R7: in a model of a rotator and its consumers nobody meets what it cannot accept; draws docs/rotation.svg
  soak      R6: nothing fails and memory does not grow while everything rotates at random
  mutants   R9: the tests catch what is broken in the core's logic (an hour or more)
  fuzz      the parsers, on bytes that libFuzzer finds; --seconds N for each target, 60 without it
";

/// What decides about names, sets and revocation.
const MUTATED: &[&str] = &["name", "reconcile", "offers", "publication", "graves"];
/// In percent.
const CAUGHT_AT_LEAST: usize = 95;

const TARGETS: &[&str] = &["names", "tree", "pem", "crl", "session"];

pub(crate) fn prove(arguments: &[String]) -> Outcome {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["mutants"] => mutants(),
        ["fuzz"] => fuzz(60),
        ["fuzz", "--seconds", seconds] => match seconds.parse() {
            Ok(seconds) if seconds > 0 => fuzz(seconds),
            _ => Err(format!("`{seconds}` is no number of seconds")),
        },
        ["requests"] => requests(),
        ["logins"] => logins(),
        ["rotator"] => rotator(),
        [name] if COUNTED.contains(name) => counted(name),
        _ => Err(format!("that is no proof\n\n{USAGE}")),
    }
}

fn counted(name: &str) -> Outcome {
    let mut test = run::cargo();
    test.args(["test", "--release", "-p", "keydir-integration", "--test", name]);
    run::run(test.args(["--", "--nocapture"]).env("KEYDIR_PROVE", "1"))
}

/// One after the other, since they count what is committed in a moment.
fn logins() -> Outcome {
    let mut test = run::cargo();
    test.args(["test", "--release", "-p", "keydir-integration", "--test", "pool"]);
    run::run(
        test.args(["--", "--nocapture", "--test-threads", "1"])
            .env("KEYDIR_PROVE", "1"),
    )
}

/// One after the other, so that each has the machine.
fn requests() -> Outcome {
    let mut test = run::cargo();
    test.args([
        "test",
        "--release",
        "-p",
        "keydir-hyper",
        "--all-features",
        "--test",
        "rotation",
    ]);
    run::run(
        test.args(["--", "--nocapture", "--test-threads", "1"])
            .env("KEYDIR_PROVE", "1"),
    )
}

/// Every course of events for few consumers, and a simulation of ten thousand.
fn rotator() -> Outcome {
    let here = env::current_dir().map_err(|error| format!("no working directory: {error}"))?;
    let mut test = run::cargo();
    test.args(["test", "--release", "-p", "keydir-rotate", "--test", "model"]);
    run::run(
        test.args(["--", "--nocapture", "--test-threads", "1"])
            .env("KEYDIR_PLOT", here.join("docs/rotation.svg")),
    )
}

/// In copies of the tree, and with a target directory of its own: first with the quick tests of the crate, then what
/// these missed with the cases of the convention too.
fn mutants() -> Outcome {
    const PLACE: &str = "target/mutants";
    let program = installed("cargo-mutants", "27.1.0")?;
    files::remove_directory(&format!("{PLACE}/mutants.out"))?;
    files::create_directory(PLACE)?;
    let here = env::current_dir().map_err(|error| format!("no working directory: {error}"))?;
    let mutate = |more: &[&str]| {
        let mut mutate = Command::new(&program);
        mutate.args(["mutants", "--output", PLACE, "--package", "keydir", "--no-times"]);
        for module in MUTATED {
            mutate.args(["--file", &format!("crates/keydir/src/{module}.rs")]);
        }
        mutate.env("CARGO_TARGET_DIR", here.join(PLACE).join("build"));
        mutate.env("CARGO_PROFILE_DEV_DEBUG", "0");
        // It fails if a single mutant was missed, so what counts is what it writes down.
        run::run(mutate.args(["--cargo-arg=--lib"]).args(more))
    };
    let list = |name: &str| -> Outcome<Vec<String>> {
        let text = files::read_text(Path::new(PLACE).join("mutants.out").join(name))?;
        Ok(text.lines().map(str::to_owned).collect())
    };
    let lists = |names: [&str; 2]| Ok::<_, String>(list(names[0])?.len() + list(names[1])?.len());

    // Many a mutant runs for ever, so the time to wait is most of what it costs.
    let quick = mutate(&["--timeout", "20"]);
    let mut missed = list("missed.txt")?;
    let all = lists(["caught.txt", "timeout.txt"])? + missed.len();
    if all == 0 {
        return quick.and_then(|()| Err("not a single mutant was tried".to_owned()));
    }
    if !missed.is_empty() {
        let more = ["--cargo-arg=--test=conformance", "--iterate", "--baseline", "skip"];
        let packages = ["--test-package", "keydir", "--test-package", "keydir-integration"];
        let thorough = mutate(&[&more[..], &packages[..], &["--timeout", "120"]].concat());
        let still_missed = list("missed.txt")?;
        if still_missed.len() + lists(["caught.txt", "timeout.txt"])? < missed.len() {
            return thorough.and_then(|()| Err("what was missed at first was not tried again".to_owned()));
        }
        missed = still_missed;
    }
    let caught = all - missed.len();
    println!("mutants: {caught} of {all} caught, {} missed", missed.len());
    missed.iter().for_each(|mutant| println!("  {mutant}"));
    if caught * 100 >= all * CAUGHT_AT_LEAST {
        Ok(())
    } else {
        Err(format!("fewer than {CAUGHT_AT_LEAST} % of the mutants were caught"))
    }
}

/// Without a sanitizer, which would need a nightly compiler and find little: the crates forbid `unsafe`. The counters
/// that guide libFuzzer are in the stable compiler.
fn fuzz(seconds: u32) -> Outcome {
    let program = installed("cargo-fuzz", "0.13.2")?;
    for target in TARGETS {
        let mut fuzz = Command::new(&program);
        fuzz.args(["run", "--sanitizer", "none", target]);
        let seeds = format!("fuzz/seeds/{target}");
        if Path::new(&seeds).is_dir() {
            let corpus = format!("fuzz/corpus/{target}");
            files::create_directory(&corpus)?;
            fuzz.args([&corpus, &seeds]);
        }
        // Without the control it would try nothing but short inputs for a long time.
        fuzz.args([
            "--",
            "-len_control=0",
            &format!("-max_total_time={seconds}"),
            "-print_final_stats=1",
        ]);
        let words = format!("fuzz/seeds/{target}.dict");
        if Path::new(&words).is_file() {
            fuzz.arg(format!("-dict={words}"));
        }
        run::run(&mut fuzz)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_proof_is_refused() {
        for arguments in [&[][..], &["all"], &["torn", "twice"], &["fuzz", "--seconds"]] {
            let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
            assert!(
                prove(&arguments).is_err_and(|error| error.ends_with(USAGE)),
                "{arguments:?}"
            );
        }
        let arguments = ["fuzz", "--seconds", "0"].map(str::to_owned);
        assert_eq!(prove(&arguments), Err("`0` is no number of seconds".to_owned()));
    }
}
