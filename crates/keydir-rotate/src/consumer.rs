//! What a consumer says of itself.

use std::collections::{BTreeMap, BTreeSet};

use keydir::RevisionId;

/// A consumer of a directory, as it was last heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Its name, for people.
    pub name: String,
    /// What it said; `None` if it says nothing.
    pub said: Option<Said>,
}

/// What a consumer said of a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// When it last saw the directory as it is, in seconds since 1970.
    pub checked: u64,
    /// The publication that it has loaded.
    pub publication: Option<String>,
    /// What it goes on with though the publication says otherwise, and what it has set aside; none if it has adopted the
    /// publication.
    pub not_adopted: BTreeSet<String>,
    /// How much rests on each revision.
    pub uses: BTreeMap<RevisionId, u64>,
}
