//! Edges between members, and reasons for foreign dependencies: as docs/architecture.md has them.

use std::collections::BTreeSet;

use super::ARCHITECTURE;
use crate::Outcome;
use crate::metadata::{Metadata, Package};

/// The comment before the block of edges.
const EDGES: &str = "<!-- edges -->";

type Edge<'a> = (&'a str, &'a str);

pub(super) fn check(metadata: &Metadata, architecture: &str) -> Outcome<Vec<String>> {
    let names: BTreeSet<&str> = metadata.members().map(|member| member.name.as_str()).collect();
    let actual = metadata.members().flat_map(|member| edges_of(member, &names)).collect();
    let mut findings = compare(&listed(architecture)?, &actual);

    let used = metadata.publishable().flat_map(|package| &package.dependencies);
    let foreign: BTreeSet<&str> = used
        .filter(|dependency| dependency.kind.as_deref() != Some("dev"))
        .map(|dependency| dependency.name.as_str())
        .filter(|name| !names.contains(name))
        .collect();
    let unnamed = foreign
        .into_iter()
        .filter(|name| !architecture.contains(&format!("`{name}`")));
    findings.extend(unnamed.map(|name| format!("{ARCHITECTURE}: no word about the dependency `{name}`")));
    Ok(findings)
}

fn edges_of<'a>(member: &'a Package, members: &BTreeSet<&str>) -> BTreeSet<Edge<'a>> {
    let targets = member.dependencies.iter().map(|dependency| dependency.name.as_str());
    // A package may name itself among its development dependencies, to turn features on.
    let others = targets.filter(|name| members.contains(name) && *name != member.name);
    others.map(|target| (member.name.as_str(), target)).collect()
}

/// Reads the fenced block after the comment: one `from -> to` a line; `*` stands for every member.
fn listed(architecture: &str) -> Outcome<BTreeSet<Edge<'_>>> {
    let mut lines = architecture.lines().skip_while(|line| line.trim() != EDGES).skip(1);
    let fence = lines.find(|line| !line.trim().is_empty()).unwrap_or_default();
    if !fence.starts_with("```") {
        return Err(format!("{ARCHITECTURE}: no fenced block after `{EDGES}`"));
    }
    let entries = lines
        .take_while(|line| !line.starts_with("```"))
        .filter(|line| !line.trim().is_empty());
    entries
        .map(|line| match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            &[from, "->", to] => Ok((from, to)),
            _ => Err(format!("{ARCHITECTURE}: not an edge: `{line}`")),
        })
        .collect()
}

fn compare(listed: &BTreeSet<Edge<'_>>, actual: &BTreeSet<Edge<'_>>) -> Vec<String> {
    let covers = |&(from, to): &Edge<'_>, edge: &Edge<'_>| from == edge.0 && (to == "*" || to == edge.1);
    let unlisted = actual
        .iter()
        .filter(|edge| !listed.iter().any(|entry| covers(entry, edge)));
    let stale = listed
        .iter()
        .filter(|entry| !actual.iter().any(|edge| covers(entry, edge)));
    unlisted
        .map(|(from, to)| format!("{from} -> {to}: an edge that {ARCHITECTURE} does not list"))
        .chain(stale.map(|(from, to)| format!("{ARCHITECTURE}: lists {from} -> {to}, which does not exist")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_read() {
        let text = "# A\n```\nx -> y\n```\n<!-- edges -->\n\n```text\na -> b\n\nc -> *\n```\nd -> e\n";
        assert_eq!(listed(text).unwrap(), BTreeSet::from([("a", "b"), ("c", "*")]));
        for bad in ["", "<!-- edges -->\na -> b", "<!-- edges -->\n```\na b\n```"] {
            assert!(listed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn both_directions_are_compared() {
        let check = |listed: &[Edge<'_>], actual: &[Edge<'_>], findings: usize| {
            let found = compare(&listed.iter().copied().collect(), &actual.iter().copied().collect());
            assert_eq!(found.len(), findings, "{found:?}");
        };
        check(&[("a", "b"), ("c", "*")], &[("a", "b"), ("c", "a"), ("c", "b")], 0);
        check(&[("a", "b")], &[("b", "a")], 2);
        check(&[("a", "b"), ("b", "*")], &[("a", "b")], 1);
        check(&[], &[("a", "b"), ("a", "c")], 2);
    }
}
