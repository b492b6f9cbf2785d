//! Rules about single files: heads of source files, crate pages, paths that exist on one machine
//! only.

use crate::metadata::Metadata;
use crate::{Outcome, files};

/// Where each source file begins with a line that says what it is for.
const EXPLAINED: &[&str] = &["benches/", "crates/", "examples/", "fuzz/", "integration/", "xtask/"];
const README_AS_DOCS: &str = r#"#![doc = include_str!("../README.md")]"#;
/// Put together from halves, so that this file does not hold them itself.
const PRIVATE: &[&str] = &[
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
    concat!("/wo", "rk/"),
    concat!(".lib", "rary"),
];

pub(super) fn check(metadata: &Metadata, paths: &[String]) -> Outcome<Vec<String>> {
    let mut findings = Vec::new();
    for path in paths {
        let content = files::read(path)?;
        let text = String::from_utf8_lossy(&content);
        let explained = path.ends_with(".rs") && EXPLAINED.iter().any(|place| path.starts_with(place));
        if explained && !is_explained(&text) {
            findings.push(format!("{path}: does not begin with a `//!` line"));
        }
        findings.extend(
            private_paths(&text).map(|(line, word)| format!("{path}:{line}: `{word}` is a place on one machine")),
        );
    }
    for package in metadata.publishable() {
        let directory = metadata.directory(package)?;
        if !directory.join("README.md").is_file() {
            findings.push(format!("{}: no README.md", directory.display()));
        } else if package.is_library() && !files::read_text(directory.join("src/lib.rs"))?.contains(README_AS_DOCS) {
            findings.push(format!("{}: its lib.rs lacks `{README_AS_DOCS}`", directory.display()));
        }
    }
    Ok(findings)
}

/// A crate whose page is its README is explained by that.
fn is_explained(text: &str) -> bool {
    let head = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    head.strip_prefix("//!").is_some_and(|rest| !rest.trim().is_empty()) || head == README_AS_DOCS
}

/// Lines that hold a private path. `docs/work/plan` is not one: the path has to begin there.
fn private_paths(text: &str) -> impl Iterator<Item = (usize, &'static str)> {
    let begins = |line: &str, word: &str| {
        line.match_indices(word).any(|(at, _)| {
            !line
                .get(..at)
                .is_some_and(|before| before.ends_with(|c: char| c.is_alphanumeric() || "._-~}".contains(c)))
        })
    };
    text.lines().enumerate().flat_map(move |(index, line)| {
        PRIVATE
            .iter()
            .filter(move |word| begins(line, word))
            .map(move |&word| (index + 1, word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        for good in [
            "//! What.\n",
            "\n//! What.\nmod a;",
            "#![doc = include_str!(\"../README.md\")]\n",
        ] {
            assert!(is_explained(good), "{good}");
        }
        for bad in ["", "//!\nmod a;", "mod a;\n//! Late.", "// What.\n", "/// What.\n"] {
            assert!(!is_explained(bad), "{bad}");
        }
    }

    #[test]
    fn private_places() {
        let bad = format!("fine\nsee {}it/x\n`{}/a`", PRIVATE[1], PRIVATE[4]);
        assert_eq!(
            private_paths(&bad).collect::<Vec<_>>(),
            [(2, PRIVATE[1]), (3, PRIVATE[4])]
        );
        let good = format!("docs{0}plan, a.b{0}c, /net{1}c, /run/secrets", PRIVATE[3], PRIVATE[0]);
        assert_eq!(private_paths(&good).count(), 0);
    }
}
