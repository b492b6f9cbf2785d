//! What the process holds, for humans, monitors and rotators: by directory, use and revision. No secrets.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use crate::keyset::KeyState;
use crate::name::RevisionId;
use crate::problem::Problem;
use crate::standing::{Hold, NoPrimary};
use crate::view::Piece;

/// The report of a process; see [`report`](crate::report()).
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The version of this format.
    pub version: u32,
    /// Every directory that is open, by path.
    pub directories: Vec<DirReport>,
}

/// One directory.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct DirReport {
    /// The path, as it was given.
    pub path: String,
    /// `kubelet`, `plain` or `memory`; `None` until it was read.
    pub layout: Option<&'static str>,
    /// Counts the publications that were read.
    pub generation: u64,
    /// When the directory was last seen as it is, in seconds since 1970.
    pub checked: Option<u64>,
    /// Why it cannot be read, if it cannot.
    pub fault: Option<String>,
    /// What is wrong with names and files, whatever the use.
    pub problems: Vec<Problem>,
    /// The live sets of the directory.
    pub sets: Vec<SetReport>,
}

/// One live set.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SetReport {
    /// The use.
    #[serde(rename = "use")]
    pub usage: &'static str,
    /// The publication that the set was made of, counted.
    pub generation: u64,
    /// The publication's id, if its writer gave one.
    pub publication: Option<String>,
    /// Whether it is loaded with nothing held and nothing set aside.
    pub adopted: bool,
    /// What is presented.
    pub primary: Option<RevisionId>,
    /// Why that is not simply what the marks designate.
    pub no_primary: Option<NoPrimary>,
    /// Every revision in force, and every one that is still in use.
    pub revisions: BTreeMap<RevisionId, RevisionReport>,
    /// What is wrong with the directory for this use.
    pub problems: Vec<Problem>,
}

/// One revision.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct RevisionReport {
    /// Whether it is in force; if not, something still rests on it.
    pub in_force: bool,
    /// Whether it is presented.
    pub primary: bool,
    /// Why it is held.
    pub held: Option<Hold>,
    /// Whether its validity has not begun.
    pub pending: bool,
    /// Whether its validity has ended.
    pub expired: bool,
    /// The first end of a validity in it, in seconds since 1970.
    pub not_after: Option<u64>,
    /// What rests on it now ([`Key::hold`](crate::Key::hold)).
    pub uses: usize,
    /// When it was last used ([`Key::touch`](crate::Key::touch)), in seconds since 1970, to about 10 seconds.
    pub last_use: Option<u64>,
}

impl SetReport {
    /// How much rests on a revision now; 0 for one that is not there.
    pub fn uses(&self, id: &str) -> usize {
        let mut revisions = self.revisions.iter();
        revisions
            .find(|(revision, _)| **revision == *id)
            .map_or(0, |(_, revision)| revision.uses)
    }
}

impl RevisionReport {
    pub(crate) fn new(state: &KeyState, pieces: &[Piece]) -> Self {
        Self {
            in_force: true,
            primary: state.primary,
            held: state.held.clone(),
            pending: state.pending,
            expired: state.expired,
            not_after: pieces.iter().filter_map(|piece| seconds(piece.not_after)).min(),
            uses: 0,
            last_use: None,
        }
    }
}

pub(crate) fn seconds(time: SystemTime) -> Option<u64> {
    Some(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs())
}
