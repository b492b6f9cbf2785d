//! Programs of the registry that chores call, each in one version.

use std::env;
use std::process::Command;

use crate::{Outcome, files, run};

/// Our own copies of the programs: what is installed for other projects stays as it is.
const PLACE: &str = "target/tools";

/// The pinned version of a program: from the path, from an earlier run, or built now (some minutes).
pub(crate) fn installed(name: &str, pinned: &str) -> Outcome<String> {
    let here = env::current_dir().map_err(|error| format!("no working directory: {error}"))?;
    let own = here.join(PLACE).join("bin").join(name).to_string_lossy().into_owned();
    // As cargo would call it: `cargo-mutants` wants to hear its name once more.
    let subcommand = name.trim_start_matches("cargo-");
    for program in [name, &own] {
        let says = |arguments: &[&str]| {
            let version = run::output_quietly(Command::new(program).args(arguments));
            version.is_ok_and(|version| version.trim_end() == format!("{name} {pinned}"))
        };
        if says(&["--version"]) || says(&[subcommand, "--version"]) {
            return Ok(program.to_owned());
        }
    }
    let build = format!("{PLACE}/build");
    let mut install = run::cargo();
    install.args(["install", "--locked", name, "--version", pinned]);
    run::run(install.args(["--root", PLACE, "--target-dir", &build]))?;
    files::remove_directory(&build)?;
    Ok(own)
}
