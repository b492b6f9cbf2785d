//! What `cargo metadata` says about the workspace, as far as the chores need it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::{Outcome, run};

/// The platform that the project is for; dependencies of others do not count.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) resolve: Resolve,
    workspace_members: Vec<String>,
    workspace_root: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) rust_version: Option<String>,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) features: BTreeMap<String, Vec<String>>,
    targets: Vec<Target>,
    manifest_path: String,
    publish: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `dev`, `build`, or nothing for a normal one.
    pub(crate) kind: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
}

/// The graph with all features on.
#[derive(Debug, Deserialize)]
pub(crate) struct Resolve {
    pub(crate) nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) deps: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Edge {
    pub(crate) pkg: String,
    pub(crate) dep_kinds: Vec<EdgeKind>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct EdgeKind {
    pub(crate) kind: Option<String>,
}

impl Metadata {
    pub(crate) fn load() -> Outcome<Self> {
        let json = run::output(run::cargo().args([
            "metadata",
            "--format-version=1",
            "--all-features",
            "--filter-platform",
            PLATFORM,
        ]))?;
        serde_json::from_str(&json).map_err(|error| format!("cargo metadata is not understood: {error}"))
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages
            .iter()
            .filter(|package| self.workspace_members.contains(&package.id))
    }

    pub(crate) fn publishable(&self) -> impl Iterator<Item = &Package> {
        self.members()
            .filter(|package| package.publish.as_ref().is_none_or(|to| !to.is_empty()))
    }

    /// The directory of a member, relative to the root of the workspace.
    pub(crate) fn directory<'a>(&self, package: &'a Package) -> Outcome<&'a Path> {
        Path::new(&package.manifest_path)
            .parent()
            .and_then(|directory| directory.strip_prefix(&self.workspace_root).ok())
            .ok_or_else(|| format!("{} lies outside the workspace", package.manifest_path))
    }
}

impl Package {
    pub(crate) fn is_library(&self) -> bool {
        self.targets
            .iter()
            .flat_map(|target| &target.kind)
            .any(|kind| kind == "lib" || kind == "proc-macro")
    }
}
