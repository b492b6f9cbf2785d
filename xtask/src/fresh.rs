//! The README's first command, from a fresh clone: nothing that only this working tree has may be needed.

use std::process::Command;

use crate::{Outcome, files, run};

const CLONE: &str = "target/fresh-clone";
/// Beside the clone, so that what was built once is there the next time.
const BUILT: &str = "../fresh-clone-target";
const LAST_LINES: &str = "failed: 0\nremoved CA: refused (full), refused (resumed)\n";

pub(crate) fn first_command() -> Outcome {
    let readme = files::read_text("README.md")?;
    let command = readme.lines().find(|line| line.starts_with("cargo run "));
    let command = command.ok_or("README.md does not show a first command")?;
    files::remove_directory(CLONE)?;
    run::run(Command::new("git").args(["clone", "--quiet", ".", CLONE]))?;
    let mut cargo = run::cargo();
    cargo
        .args(command.split(' ').skip(1))
        .args(["--quiet", "--target-dir", BUILT])
        .current_dir(CLONE);
    // Options of the program itself would come after `--`: it runs as it stands in the README.
    let printed = run::output(&mut cargo)?;
    print!("{printed}");
    match printed.ends_with(LAST_LINES) {
        true => Ok(()),
        false => Err(format!("`{command}` ended with other lines than the README says")),
    }
}
