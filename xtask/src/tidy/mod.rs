//! What lints cannot see. Each rule is a function that gives its findings as lines; all are printed
//! together.

mod graph;
mod manifests;
mod msrv;
mod texts;

use crate::metadata::Metadata;
use crate::{Outcome, files};

/// Where the edges and the reasons for dependencies are written down.
const ARCHITECTURE: &str = "docs/architecture.md";

pub(crate) fn tidy() -> Outcome {
    let metadata = Metadata::load()?;
    let architecture = files::read_text(ARCHITECTURE)?;

    let mut findings = texts::check(&metadata, &files::all()?)?;
    findings.extend(manifests::check(&metadata)?);
    findings.extend(graph::check(&metadata, &architecture)?);
    findings.extend(msrv::check(&metadata)?);
    if findings.is_empty() {
        return msrv::compile(&metadata);
    }
    Err(format!("{} findings\n  {}", findings.len(), findings.join("\n  ")))
}
