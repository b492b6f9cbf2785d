//! Each library package by itself: a build of the whole workspace joins the features of all
//! members, and so hides what one of them forgot to ask for.

use std::collections::BTreeMap;

use crate::metadata::Metadata;
use crate::{Outcome, files, run};

const LOG: &str = "target/alone-output.log";

pub(crate) fn alone() -> Outcome {
    files::create_directory("target")?;
    let metadata = Metadata::load()?;
    for package in metadata.publishable().filter(|package| package.is_library()) {
        for features in feature_sets(&package.features) {
            let mut check = run::cargo();
            check.args(["check", "--package", &package.name]).args(features);
            run::tee(check.env("CARGO_TERM_COLOR", "never"), LOG)?;
            if has_warnings(&files::read_text(LOG)?) {
                return Err(format!("`{}` must not warn", run::line(&check)));
            }
        }
    }
    Ok(())
}

/// Features that are off leave unused imports behind. `-D warnings` would find them as well, but
/// flags for the compiler make it build every dependency once more.
fn has_warnings(output: &str) -> bool {
    output
        .lines()
        .any(|line| line.starts_with("warning: `") && line.contains(" generated "))
}

/// The arguments for each set of features that differs from the others.
fn feature_sets(features: &BTreeMap<String, Vec<String>>) -> Vec<Option<&'static str>> {
    let default = features.get("default").is_some_and(|default| !default.is_empty());
    let others = features.keys().any(|name| name != "default");
    let sets = [
        Some(None),
        default.then_some(Some("--no-default-features")),
        others.then_some(Some("--all-features")),
    ];
    sets.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sets_that_differ() {
        let check = |features: &[(&str, &[&str])], expected: &[Option<&str>]| {
            let own = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
            let features = features
                .iter()
                .map(|&(name, implied)| (name.to_owned(), own(implied)))
                .collect();
            assert_eq!(feature_sets(&features), expected);
        };
        check(&[], &[None]);
        check(&[("default", &[])], &[None]);
        check(&[("default", &[]), ("a", &[])], &[None, Some("--all-features")]);
        check(
            &[("default", &["a"]), ("a", &[])],
            &[None, Some("--no-default-features"), Some("--all-features")],
        );
    }

    #[test]
    fn warnings_are_seen() {
        assert!(has_warnings(
            "x\nwarning: `keydir` (lib) generated 2 warnings (run `cargo fix`)\n"
        ));
        assert!(!has_warnings(
            "    Checking keydir v0.1.0\n    Finished `dev` profile in 0.01s\n"
        ));
    }
}
