//! The credentials that may be presented, whatever view they come from.

use std::fmt;
use std::ptr;
use std::sync::Arc;

use http::HeaderValue;
use keydir::{Fingerprint, Key, KeySet, Live, NoPrimary, RevisionId, Use, View};

/// A live set of credentials.
pub(super) trait Source: Send + Sync {
    fn directory(&self) -> &str;

    fn primary(&self) -> Result<Credential, NoPrimary>;

    /// Whatever is in force and is not this credential, the best first: the primary, then the last in natural order.
    fn others(&self, than: Fingerprint) -> Vec<Credential>;

    /// Whether there is nothing beside this one.
    fn is_alone(&self, credential: &Credential) -> bool;

    /// Whether what was taken from this set may still be presented. It counts as used already, so that whoever moves a
    /// mark and then sees no use may retire the old revision.
    fn has(&self, credential: &Credential) -> bool;
}

/// One revision, ready to be presented, and counted as used while this is kept.
pub(super) struct Credential {
    key: Arc<dyn Revision>,
    pub(super) value: HeaderValue,
    pub(super) fingerprint: Fingerprint,
    _use: Use,
}

impl Credential {
    pub(super) fn id(&self) -> &RevisionId {
        self.key.id()
    }

    fn is<T>(&self, key: &Arc<Key<T>>) -> bool {
        ptr::addr_eq(Arc::as_ptr(key), Arc::as_ptr(&self.key))
    }

    /// Notes that it was accepted.
    pub(super) fn touch(&self) {
        self.key.touch();
    }
}

/// A key of whatever view.
trait Revision: Send + Sync {
    fn id(&self) -> &RevisionId;
    fn touch(&self);
}

impl<T: Send + Sync> Revision for Key<T> {
    fn id(&self) -> &RevisionId {
        self.id()
    }

    fn touch(&self) {
        self.touch();
    }
}

/// A set, and what of its items is sent.
pub(super) struct Of<V: View> {
    pub(super) live: Live<V>,
    pub(super) form: fn(&V::Item) -> (&HeaderValue, Fingerprint),
}

impl<V: View> Of<V> {
    fn credential(&self, key: &Arc<Key<V::Item>>) -> Credential {
        let (value, fingerprint) = (self.form)(key);
        Credential {
            value: value.clone(),
            fingerprint,
            _use: key.hold(),
            key: Arc::<Key<V::Item>>::clone(key),
        }
    }
}

impl<V: View> Source for Of<V> {
    fn directory(&self) -> &str {
        self.live.dir().path()
    }

    fn primary(&self) -> Result<Credential, NoPrimary> {
        let set = self.live.load();
        set.primary().map(|key| self.credential(key)).map_err(Clone::clone)
    }

    fn others(&self, than: Fingerprint) -> Vec<Credential> {
        let set = self.live.load();
        let mut keys: Vec<_> = set.iter().collect();
        keys.reverse();
        keys.sort_by_key(|key| !is_primary(&set, key));
        let others = keys.into_iter().map(|key| self.credential(key));
        others.filter(|other| other.fingerprint != than).collect()
    }

    fn is_alone(&self, credential: &Credential) -> bool {
        self.live.load().iter().all(|key| credential.is(key))
    }

    fn has(&self, credential: &Credential) -> bool {
        let set = self.live.load();
        let found = set.get(credential.id().as_str());
        set.primary().is_ok_and(|key| credential.is(key)) || found.is_some_and(|key| credential.is(key))
    }
}

fn is_primary<V: View>(set: &KeySet<V>, key: &Arc<Key<V::Item>>) -> bool {
    set.primary().is_ok_and(|primary| Arc::ptr_eq(primary, key))
}

/// A request was not sent, since there is nothing to present.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NoCredential {
    /// The directory.
    pub directory: String,
    /// Why there is nothing.
    pub reason: NoPrimary,
}

impl fmt::Display for NoCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the request was not sent, since there is no credential in {} to present: {}",
            self.directory, self.reason
        )
    }
}

impl std::error::Error for NoCredential {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}
