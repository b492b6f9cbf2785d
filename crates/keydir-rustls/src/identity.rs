//! Who a server or a client is: the primary of a directory, at each handshake, or another revision that its peer can
//! verify instead.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::{ArcSwap, ArcSwapOption};
use keydir::{Dir, Key, KeySet, Live, NoPrimary};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::choice::{Said, choose, may_stand_in};
use crate::chosen;
use crate::error::OpenError;
use crate::identity_view::{IdentityKey, IdentityView};
use crate::provider::provider;
use crate::traits::Named;

/// The TLS identity of a server or a client: certificates and keys in a directory, of which the primary is presented.
/// A peer that has said that it cannot verify the primary, by the names of its CAs or by its signature schemes, is
/// presented another revision that it can verify, if one is in force and inside its validity: so old and new ends of a
/// rotation meet.
///
/// A revision is a `crt` (PEM: the leaf, then its chain) and a `key` (PEM: PKCS#8, SEC1 or PKCS#1, without a
/// passphrase). It is usable if the key is the leaf's, each certificate was issued by the next, and the dates make
/// sense. Cheap to clone.
///
/// ```no_run
/// let identity = keydir_rustls::Identity::open("/run/secrets/server-tls")?;
/// let config = keydir_rustls::server_config(&identity).no_client().build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Identity {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    live: Live<IdentityView>,
    presented: Presented,
}

impl Identity {
    /// Opens a directory and follows it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::in_dir(&Dir::open(path)?)
    }

    /// The identity in a directory that is open already, perhaps for other uses too.
    pub fn in_dir(dir: &Dir) -> Result<Self, OpenError> {
        Self::with_provider(dir, provider()?)
    }

    /// The same with the cryptography of your choice.
    pub fn with_provider(dir: &Dir, provider: Arc<CryptoProvider>) -> Result<Self, OpenError> {
        let live = dir.view(IdentityView::new(provider))?;
        let shared = Arc::new(Shared {
            live,
            presented: Presented::default(),
        });
        Ok(Self { shared })
    }

    /// What is presented at this moment, or why nothing is.
    pub fn primary(&self) -> Result<Arc<Key<IdentityKey>>, NoPrimary> {
        self.shared.live.primary()
    }

    /// The live set, to subscribe to or to look into.
    pub fn live(&self) -> &Live<IdentityView> {
        &self.shared.live
    }

    /// For rustls's own builder: presents the primary to each client, or another revision to one that has said that it
    /// cannot verify the primary, and can verify that one. Without a lock or an allocation where it is the primary.
    pub fn server_resolver(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::new(ServerResolver {
            default: self.clone(),
            others: Vec::new(),
        })
    }

    /// Likewise, but to clients that ask for a name for which one of the others is, that one.
    pub(crate) fn server_resolver_beside(&self, others: Vec<Self>) -> Arc<dyn ResolvesServerCert> {
        Arc::new(ServerResolver {
            default: self.clone(),
            others,
        })
    }

    /// For rustls's own builder: presents the primary to each server that asks, or another revision to one that has said
    /// that it cannot verify the primary, and can verify that one. Give the config
    /// [`TrustAnchors::resumption`](crate::TrustAnchors::resumption) too: a resumed session presents what the first
    /// handshake did.
    pub fn client_resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::new(ClientResolver(self.clone()))
    }

    pub(crate) fn provider(&self) -> &Arc<CryptoProvider> {
        self.shared.live.view().provider()
    }

    /// A number that changes with what clients have presented: if it is the same at two moments, all that any client has
    /// presented between them could be presented at both.
    pub(crate) fn epoch(&self) -> u64 {
        let set = self.shared.live.load();
        self.shared.presented.primary(set.primary().ok());
        self.shared.presented.look(&set);
        self.shared.presented.changes.load(Ordering::SeqCst)
    }

    /// Begins a term whose end [`stands_since`](Self::stands_since) tells, for as long as it is kept.
    #[cfg(feature = "tokio")]
    pub(crate) fn begin(&self) -> Arc<u64> {
        self.shared.presented.begin(self.primary().ok().as_ref())
    }

    /// Whether nothing was revoked that clients have presented, or may resume a session of, since that term began.
    #[cfg(feature = "tokio")]
    pub(crate) fn stands_since(&self, begun: u64) -> bool {
        self.shared.presented.lost() < begun
    }

    /// How well what is presented fits the name that a client has asked for.
    fn named(&self, name: &str) -> Named {
        let set = self.shared.live.load();
        set.primary().map_or(Named::Not, |primary| primary.traits().named(name))
    }
}

/// What clients have presented, and how often something of it came to its end. All that look at an identity note what
/// they see, so that a change which nobody has seen was presented to nobody either.
#[derive(Debug, Default)]
struct Presented {
    /// The primary of the last look.
    last: ArcSwapOption<Key<IdentityKey>>,
    /// What was presented in the primary's place and may still be. No keys are kept alive by it.
    others: Mutex<Vec<Weak<Key<IdentityKey>>>>,
    /// Whether there are `others`, so that nobody takes the lock for nothing.
    any: AtomicBool,
    changes: AtomicU64,
    /// All that was presented in the terms that are kept, and not revoked since.
    shown: ArcSwap<Vec<Shown>>,
    /// The terms that are kept, in their order. Locked while `shown` is replaced.
    terms: Mutex<Vec<Weak<u64>>>,
    /// Counts the terms that were begun.
    begun: AtomicU64,
    /// The last term in which something was presented that was revoked.
    lost: AtomicU64,
}

#[derive(Clone, Debug)]
struct Shown {
    key: Arc<Key<IdentityKey>>,
    /// The last term in which it was presented.
    term: u64,
}

impl Presented {
    fn primary(&self, now: Option<&Arc<Key<IdentityKey>>>) {
        let same = match (&*self.last.load(), now) {
            (Some(last), Some(now)) => Arc::ptr_eq(last, now),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.last.store(now.cloned());
            self.changes.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Before it is presented, so that it is known when a session that rests on it is kept.
    fn other(&self, set: &KeySet<IdentityView>, key: &Arc<Key<IdentityKey>>) {
        self.look(set);
        let mut others = self.others();
        if !others.iter().any(|known| Weak::as_ptr(known) == Arc::as_ptr(key)) {
            others.push(Arc::downgrade(key));
        }
        self.any.store(true, Ordering::SeqCst);
    }

    /// Drops what may not be presented any more. The change is counted before it is forgotten why.
    fn look(&self, set: &KeySet<IdentityView>) {
        if !self.any.load(Ordering::SeqCst) {
            return;
        }
        let mut others = self.others();
        let before = others.len();
        others.retain(|key| key.upgrade().is_some_and(|key| may_stand_in(set, &key)));
        if others.len() < before {
            self.changes.fetch_add(1, Ordering::SeqCst);
        }
        self.any.store(!others.is_empty(), Ordering::SeqCst);
    }

    fn others(&self) -> MutexGuard<'_, Vec<Weak<Key<IdentityKey>>>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What may be resumed in the term that begins counts as presented in it: the primary, and what stood in for it.
    #[cfg(feature = "tokio")]
    fn begin(&self, primary: Option<&Arc<Key<IdentityKey>>>) -> Arc<u64> {
        let term = {
            let mut terms = self.terms();
            let term = Arc::new(self.begun.fetch_add(1, Ordering::SeqCst) + 1);
            terms.push(Arc::downgrade(&term));
            term
        };
        let others: Vec<_> = self.others().iter().filter_map(Weak::upgrade).collect();
        primary.into_iter().chain(&others).for_each(|key| self.show(key));
        term
    }

    /// Before it is presented, so that nothing rests on a key that is not looked after.
    fn show(&self, key: &Arc<Key<IdentityKey>>) {
        let term = self.begun.load(Ordering::SeqCst);
        if term == 0 {
            return;
        }
        let is_noted = |shown: &Shown| Arc::ptr_eq(&shown.key, key) && shown.term >= term;
        if !self.shown.load().iter().any(is_noted) {
            self.replace_shown(Some((key, term)));
        }
        if !key.stands() {
            // It may have been dropped from the list by who has seen it in an earlier term only.
            self.lost.fetch_max(term, Ordering::SeqCst);
        }
    }

    #[cfg(feature = "tokio")]
    fn lost(&self) -> u64 {
        if !self.shown.load().iter().all(|shown| shown.key.stands()) {
            self.replace_shown(None);
        }
        self.lost.load(Ordering::SeqCst)
    }

    /// Drops what was revoked, which is noted before it is forgotten, and what only terms rest on that nobody keeps.
    fn replace_shown(&self, add: Option<(&Arc<Key<IdentityKey>>, u64)>) {
        let mut terms = self.terms();
        terms.retain(|term| term.strong_count() > 0);
        let first = terms.iter().find_map(Weak::upgrade);
        let mut next = Vec::clone(&self.shown.load());
        if let Some((key, term)) = add {
            let known = next.iter_mut().find(|shown| Arc::ptr_eq(&shown.key, key));
            match known {
                Some(known) => known.term = known.term.max(term),
                None => next.push(Shown {
                    key: Arc::clone(key),
                    term,
                }),
            }
        }
        next.retain(|shown| {
            let stands = shown.key.stands();
            if !stands {
                self.lost.fetch_max(shown.term, Ordering::SeqCst);
            }
            stands && first.as_ref().is_some_and(|first| shown.term >= **first)
        });
        self.shown.store(Arc::new(next));
    }

    fn terms(&self) -> MutexGuard<'_, Vec<Weak<u64>>> {
        self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct ServerResolver {
    default: Identity,
    others: Vec<Identity>,
}

impl ServerResolver {
    /// The identity for a name: the first of those that fit best, so that the default one wins where none does.
    fn identity(&self, name: Option<&str>) -> &Identity {
        let Some(name) = name.filter(|_| !self.others.is_empty()) else {
            return &self.default;
        };
        let mut best = (self.default.named(name), &self.default);
        for other in &self.others {
            let named = other.named(name);
            if named > best.0 {
                best = (named, other);
            }
        }
        best.1
    }
}

impl ResolvesServerCert for ServerResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let said = Said::by_client(&hello);
        let live = &self.identity(hello.server_name()).shared.live;
        chosen::present(live, |set| choose(set, &said))
    }
}

#[derive(Debug)]
struct ClientResolver(Identity);

impl ResolvesClientCert for ClientResolver {
    fn resolve(&self, authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let Shared { live, presented } = &*self.0.shared;
        let said = Said::by_server(authorities, schemes);
        chosen::present(live, |set| {
            let primary = set.primary().ok();
            presented.primary(primary);
            let key = choose(set, &said)?;
            if !primary.is_some_and(|primary| Arc::ptr_eq(primary, key)) {
                presented.other(set, key);
            }
            presented.show(key);
            Some(key)
        })
    }

    fn has_certs(&self) -> bool {
        self.0.shared.live.load().primary().is_ok()
    }
}

#[cfg(test)]
#[cfg(feature = "tokio")]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    type Files = Vec<(String, String)>;

    /// Several revisions, of which one is marked.
    fn files(leaves: &[(String, String)], marked: usize) -> Files {
        let files = leaves.iter().enumerate().map(|(n, (crt, key))| {
            let mark = if n == marked { ".primary" } else { "" };
            [
                (format!("r{n}.crt{mark}"), crt.clone()),
                (format!("r{n}.key"), key.clone()),
            ]
        });
        files.flatten().collect()
    }

    fn leaf() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let crt = CertificateParams::default().self_signed(&key).unwrap().pem();
        (crt, key.serialize_pem())
    }

    fn show(identity: &Identity) -> usize {
        let resolver = identity.client_resolver();
        assert!(
            resolver
                .resolve(&[], &[SignatureScheme::ECDSA_NISTP256_SHA256])
                .is_some()
        );
        identity.shared.presented.shown.load().len()
    }

    #[test]
    fn nothing_is_kept_that_no_term_rests_on() {
        let leaves = [leaf(), leaf()];
        let dir = Dir::in_memory(files(&leaves, 0));
        let identity = Identity::in_dir(&dir).unwrap();
        assert_eq!(show(&identity), 0);
        let mut term = identity.begin();
        assert_eq!(show(&identity), 1);
        for round in 1..10 {
            // The mark goes to and fro.
            dir.publish(files(&leaves, round % 2)).unwrap();
            assert!(show(&identity) <= 2);
            assert!(identity.stands_since(*term));
            // The term before is over only then, and what rests on it is found out at the next change.
            term = identity.begin();
            assert!(show(&identity) <= 2);
        }
        for _ in 0..5 {
            // The content is replaced under its id.
            dir.publish(files(&[leaf()], 0)).unwrap();
            term = identity.begin();
            assert!(show(&identity) <= 2);
        }
        drop(term);
        dir.publish(files(&[leaf()], 0)).unwrap();
        assert_eq!(show(&identity), 0);
    }

    #[test]
    fn what_is_marked_once_more_and_not_presented_again_is_not_forgotten() {
        let leaves = [leaf(), leaf(), leaf()];
        let dir = Dir::in_memory(files(&leaves, 0));
        let identity = Identity::in_dir(&dir).unwrap();
        let term = identity.begin();
        for marked in [1, 0, 2] {
            dir.publish(files(&leaves, marked)).unwrap();
        }
        // Nobody keeps the key that was the primary but this list.
        assert_eq!(show(&identity), 2);
        assert!(identity.stands_since(*term));
        let rest = files(&leaves, 2).into_iter();
        dir.publish(rest.filter(|(name, _)| !name.starts_with("r0"))).unwrap();
        assert!(!identity.stands_since(*term));
    }
}
