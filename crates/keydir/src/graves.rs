//! What was revoked since the start, so that it is known again: an id that returns, a forgotten copy that survives.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::name::RevisionId;
use crate::secret::Fingerprint;

/// Remembers fingerprints alone. The oldest are forgotten at the bound, long after anyone could have wondered.
#[derive(Debug, Default)]
pub(crate) struct Graves {
    ids: HashSet<Fingerprint>,
    /// Content to the id that had it.
    contents: HashMap<Fingerprint, Fingerprint>,
    oldest_ids: VecDeque<Fingerprint>,
    oldest_contents: VecDeque<Fingerprint>,
}

const BOUND: usize = 16_384;

impl Graves {
    pub(crate) fn add(&mut self, id: &RevisionId, contents: impl IntoIterator<Item = Fingerprint>) {
        let id = Fingerprint::of(id.as_str().as_bytes());
        if self.ids.insert(id) {
            self.oldest_ids.push_back(id);
        }
        for content in contents {
            if self.contents.insert(content, id).is_none() {
                self.oldest_contents.push_back(content);
            }
        }
        while self.ids.len() > BOUND {
            let Some(id) = self.oldest_ids.pop_front() else { break };
            self.ids.remove(&id);
        }
        while self.contents.len() > BOUND {
            let Some(content) = self.oldest_contents.pop_front() else {
                break;
            };
            self.contents.remove(&content);
        }
    }

    /// The id is in use again; true if it had been revoked.
    pub(crate) fn forget(&mut self, id: &RevisionId) -> bool {
        let id = Fingerprint::of(id.as_str().as_bytes());
        let was_there = self.ids.remove(&id);
        if was_there {
            self.contents.retain(|_, of| *of != id);
            self.oldest_ids.retain(|other| *other != id);
            self.oldest_contents
                .retain(|content| self.contents.contains_key(content));
        }
        was_there
    }

    /// Whether `content` was revoked under another id than this one.
    pub(crate) fn hold_copy_of(&self, id: &RevisionId, content: Fingerprint) -> bool {
        let of = self.contents.get(&content);
        of.is_some_and(|of| *of != Fingerprint::of(id.as_str().as_bytes()))
    }
}
