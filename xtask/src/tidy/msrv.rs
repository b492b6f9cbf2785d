//! The minimum Rust version: no dependency of a published crate asks for a later one. That our own
//! code keeps to it is clippy's `incompatible_msrv`; where that toolchain is installed, it compiles
//! the crates as well.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::metadata::{Metadata, Node, Package};
use crate::{Outcome, run};

/// A feature that is off by default and named like the dependency for which it needs a later version, as its
/// documentation says.
struct Later {
    member: &'static str,
    feature: &'static str,
    version: &'static str,
}

/// sqlx: an older one would be another `PgPool` than the one that its users have.
const LATER: [Later; 1] = [Later {
    member: "keydir-postgres",
    feature: "sqlx",
    version: "1.94",
}];

pub(super) fn check(metadata: &Metadata) -> Outcome<Vec<String>> {
    let packages: BTreeMap<&str, &Package> = metadata
        .packages
        .iter()
        .map(|package| (package.id.as_str(), package))
        .collect();
    let name = |id| packages.get(id).map(|package| package.name.as_str());
    let excepted = |from, to| LATER.iter().find(|later| is_edge(later, name(from), name(to)));
    let published = metadata.publishable().map(|package| package.id.as_str()).collect();
    let mut findings = later_than(
        minimum(metadata)?,
        reachable(metadata, published, |from, to| excepted(from, to).is_none()),
        &packages,
    )?;
    for later in &LATER {
        let named = metadata.packages.iter().filter(|package| package.name == later.feature);
        let named = named.map(|package| package.id.as_str()).collect();
        findings.extend(later_than(
            later.version,
            reachable(metadata, named, |_, _| true),
            &packages,
        )?);
    }
    Ok(findings)
}

fn is_edge(later: &Later, from: Option<&str>, to: Option<&str>) -> bool {
    (from, to) == (Some(later.member), Some(later.feature))
}

fn later_than(own: &str, ids: BTreeSet<&str>, packages: &BTreeMap<&str, &Package>) -> Outcome<Vec<String>> {
    let own = version(own)?;
    let mut findings = Vec::new();
    for package in ids.into_iter().filter_map(|id| packages.get(id)) {
        if let Some(needed) = package.rust_version.as_deref()
            && version(needed)? > own
        {
            findings.push(format!("{} {} needs Rust {needed}", package.name, package.version));
        }
    }
    Ok(findings)
}

/// Compiles the published crates with the minimum version, if rustup has it; nothing is downloaded.
pub(super) fn compile(metadata: &Metadata) -> Outcome {
    let minimum = minimum(metadata)?;
    let Ok(toolchains) = Command::new("rustup").args(["toolchain", "list"]).output() else {
        return Ok(());
    };
    let toolchains = String::from_utf8_lossy(&toolchains.stdout).into_owned();
    let Some(toolchain) = toolchains
        .lines()
        .filter_map(|line| line.split(' ').next())
        .find(|name| is(name, minimum))
    else {
        println!("Rust {minimum} is not installed: declared versions were compared, nothing compiled");
        return Ok(());
    };
    let selection = metadata.publishable().flat_map(|package| ["--package", &package.name]);
    // Cargo and rustc of the toolchain at hand must not be handed down to the other one.
    let mut check = Command::new("rustup");
    check
        .args([
            "run",
            toolchain,
            "cargo",
            "check",
            "--features",
            &features(metadata),
            "--target-dir",
            "target/msrv",
        ])
        .args(selection);
    run::run(
        check
            .env_remove("CARGO")
            .env_remove("RUSTC")
            .env_remove("RUSTUP_TOOLCHAIN"),
    )
}

/// All features of the published crates but those that need a later version.
fn features(metadata: &Metadata) -> String {
    let of = |package: &'_ Package| {
        let is_later = |name: &str| {
            let mut later = LATER.iter();
            later.any(|later| (later.member, later.feature) == (package.name.as_str(), name))
        };
        let names = package.features.keys().filter(|name| !is_later(name));
        names.map(|name| format!("{}/{name}", package.name)).collect::<Vec<_>>()
    };
    metadata.publishable().flat_map(of).collect::<Vec<_>>().join(",")
}

/// The version of the workspace; every member takes it from there.
fn minimum(metadata: &Metadata) -> Outcome<&str> {
    let declared = metadata.publishable().map(|package| package.rust_version.as_deref());
    let declared: BTreeSet<Option<&str>> = declared.collect();
    match declared.iter().copied().collect::<Vec<_>>().as_slice() {
        &[Some(version)] => Ok(version),
        different => Err(format!(
            "published members have different values of rust-version: {different:?}"
        )),
    }
}

/// All packages that a user of these compiles, along the edges that count.
fn reachable<'a>(
    metadata: &'a Metadata,
    mut next: Vec<&'a str>,
    counts: impl Fn(&'a str, &'a str) -> bool,
) -> BTreeSet<&'a str> {
    let nodes: BTreeMap<&str, &Node> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| (node.id.as_str(), node))
        .collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = next.pop() {
        if seen.insert(id) {
            let edges = nodes.get(id).map(|node| node.deps.as_slice()).unwrap_or_default();
            let compiled = |kind: &Option<String>| kind.as_deref() != Some("dev");
            let used = edges
                .iter()
                .filter(|edge| edge.dep_kinds.iter().any(|kind| compiled(&kind.kind)));
            let used = used.map(|edge| edge.pkg.as_str());
            next.extend(used.filter(|to| counts(id, to)));
        }
    }
    seen
}

/// Whether a toolchain's name, as in `1.88.0-x86_64-unknown-linux-gnu`, is of this version.
fn is(toolchain: &str, minimum: &str) -> bool {
    let number = toolchain.split('-').next().unwrap_or_default();
    let (Ok(one), Ok(other)) = (version(number), version(minimum)) else {
        return false;
    };
    one == other
}

fn version(text: &str) -> Outcome<[u32; 3]> {
    let wrong = || format!("not a Rust version: {text}");
    let mut numbers = [0; 3];
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() > numbers.len() {
        return Err(wrong());
    }
    for (number, part) in numbers.iter_mut().zip(parts) {
        *number = part.parse().map_err(|_| wrong())?;
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(version("1.88").unwrap() < version("1.100.0").unwrap());
        assert!(version("1.88").unwrap() < version("1.88.1").unwrap());
        assert_eq!(version("1.88"), version("1.88.0"));
        for bad in ["", "stable", "1.88.0.1", "1.88-beta"] {
            assert!(version(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn toolchains_are_recognised() {
        assert!(is("1.88.0-x86_64-unknown-linux-gnu", "1.88"));
        assert!(is("1.88-x86_64-unknown-linux-gnu", "1.88"));
        for other in [
            "stable-x86_64-unknown-linux-gnu",
            "1.88.1-x86_64-unknown-linux-gnu",
            "1.8",
            "",
        ] {
            assert!(!is(other, "1.88"), "{other}");
        }
    }
}
