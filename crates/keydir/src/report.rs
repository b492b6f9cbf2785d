//! What the process holds, for humans, monitors and rotators: by directory, use and revision. No secrets.

pub(crate) mod metrics;
mod prometheus;
mod series;

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
    /// When a publication was last loaded, in seconds since 1970.
    pub loaded: Option<u64>,
    /// How the looks at it ended.
    pub loads: Loads,
    /// Why it cannot be read, if it cannot.
    pub fault: Option<String>,
    /// What is wrong with names and files, whatever the use.
    pub problems: Vec<Problem>,
    /// The live sets of the directory.
    pub sets: Vec<SetReport>,
}

/// How the looks at a directory ended, counted since it was opened. One that found it being written to counts when the
/// writer pauses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Loads {
    /// A publication was loaded. What it is worth for each use, the sets say.
    pub ok: u64,
    /// The last one still stood.
    pub unchanged: u64,
    /// It could not be read; what was loaded before went on.
    pub fault: u64,
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
    /// How many revisions were revoked since the set was opened.
    pub revocations: u64,
    /// Every revision in force, every one that is still in use, and what is presented.
    pub revisions: BTreeMap<RevisionId, RevisionReport>,
    /// What is wrong with the directory for this use.
    pub problems: Vec<Problem>,
}

/// One revision.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct RevisionReport {
    /// Whether it is in force; if not, something still rests on it, or it goes on being presented though it was revoked.
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
            not_after: first_end(pieces),
            uses: 0,
            last_use: None,
        }
    }

    /// Of one that is revoked and presented.
    pub(crate) fn kept(pieces: &[Piece]) -> Self {
        Self {
            primary: true,
            not_after: first_end(pieces),
            ..Self::default()
        }
    }
}

fn first_end(pieces: &[Piece]) -> Option<u64> {
    pieces.iter().filter_map(|piece| seconds(piece.not_after)).min()
}

pub(crate) fn seconds(time: SystemTime) -> Option<u64> {
    Some(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs())
}
