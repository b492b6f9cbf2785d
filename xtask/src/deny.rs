//! Licences, bans, sources and advisories of all dependencies, by cargo-deny and `deny.toml`.

use std::process::Command;

use crate::installed::installed;
use crate::{Outcome, run};

const VERSION: &str = "0.20.2";

pub(crate) fn deny() -> Outcome {
    let program = installed("cargo-deny", VERSION)?;
    run::run(Command::new(&program).args(["check", "licenses", "bans", "sources"]))?;
    match run::output_quietly(Command::new(&program).args(["fetch", "db"])) {
        Ok(_) => run::run(Command::new(&program).args(["check", "--disable-fetch", "advisories"])),
        Err(error) => {
            println!("SKIPPED: advisories; their database cannot be had from here\n{error}");
            Ok(())
        }
    }
}
