//! What a consumer's report says of a directory.

use std::collections::{BTreeMap, BTreeSet};

use keydir::RevisionId;
use serde::Deserialize;

use crate::consumer::Said;

/// Longer ones are none.
pub(crate) const MOST: u64 = 64 << 20;

/// The parts of a report (`keydir::report()`) that count here.
#[derive(Deserialize)]
struct Report {
    version: u32,
    directories: Vec<Directory>,
}

#[derive(Deserialize)]
struct Directory {
    path: String,
    checked: Option<u64>,
    fault: Option<String>,
    sets: Vec<LiveSet>,
}

#[derive(Deserialize)]
struct LiveSet {
    #[serde(rename = "use")]
    usage: String,
    publication: Option<String>,
    adopted: bool,
    revisions: BTreeMap<RevisionId, Revision>,
}

#[derive(Deserialize)]
struct Revision {
    uses: u64,
}

/// Why a report says nothing.
#[derive(Debug)]
pub(crate) enum Unusable {
    Broken(serde_json::Error),
    Version(u32),
    /// The directory is not in it; these are.
    NotThere(Vec<String>),
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Broken(error) => write!(f, "it is no report of keydir: {error}"),
            Self::Version(version) => write!(f, "it is of version {version}, which is not known here"),
            Self::NotThere(paths) => write!(
                f,
                "the directory is not among those that it has open ({}): say `directory` if it has another path there",
                paths.join(", ")
            ),
        }
    }
}

impl Said {
    /// What a report, as JSON, says of the directory that its process has open at this path.
    pub(crate) fn of_report(json: &[u8], path: &str) -> Result<Self, Unusable> {
        let report: Report = serde_json::from_slice(json).map_err(Unusable::Broken)?;
        if report.version != 1 {
            return Err(Unusable::Version(report.version));
        }
        let mut all: Vec<&Directory> = report
            .directories
            .iter()
            .filter(|directory| directory.path == path)
            .collect();
        // A process may have it open more than once: then the one that is furthest behind counts.
        all.sort_by_key(|directory| directory.checked);
        let Some(first) = all.first() else {
            let paths = report.directories.into_iter().map(|directory| directory.path).collect();
            return Err(Unusable::NotThere(paths));
        };
        let mut said = Self {
            checked: first.checked.unwrap_or_default(),
            ..Self::default()
        };
        let sets = || all.iter().flat_map(|directory| &directory.sets);
        let publications: BTreeSet<&Option<String>> = sets().map(|set| &set.publication).collect();
        // Sets of one directory load one after the other.
        if let Some(only) = publications.first().filter(|_| publications.len() == 1) {
            said.publication.clone_from(only);
        }
        for fault in all.iter().filter_map(|directory| directory.fault.as_ref()) {
            said.not_adopted.insert(fault.clone());
        }
        for set in sets() {
            if !set.adopted {
                said.not_adopted.insert(set.usage.clone());
            }
            for (id, revision) in &set.revisions {
                let uses: &mut u64 = said.uses.entry(id.clone()).or_default();
                *uses = uses.saturating_add(revision.uses);
            }
        }
        Ok(said)
    }
}

#[cfg(test)]
mod tests {
    use keydir::{Dir, uses};

    use super::*;

    #[test]
    fn reports_are_read_as_they_are_written() {
        struct Tokens;
        impl keydir::View for Tokens {
            type Item = ();
            type Whole = ();
            fn usage(&self) -> &keydir::Usage {
                &uses::TOKEN
            }
            fn parse(&self, _: &keydir::Revision<'_>) -> Result<keydir::Parsed<()>, keydir::Unusable> {
                Ok(keydir::Parsed::new(()))
            }
            fn combine(&self, _: &keydir::Candidates<'_, ()>) -> Result<(), keydir::Broken> {
                Ok(())
            }
        }
        let dir = Dir::in_memory([
            ("r1.token.primary", "1"),
            ("r2.token", "2"),
            (".rotation.json", r#"{"publication": "p1"}"#),
        ]);
        let live = dir.view(Tokens).unwrap();
        let used = live.primary().unwrap().hold();
        let json = serde_json::to_vec(&keydir::report()).unwrap();
        let path = dir.path();
        let said = Said::of_report(&json, path).unwrap();
        assert_eq!(said.publication.as_deref(), Some("p1"));
        assert_eq!(said.not_adopted, BTreeSet::new());
        assert_eq!(said.uses[&"r1".parse::<RevisionId>().unwrap()], 1);
        drop(used);

        // A revision that is no longer usable is held, and told.
        dir.publish([
            ("r1.token.primary", "1"),
            ("r2.token", ""),
            (".rotation.json", r#"{"publication": "p2"}"#),
        ])
        .unwrap();
        let json = serde_json::to_vec(&keydir::report()).unwrap();
        let said = Said::of_report(&json, path).unwrap();
        assert_eq!(said.publication.as_deref(), Some("p2"));
        assert_eq!(said.not_adopted, BTreeSet::from(["token".to_owned()]));
        assert!(matches!(
            Said::of_report(&json, "/elsewhere"),
            Err(Unusable::NotThere(_))
        ));
        assert!(matches!(Said::of_report(b"[]", path), Err(Unusable::Broken(_))));
        // Whatever somebody says, nothing overflows.
        let set = format!(
            r#"{{"use": "token", "publication": "p", "adopted": true, "revisions": {{"r1": {{"uses": {}}}}}}}"#,
            u64::MAX
        );
        let many = format!(
            r#"{{"version": 1, "directories": [{{"path": "/a", "checked": 1, "fault": null, "sets": [{set}, {set}]}}]}}"#
        );
        let said = Said::of_report(many.as_bytes(), "/a").unwrap();
        assert_eq!(said.uses.values().collect::<Vec<_>>(), [&u64::MAX]);
        let later = br#"{"version": 2, "directories": []}"#;
        assert!(matches!(Said::of_report(later, path), Err(Unusable::Version(2))));
    }
}
