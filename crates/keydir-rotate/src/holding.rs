//! What lies in a directory, by revision: names only.

use std::collections::{BTreeMap, BTreeSet};

use keydir::{FileName, RevisionId};

/// What lies in a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// Every id that has a file or a marker.
    pub revisions: BTreeMap<RevisionId, Held>,
}

/// What lies in it of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Its parts.
    pub parts: BTreeSet<String>,
    /// Whether one of them bears the mark.
    pub marked: bool,
    /// Whether there is a marker that revokes it.
    pub revoked: bool,
}

impl Held {
    /// Whether there is a certificate of it.
    pub(crate) fn is_certificate(&self) -> bool {
        self.parts.contains("crt") || self.parts.contains("pem")
    }
}

impl Holding {
    /// By the names of its files.
    pub fn of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut holding = Self::default();
        for name in names {
            match FileName::parse(name.as_bytes()) {
                FileName::File { id, part, primary } => {
                    let held = holding.revisions.entry(id).or_default();
                    held.parts.insert(part.to_string());
                    held.marked |= primary;
                }
                FileName::Marker { id } => holding.revisions.entry(id).or_default().revoked = true,
                FileName::Hidden | FileName::Stray { .. } => {}
            }
        }
        holding
    }
}
