//! `cargo xtask prove`: the proofs at their full counts; docs/proofs.md has what came out.

use std::env;
use std::path::Path;
use std::process::Command;

use crate::installed::installed;
use crate::{Outcome, files, run};

/// Tests of `keydir-integration` that count more if `KEYDIR_PROVE` is set.
const COUNTED: &[&str] = &["torn", "sessions", "rotation"];

pub(crate) const USAGE: &str = "\
usage: cargo xtask prove <name>

  torn      R1: no read is torn, no publication goes backwards
  rotation  R2: nothing fails while leaves and CAs rotate under load
  sessions  R3: no session of a removed CA is resumed
  mutants   R9: the tests catch what is broken in the core's logic (an hour or more)
  fuzz      the parsers, on bytes that libFuzzer finds; --seconds N for each target, 60 without it
";

/// What decides about names, sets and revocation.
const MUTATED: &[&str] = &["name", "reconcile", "offers", "publication", "graves"];
/// In percent.
const CAUGHT_AT_LEAST: usize = 95;

const TARGETS: &[&str] = &["names", "tree", "pem", "session"];

pub(crate) fn prove(arguments: &[String]) -> Outcome {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["mutants"] => mutants(),
        ["fuzz"] => fuzz(60),
        ["fuzz", "--seconds", seconds] => match seconds.parse() {
            Ok(seconds) if seconds > 0 => fuzz(seconds),
            _ => Err(format!("`{seconds}` is no number of seconds")),
        },
        [name] if COUNTED.contains(name) => counted(name),
        _ => Err(format!("that is no proof\n\n{USAGE}")),
    }
}

fn counted(name: &str) -> Outcome {
    let mut test = run::cargo();
    test.args(["test", "--release", "-p", "keydir-integration", "--test", name]);
    run::run(test.args(["--", "--nocapture"]).env("KEYDIR_PROVE", "1"))
}

/// In a copy of the tree, and with a target directory of its own. Of all the tests, those that are about this logic.
fn mutants() -> Outcome {
    const PLACE: &str = "target/mutants";
    const PACKAGES: [&str; 2] = ["keydir", "keydir-integration"];
    const TESTS: [&str; 2] = ["--lib", "--test=conformance"];
    let program = installed("cargo-mutants", "27.1.0")?;
    files::create_directory(PLACE)?;
    let here = env::current_dir().map_err(|error| format!("no working directory: {error}"))?;
    let apart = |command: &mut Command| {
        command.env("CARGO_TARGET_DIR", here.join(PLACE).join("build"));
        command.env("CARGO_PROFILE_DEV_DEBUG", "0");
    };

    // Its own run without a mutant would look for all the tests in the one package that it changes.
    let mut unchanged = run::cargo();
    unchanged.arg("test").args(TESTS);
    PACKAGES.iter().for_each(|package| _ = unchanged.args(["-p", package]));
    apart(&mut unchanged);
    run::run(&mut unchanged)?;

    let mut mutate = Command::new(program);
    mutate.args(["mutants", "--output", PLACE, "--package", "keydir", "--no-times"]);
    mutate.args(["--baseline", "skip", "--timeout", "120"]);
    for module in MUTATED {
        mutate.args(["--file", &format!("crates/keydir/src/{module}.rs")]);
    }
    PACKAGES
        .iter()
        .for_each(|package| _ = mutate.args(["--test-package", package]));
    TESTS
        .iter()
        .for_each(|test| _ = mutate.arg(format!("--cargo-arg={test}")));
    apart(&mut mutate);
    let result = run::run(&mut mutate);

    // It fails if a single one was missed, so what counts is what it wrote down.
    let list = |name: &str| -> Outcome<Vec<String>> {
        let text = files::read_text(Path::new(PLACE).join("mutants.out").join(name))?;
        Ok(text.lines().map(str::to_owned).collect())
    };
    let (caught, missed) = (
        list("caught.txt")?.len() + list("timeout.txt")?.len(),
        list("missed.txt")?,
    );
    if caught == 0 {
        return result.and_then(|()| Err("not a single mutant was tried".to_owned()));
    }
    let all = caught + missed.len();
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
