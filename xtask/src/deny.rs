//! Licences, bans, sources and advisories of all dependencies, by cargo-deny and `deny.toml`.

use std::env;
use std::process::Command;

use crate::{Outcome, files, run};

const VERSION: &str = "0.20.2";
/// Our own copy of the program: what is installed for other projects stays as it is.
const PLACE: &str = "target/tools";

pub(crate) fn deny() -> Outcome {
    let program = program()?;
    run::run(Command::new(&program).args(["check", "licenses", "bans", "sources"]))?;
    match run::output_quietly(Command::new(&program).args(["fetch", "db"])) {
        Ok(_) => run::run(Command::new(&program).args(["check", "--disable-fetch", "advisories"])),
        Err(error) => {
            println!("SKIPPED: advisories; their database cannot be had from here\n{error}");
            Ok(())
        }
    }
}

/// The pinned version: from the path, from an earlier run, or built now (some minutes).
fn program() -> Outcome<String> {
    let here = env::current_dir().map_err(|error| format!("no working directory: {error}"))?;
    let own = here.join(PLACE).join("bin/cargo-deny").to_string_lossy().into_owned();
    for program in ["cargo-deny", &own] {
        let version = run::output_quietly(Command::new(program).arg("--version"));
        if version.is_ok_and(|version| version.trim_end() == format!("cargo-deny {VERSION}")) {
            return Ok(program.to_owned());
        }
    }
    let build = format!("{PLACE}/build");
    let mut install = run::cargo();
    install.args(["install", "--locked", "cargo-deny", "--version", VERSION]);
    run::run(install.args(["--root", PLACE, "--target-dir", &build]))?;
    files::remove_directory(&build)?;
    Ok(own)
}
