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

const BOUND: usize = 1024;

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

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> RevisionId {
        format!("r{number}").parse().unwrap()
    }

    fn content(number: usize) -> Fingerprint {
        Fingerprint::of(&number.to_be_bytes())
    }

    #[test]
    fn at_the_bound_the_oldest_is_forgotten_and_nothing_before() {
        let mut graves = Graves::default();
        (0..BOUND).for_each(|number| graves.add(&id(number), [content(number)]));
        let other = id(BOUND + 1);
        assert!((0..BOUND).all(|number| graves.hold_copy_of(&other, content(number))));
        assert_eq!(graves.ids.len(), BOUND);

        graves.add(&id(BOUND), [content(BOUND)]);
        assert!(!graves.hold_copy_of(&other, content(0)));
        assert!((1..=BOUND).all(|number| graves.hold_copy_of(&other, content(number))));
        assert!(!graves.forget(&id(0)));
        assert!(graves.forget(&id(1)) && graves.forget(&id(BOUND)));
    }

    #[test]
    fn an_id_that_returns_is_forgotten_once_with_all_that_it_had() {
        let mut graves = Graves::default();
        graves.add(&id(1), [content(1), content(2)]);
        graves.add(&id(2), [content(3)]);
        graves.add(&id(2), [content(3)]);
        assert!(graves.hold_copy_of(&id(2), content(1)));
        assert!(!graves.hold_copy_of(&id(1), content(1)), "its own content is no copy");
        assert!(graves.forget(&id(1)));
        assert!(!graves.forget(&id(1)));
        assert!(!graves.hold_copy_of(&id(3), content(1)) && !graves.hold_copy_of(&id(3), content(2)));
        assert!(graves.hold_copy_of(&id(3), content(3)));
        let queues = [graves.oldest_ids.len(), graves.oldest_contents.len()];
        assert_eq!(queues, [1, 1], "what is forgotten leaves the queues too");
        assert!(graves.ids.contains(&graves.oldest_ids[0]));
        assert!(graves.contents.contains_key(&graves.oldest_contents[0]));
    }
}
