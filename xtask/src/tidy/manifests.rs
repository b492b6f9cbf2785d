//! Versions of dependencies are said once, in the manifest of the workspace.

use crate::metadata::Metadata;
use crate::{Outcome, files};

pub(super) fn check(metadata: &Metadata) -> Outcome<Vec<String>> {
    let mut findings = Vec::new();
    for package in metadata.members() {
        let path = metadata.directory(package)?.join("Cargo.toml");
        let own = own_versions(&files::read_text(&path)?);
        findings.extend(
            own.iter()
                .map(|name| format!("{}: {name} lacks `workspace = true`", path.display())),
        );
    }
    Ok(findings)
}

/// The dependencies that do not take their version from the workspace.
///
/// This reads TOML as people write manifests, not all of it: tables, and entries whose value may go
/// on over lines.
fn own_versions(manifest: &str) -> Vec<String> {
    let mut found = Vec::new();
    // The dependency whose own table we are in, until it turns out to be fine.
    let mut pending: Option<String> = None;
    let mut in_list = false;
    let mut lines = manifest.lines().map(without_comment);
    while let Some(line) = lines.next() {
        if let Some(table) = line.strip_prefix('[') {
            found.extend(pending.take());
            let table = table.trim_end_matches(']').trim();
            let mut parts = table.rsplitn(2, "dependencies");
            let (after, before) = (parts.next().unwrap_or_default(), parts.next());
            in_list = before.is_some() && after.is_empty();
            pending = before.and_then(|_| after.strip_prefix('.')).map(str::to_owned);
            continue;
        }
        let mut entry = line.to_owned();
        while open_brackets(&entry) > 0 {
            let Some(next) = lines.next() else { break };
            entry.push_str(next);
        }
        let Some((key, value)) = entry.split_once('=') else {
            continue;
        };
        let (key, value) = (key.trim(), compact(value));
        if pending.is_some() && key == "workspace" && value == "true" {
            pending = None;
        }
        if in_list {
            let fine = match key.split_once('.') {
                Some((_, "workspace")) => value == "true",
                // Something else about a dependency that has a line of its own.
                Some((name, _)) => manifest
                    .lines()
                    .any(|line| compact(line) == format!("{name}.workspace=true")),
                None => {
                    ["{workspace=true}", "{workspace=true,"]
                        .iter()
                        .any(|start| value.starts_with(start))
                        || value.contains(",workspace=true")
                }
            };
            if !fine {
                found.push(key.to_owned());
            }
        }
    }
    found.extend(pending);
    found
}

/// Good enough for manifests, where `#` in a string is as rare as a dependency that needs one.
fn without_comment(line: &str) -> &str {
    line.split_once('#').map_or(line, |(before, _)| before).trim()
}

fn compact(text: &str) -> String {
    text.split_whitespace().collect()
}

fn open_brackets(entry: &str) -> usize {
    entry
        .matches(['[', '{'])
        .count()
        .saturating_sub(entry.matches([']', '}']).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(manifest: &str, expected: &[&str]) {
        assert_eq!(own_versions(manifest), expected, "{manifest}");
    }

    #[test]
    fn from_the_workspace() {
        check("[package]\nname = \"x\"\nversion = \"1\"\n[features]\na = []\n", &[]);
        check(
            "[dependencies]\na.workspace = true\nb = { workspace = true, optional = true } # why\n",
            &[],
        );
        check(
            "[dependencies]\na = { optional = true, workspace = true }\na-b = {workspace=true}\n",
            &[],
        );
        check(
            "[dependencies]\na = { workspace = true, features = [\n  \"x\",\n  \"y\",\n] }\nb.workspace = true\n",
            &[],
        );
        check(
            "[target.'cfg(unix)'.dependencies.a]\nfeatures = []\nworkspace = true\n[lints]\nworkspace = true\n",
            &[],
        );
        check("[dependencies]\na.workspace = true\na.optional = true\n", &[]);
    }

    #[test]
    fn versions_of_their_own() {
        check(
            "[dependencies]\na = \"1\"\nb.workspace = true\n[dev-dependencies]\nc = { path = \"..\" }\n",
            &["a", "c"],
        );
        check(
            "[build-dependencies]\na = { version = \"1\", features = [\n  \"x\",\n] }\n",
            &["a"],
        );
        check("[target.'cfg(unix)'.dependencies]\na.version = \"1\"\n", &["a.version"]);
        check("[dependencies.a]\nversion = \"1\"\n[lints]\nworkspace = true\n", &["a"]);
        check(
            "[lints]\nworkspace = true\n[dev-dependencies.b]\nversion = \"1\"\n",
            &["b"],
        );
    }
}
