//! The names of the accepted CAs, told to the peer so that it can choose a certificate.
//!
//! rustls 0.23 borrows them from the verifier, for as long as that lives: a list can never be taken back. So each
//! distinct list is kept once, for the verifier's life, and there is a limit. rustls 0.24 takes an `Arc` instead;
//! this file goes then.

use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};

use rustls::DistinguishedName;

/// How many distinct lists are kept. Each takes at most [`MAX_BYTES`].
const MAX_LISTS: usize = 256;
/// What a peer can be expected to take; rustls itself fails at about 64 KiB.
const MAX_BYTES: usize = 16 * 1024;

/// Lists of names, appended and never removed.
pub(crate) struct Hints {
    lists: [OnceLock<Box<[DistinguishedName]>>; MAX_LISTS],
    used: Mutex<usize>,
}

/// One of the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct List(usize);

impl Hints {
    pub(crate) fn new() -> Self {
        Self {
            lists: [const { OnceLock::new() }; MAX_LISTS],
            used: Mutex::new(0),
        }
    }

    /// Keeps a list. `None` if it is empty (TLS knows no empty list), or cannot be sent; the latter is told.
    pub(crate) fn keep(&self, names: Vec<DistinguishedName>) -> Option<List> {
        if names.is_empty() {
            return None;
        }
        let bytes: usize = names.iter().map(|name| name.as_ref().len() + 2).sum();
        if bytes > MAX_BYTES {
            tracing::warn!(
                names = names.len(),
                bytes,
                limit = MAX_BYTES,
                "the names of the CAs are too long: peers are told none"
            );
            return None;
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = self.lists.iter().take(*used);
        let same = kept
            .map(OnceLock::get)
            .position(|list| list.is_some_and(|list| equal(list, &names)));
        if let Some(at) = same {
            return Some(List(at));
        }
        let Some(free) = self.lists.get(*used) else {
            tracing::warn!(
                limit = MAX_LISTS,
                "the set of CAs has changed too often: peers are told no names until a restart"
            );
            return None;
        };
        let at = List(*used);
        free.set(names.into()).ok()?;
        *used += 1;
        Some(at)
    }

    /// The names in a list; none for none.
    pub(crate) fn get(&self, list: Option<List>) -> &[DistinguishedName] {
        list.and_then(|List(at)| self.lists.get(at)?.get())
            .map_or(&[], |names| names)
    }
}

fn equal(a: &[DistinguishedName], b: &[DistinguishedName]) -> bool {
    let (a, b) = (a.iter(), b.iter());
    a.map(AsRef::<[u8]>::as_ref).eq(b.map(AsRef::<[u8]>::as_ref))
}

impl fmt::Debug for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hints").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &str) -> Vec<DistinguishedName> {
        vec![DistinguishedName::in_sequence(of.as_bytes())]
    }

    #[test]
    fn a_list_is_kept_once() {
        let hints = Hints::new();
        let [a, b, again] = ["a", "b", "a"].map(|name| hints.keep(names(name)));
        assert_eq!((a, a != b), (again, true));
        assert!(equal(hints.get(b), &names("b")));
        assert!(hints.get(None).is_empty());
    }

    #[test]
    fn an_empty_list_is_none_and_so_is_one_that_is_too_long_or_too_many() {
        let hints = Hints::new();
        assert_eq!(hints.keep(Vec::new()), None);
        assert_eq!(hints.keep(names(&"a".repeat(MAX_BYTES))), None);
        for n in 0..MAX_LISTS {
            assert!(hints.keep(names(&n.to_string())).is_some());
        }
        assert_eq!(hints.keep(names("one more")), None);
        assert!(hints.keep(names("7")).is_some());
    }
}
