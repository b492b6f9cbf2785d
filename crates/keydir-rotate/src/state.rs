//! What a rotator remembers of a directory. It lies in the publication itself, as `.rotation.json`, so that a crash leaves
//! the old set with the old state, or the new one with the new.

use std::collections::BTreeMap;

use keydir::{Files, RevisionId, Secret};
use serde::{Deserialize, Serialize};

use crate::holding::Holding;

/// The name of the file (convention, section 4).
pub(crate) const FILE: &str = ".rotation.json";
/// Of what is written here.
const VERSION: u32 = 1;

/// What a state has of the file; all else is of others.
const FIELDS: [&str; 8] = [
    "version",
    "publication",
    "published",
    "settled",
    "number",
    "paused",
    "requested",
    "revisions",
];

/// What is remembered of a directory. Times are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// 1.
    pub version: u32,
    /// Random. Consumers report which publication they have loaded.
    pub publication: String,
    /// When it was published.
    pub published: u64,
    /// When the last rotation ended, or the first revision was made.
    pub settled: u64,
    /// The highest number of a revision so far, so that no id is used twice.
    #[serde(default)]
    pub number: u64,
    /// Why nothing is to move by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// Somebody wants the next rotation to begin now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub requested: bool,
    /// Every revision in the set, and every one that is being made or taken away outside.
    #[serde(default)]
    pub revisions: BTreeMap<RevisionId, Stage>,
}

/// Where one revision stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Its phase.
    pub phase: Phase,
    /// Since when.
    pub since: u64,
    /// Somebody else may have it. It goes when nobody needs it any more, and at this time at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compromised: Option<u64>,
    /// Of a CA: when the last leaf expires that was given away, and is in no directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_leaf: Option<u64>,
    /// Of one that is retiring: since when no consumer presents it any more, as far as they say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<u64>,
    /// What was made with it has been made anew, or nothing of the kind is needed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub migrated: bool,
}

/// The phases of a revision, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Something outside is being made under its id.
    Intended,
    /// Accepted, not presented.
    Staged,
    /// Presented.
    Primary,
    /// No longer presented; what was made with it is still accepted.
    Retiring,
    /// Refused, by its marker.
    Revoked,
    /// No longer in the directory. What was made for it outside has to go yet.
    Gone,
}

/// Why a state cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum StateError {
    /// It does not parse.
    Broken(serde_json::Error),
    /// A later program has written it.
    Version(u32),
}

impl std::fmt::Display for StateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Broken(error) => write!(
                f,
                "{FILE} is broken ({error}): correct it, or remove it, and the state is made anew of the files"
            ),
            Self::Version(version) => write!(f, "{FILE} is of version {version}: use the program that wrote it"),
        }
    }
}

impl std::error::Error for StateError {}

impl State {
    /// Reads `.rotation.json`. A file that only gives a publication's id is no state.
    ///
    /// # Errors
    /// If it is broken, or of a later version.
    pub fn read(content: &Secret) -> Result<Option<Self>, StateError> {
        #[derive(Deserialize)]
        struct Head {
            version: Option<u32>,
        }
        let bytes = content.expose();
        let head: Head = serde_json::from_slice(bytes).map_err(StateError::Broken)?;
        match head.version {
            None => Ok(None),
            Some(VERSION) => serde_json::from_slice(bytes).map(Some).map_err(StateError::Broken),
            Some(version) => Err(StateError::Version(version)),
        }
    }

    /// What is remembered in a set of files.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn of_files(files: &Files) -> Result<Option<Self>, StateError> {
        Ok(files.get(FILE).map(Self::read).transpose()?.flatten())
    }

    /// As a file.
    pub fn write(&self) -> Secret {
        // Text and numbers: it cannot fail.
        Secret::new(serde_json::to_vec_pretty(self).unwrap_or_default())
    }

    /// As a file that takes the place of this one, of which it keeps what others have written.
    pub(crate) fn write_over(&self, old: Option<&Secret>) -> Secret {
        type Object = serde_json::Map<String, serde_json::Value>;
        let old = old.and_then(|old| serde_json::from_slice::<Object>(old.expose()).ok());
        let mine = serde_json::to_value(self).unwrap_or_default();
        let mut all = old.unwrap_or_default();
        all.retain(|name, _| !FIELDS.contains(&name.as_str()));
        all.extend(mine.as_object().cloned().unwrap_or_default());
        Secret::new(serde_json::to_vec_pretty(&all).unwrap_or_default())
    }

    /// What the files say, with what is remembered: the files count where they differ, since somebody may have published
    /// by hand. What is new to the state has its phase from now on.
    pub fn of(holding: &Holding, remembered: Option<&Self>, now: u64) -> Self {
        let mut state = remembered.cloned().unwrap_or_else(|| Self {
            version: VERSION,
            publication: String::new(),
            published: now,
            settled: now,
            // What was remembered may have been lost, and with it the last ids.
            number: if holding.revisions.is_empty() { 0 } else { now },
            paused: None,
            requested: false,
            revisions: BTreeMap::new(),
        });
        state
            .revisions
            .retain(|id, stage| stage.phase.is_outside() || holding.revisions.contains_key(id));
        for (id, held) in &holding.revisions {
            let before = state.revisions.get(id);
            let phase = match before.map(|stage| stage.phase) {
                _ if held.revoked => Phase::Revoked,
                _ if held.marked => Phase::Primary,
                Some(Phase::Primary | Phase::Retiring) => Phase::Retiring,
                _ => Phase::Staged,
            };
            if before.is_none_or(|stage| stage.phase != phase) {
                let stage = Stage::moved(before, phase, now);
                state.revisions.insert(id.clone(), stage);
            }
            state.number = state.number.max(number(id));
        }
        state
    }

    /// The id of the next revision.
    pub fn next_id(&self) -> Option<RevisionId> {
        format!("r{}", self.number.checked_add(1)?).parse().ok()
    }

    pub(crate) fn is_intended(&self, id: &RevisionId) -> bool {
        self.revisions
            .get(id)
            .is_some_and(|stage| stage.phase == Phase::Intended)
    }

    /// The revisions in this phase.
    pub fn in_phase(&self, phase: Phase) -> impl Iterator<Item = (&RevisionId, &Stage)> {
        self.revisions.iter().filter(move |(_, stage)| stage.phase == phase)
    }
}

impl Phase {
    /// Nothing of it is in the directory.
    pub(crate) fn is_outside(self) -> bool {
        matches!(self, Self::Intended | Self::Gone)
    }
}

impl Stage {
    /// In another phase from now on.
    pub(crate) fn moved(before: Option<&Self>, phase: Phase, now: u64) -> Self {
        let is_migrated = |before: &Self| match before.phase {
            // Nothing was made with it.
            Phase::Intended | Phase::Staged => true,
            _ => before.migrated,
        };
        Self {
            compromised: before.and_then(|stage| stage.compromised),
            last_leaf: before.and_then(|stage| stage.last_leaf),
            migrated: phase == Phase::Revoked && before.is_some_and(is_migrated),
            ..Self::new(phase, now)
        }
    }

    pub(crate) fn new(phase: Phase, now: u64) -> Self {
        Self {
            phase,
            since: now,
            compromised: None,
            last_leaf: None,
            released: None,
            migrated: false,
        }
    }
}

pub(crate) fn number(id: &RevisionId) -> u64 {
    // Ids that differ only in case are not published.
    id.as_str()
        .strip_prefix(['r', 'R'])
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}
