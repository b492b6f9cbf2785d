//! `cargo xtask test`: everything that must pass.

use std::process::Command;

use crate::steps::Steps;
use crate::{Outcome, alone, canaries, files, fresh, package, run, tidy, tools};

/// All that the tests printed, kept for the search for secrets.
const LOG: &str = "target/test-output.log";

pub(crate) fn test() -> Outcome {
    let mut steps = Steps::default();
    steps.step("tools", tools::tools)?;
    steps.step("tidy", tidy::tidy)?;
    steps.step("packages alone", alone::alone)?;
    steps.step("tests", tests)?;
    steps.step("tests of the benches", benches)?;
    steps.step("no secret in the output", || canaries::search(LOG))?;
    steps.step("reference reader", reader)?;
    steps.step("first command", fresh::first_command)?;
    steps.step("archives", package::package)?;
    print!("{}", steps.table());
    Ok(())
}

/// `--show-output` prints what passing tests wrote, too: otherwise the log would hold nothing to be
/// searched. The benches stand apart, since the peers that they compare with turn features of rustls on.
fn tests() -> Outcome {
    files::create_directory("target")?;
    canaries::forget()?;
    let members = ["--workspace", "--exclude", "keydir-benches", "--all-features"];
    run::tee(
        run::cargo().arg("test").args(members).args(["--", "--show-output"]),
        LOG,
    )?;
    let log = files::read(LOG)?;
    let Sum { runs, passed, ignored } = sum(&String::from_utf8_lossy(&log));
    println!("{passed} tests passed in {runs} runs, {ignored} ignored");
    if passed == 0 {
        Err("no test has run".to_owned())
    } else {
        Ok(())
    }
}

fn benches() -> Outcome {
    run::run(run::cargo().args(["test", "-p", "keydir-benches", "--all-features"]))
}

/// The second implementation of docs/convention.md, against the cases that the `keydir` crate
/// passes as well.
fn reader() -> Outcome {
    let reader = || {
        let mut python = Command::new("python3");
        python.args(["-B", "integration/conformance/reader.py"]);
        python
    };
    run::run(&mut reader())?;
    run::run(reader().arg("--self-check"))
}

#[derive(Debug, Default, PartialEq)]
struct Sum {
    runs: u64,
    passed: u64,
    ignored: u64,
}

/// Adds up the closing lines of the test runners.
fn sum(log: &str) -> Sum {
    let mut sum = Sum::default();
    for line in log.lines().filter_map(|line| line.strip_prefix("test result: ")) {
        let count = |what: &str| {
            let words = line.split([' ', ';']).collect::<Vec<_>>();
            let found = words.windows(2).find_map(|pair| match pair {
                [number, word] if *word == what => number.parse::<u64>().ok(),
                _ => None,
            });
            found.unwrap_or_default()
        };
        sum.runs += 1;
        sum.passed += count("passed");
        sum.ignored += count("ignored");
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_added_up() {
        let log = "running 3 tests\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            noise 7 passed;\n\
            test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 1.10s\n";
        assert_eq!(
            sum(log),
            Sum {
                runs: 2,
                passed: 15,
                ignored: 1
            }
        );
    }
}
