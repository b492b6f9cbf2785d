//! The archives that would go to the registry: they can be built, hold what a user must get, and
//! compile.

use std::path::Path;
use std::process::Command;

use crate::metadata::{Metadata, Package};
use crate::{Outcome, files, run};

/// What each archive holds beside its code.
const REQUIRED: &[&str] = &["README.md", "LICENSE-MIT", "LICENSE-APACHE"];
const UNPACKED: &str = "target/package-check";

/// Cargo's own verification builds every archive with all its dependencies anew, one after the
/// other. Here the archives are unpacked into a workspace of their own, which is checked in one go
/// and shares what the other steps have built.
pub(crate) fn package() -> Outcome {
    let metadata = Metadata::load()?;
    let packages: Vec<&Package> = metadata.publishable().collect();
    let mut package = run::cargo();
    package.args([
        "package",
        "--quiet",
        "--no-verify",
        "--allow-dirty",
        "--target-dir=target",
    ]);
    for Package { name, .. } in &packages {
        package.args(["--package", name]);
    }
    run::run(&mut package)?;

    files::remove_directory(UNPACKED)?;
    files::create_directory(UNPACKED)?;
    for Package { name, version, .. } in &packages {
        let archive = format!("target/package/{name}-{version}.crate");
        run::output(Command::new("tar").args(["-xzf", &archive, "-C", UNPACKED]))?;
        for file in REQUIRED {
            if !Path::new(&format!("{UNPACKED}/{name}-{version}/{file}")).is_file() {
                return Err(format!(
                    "the archive of {name} has no {file}; a link to the one in the root is enough"
                ));
            }
        }
    }
    files::write(format!("{UNPACKED}/Cargo.toml"), &workspace(&packages))?;
    files::write(format!("{UNPACKED}/Cargo.lock"), &files::read_text("Cargo.lock")?)?;
    let mut check = run::cargo();
    check.args(["check", "--workspace", "--all-features", "--target-dir=target"]);
    run::run(check.args(["--manifest-path", &format!("{UNPACKED}/Cargo.toml")]))
}

/// The manifest over the unpacked archives, in which they use each other.
fn workspace(packages: &[&Package]) -> String {
    let members = packages
        .iter()
        .map(|package| format!("    \"{}-{}\",\n", package.name, package.version));
    let patches = packages
        .iter()
        .map(|Package { name, version, .. }| format!("{name} = {{ path = \"{name}-{version}\" }}\n"));
    format!(
        "[workspace]\nresolver = \"3\"\nmembers = [\n{}]\n\n[patch.crates-io]\n{}",
        members.collect::<String>(),
        patches.collect::<String>()
    )
}
