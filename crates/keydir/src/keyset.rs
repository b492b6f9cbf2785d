//! What a use holds at one moment: an immutable set of keys.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::key::Key;
use crate::problem::Problem;
use crate::standing::{Hold, NoPrimary};
use crate::view::View;

/// All revisions in force at one moment, the primary among them, and what the view derived from them.
pub struct KeySet<V: View> {
    pub(crate) keys: Vec<Arc<Key<V::Item>>>,
    pub(crate) states: Vec<KeyState>,
    pub(crate) by_id: HashMap<Arc<str>, usize>,
    pub(crate) primary: Result<Arc<Key<V::Item>>, NoPrimary>,
    pub(crate) no_primary: Option<NoPrimary>,
    pub(crate) whole: Arc<V::Whole>,
    pub(crate) generation: u64,
    pub(crate) publication: Option<Arc<str>>,
    pub(crate) problems: Vec<Problem>,
    /// The moment for which it was made.
    pub(crate) as_of: SystemTime,
    /// When time alone changes something next.
    pub(crate) next: Option<SystemTime>,
    /// When a certificate has to be warned of, with nothing else changed.
    pub(crate) warns: Option<SystemTime>,
}

/// How one revision stands in its set.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct KeyState {
    /// It is what is presented.
    pub primary: bool,
    /// Why it is in force though the last check did not find it usable.
    pub held: Option<Hold>,
    /// Its validity has not begun: it is not presented, nor accepted.
    pub pending: bool,
    /// Its validity has ended.
    pub expired: bool,
}

impl<V: View> KeySet<V> {
    /// What to present, or why there is nothing.
    pub fn primary(&self) -> Result<&Arc<Key<V::Item>>, &NoPrimary> {
        self.primary.as_ref()
    }

    /// Why the revision that the marks designate is not simply what is presented; `None` if it is. While this says
    /// something and [`primary`](Self::primary) gives a key, that is the last good one.
    pub fn no_primary(&self) -> Option<&NoPrimary> {
        self.no_primary.as_ref()
    }

    /// The revision with this id, if it is in force. One look-up in a map, whatever the number of revisions.
    pub fn get(&self, id: &str) -> Option<&Arc<Key<V::Item>>> {
        self.keys.get(*self.by_id.get(id)?)
    }

    /// All revisions in force, in natural order. A revoked primary that goes on being presented is not among them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Key<V::Item>>> {
        self.keys.iter()
    }

    /// The number of revisions in force.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no revision is in force.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How a key of this set stands; `None` for one that is not in force in it.
    pub fn state(&self, key: &Key<V::Item>) -> Option<&KeyState> {
        let index = *self.by_id.get(key.id().as_str())?;
        let found = self.keys.get(index)?;
        (found.derivation == key.derivation).then(|| self.states.get(index))?
    }

    /// What the view derived from all accepted revisions together.
    pub fn whole(&self) -> &V::Whole {
        &self.whole
    }

    /// Counts the publications of the directory that were read; sets of one directory with the same number were made
    /// of the same one.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The id of the publication, if its writer gave one in `.rotation.json`.
    pub fn publication(&self) -> Option<&str> {
        self.publication.as_deref()
    }

    /// Whether the publication is loaded with nothing held and nothing set aside.
    pub fn is_adopted(&self) -> bool {
        self.states.iter().all(|state| state.held.is_none())
            && !self
                .problems
                .iter()
                .any(|problem| matches!(problem.code, "unusable" | "not-combined" | "unreadable"))
    }

    /// What is wrong with the directory for this use.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether time alone may have changed something: it has passed, or the clock was set back.
    pub(crate) fn is_due(&self, now: SystemTime) -> bool {
        now < self.as_of || self.next.is_some_and(|next| next <= now)
    }

    /// Whether nobody could tell this set from `other`.
    pub(crate) fn looks_like(&self, other: &Self) -> bool {
        let same_key = |a: &Arc<Key<V::Item>>, b: &Arc<Key<V::Item>>| Arc::ptr_eq(a, b);
        self.generation == other.generation
            && self.publication == other.publication
            && self.states == other.states
            && self.problems == other.problems
            && self.no_primary == other.no_primary
            && Arc::ptr_eq(&self.whole, &other.whole)
            && self.keys.len() == other.keys.len()
            && self.keys.iter().zip(&other.keys).all(|(a, b)| same_key(a, b))
            && match (&self.primary, &other.primary) {
                (Ok(a), Ok(b)) => same_key(a, b),
                (Err(a), Err(b)) => a == b,
                _ => false,
            }
    }
}

impl<V: View> fmt::Debug for KeySet<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet")
            .field("generation", &self.generation)
            .field("primary", &self.primary)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}
