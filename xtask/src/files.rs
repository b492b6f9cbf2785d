//! Files of the repository, by paths relative to its root.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use crate::{Outcome, run};

/// Makes the root of the repository the working directory, wherever the chore was called from.
pub(crate) fn enter_root() -> Outcome {
    let own = env::var_os("CARGO_MANIFEST_DIR").ok_or("run this as `cargo xtask`")?;
    let root = Path::new(&own).parent().ok_or("xtask has no parent directory")?;
    env::set_current_dir(root).map_err(|error| format!("{}: {error}", root.display()))
}

#[allow(clippy::disallowed_methods, reason = "a chore reads whole files, at one place")]
pub(crate) fn read(path: impl AsRef<Path>) -> Outcome<Vec<u8>> {
    let path = path.as_ref();
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

pub(crate) fn read_text(path: impl AsRef<Path>) -> Outcome<String> {
    let path = path.as_ref();
    String::from_utf8(read(path)?).map_err(|_| format!("{}: not UTF-8", path.display()))
}

pub(crate) fn write(path: impl AsRef<Path>, content: &str) -> Outcome {
    let path = path.as_ref();
    fs::write(path, content).map_err(|error| format!("{}: {error}", path.display()))
}

pub(crate) fn create_directory(path: &str) -> Outcome {
    fs::create_dir_all(path).map_err(|error| format!("{path}: {error}"))
}

/// Removes a directory with all that is in it; one that is absent is fine.
pub(crate) fn remove_directory(path: &str) -> Outcome {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(format!("{path}: {error}")),
        _ => Ok(()),
    }
}

/// Every file that git tracks, or would track if it were added now.
pub(crate) fn all() -> Outcome<Vec<String>> {
    let listed = run::output(Command::new("git").args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--deduplicate",
    ]))?;
    let present = |path: &&str| !path.is_empty() && Path::new(path).is_file();
    Ok(listed.split('\0').filter(present).map(str::to_owned).collect())
}
