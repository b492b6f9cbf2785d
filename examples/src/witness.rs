//! Which revision a handshake presented. rustls does not tell afterwards, so the resolver is asked to take a note.

use std::sync::{Arc, Mutex, PoisonError};

use keydir::{KeySet, RevisionId};
use keydir_rustls::rustls::client::ResolvesClientCert;
use keydir_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use keydir_rustls::rustls::sign::CertifiedKey;
use keydir_rustls::rustls::{ClientConfig, ServerConfig, SignatureScheme};
use keydir_rustls::{Identity, IdentityView};

/// Stands before the resolver of a config and notes what it chose last.
#[derive(Debug)]
pub(crate) struct Witness<R: ?Sized> {
    resolver: Arc<R>,
    identity: Identity,
    presented: Mutex<Option<RevisionId>>,
}

impl Witness<dyn ResolvesServerCert> {
    /// A copy of the config for one connection, and the witness of that connection. The copy shares session store and
    /// ticketer with the original, so resumption works across all of them.
    pub(crate) fn of_connection(config: &ServerConfig, identity: &Identity) -> (ServerConfig, Arc<Self>) {
        let mut config = config.clone();
        let witness = Arc::new(Self::new(Arc::clone(&config.cert_resolver), identity));
        config.cert_resolver = Arc::clone(&witness) as _;
        (config, witness)
    }
}

impl Witness<dyn ResolvesClientCert> {
    /// Watches a client config. It stays one and the same witness: rustls resumes no session that was made with another
    /// resolver.
    pub(crate) fn watch(config: &mut ClientConfig, identity: &Identity) -> Arc<Self> {
        let witness = Arc::new(Self::new(Arc::clone(&config.client_auth_cert_resolver), identity));
        config.client_auth_cert_resolver = Arc::clone(&witness) as _;
        witness
    }
}

impl<R: ?Sized> Witness<R> {
    fn new(resolver: Arc<R>, identity: &Identity) -> Self {
        Self {
            resolver,
            identity: identity.clone(),
            presented: Mutex::default(),
        }
    }

    /// The revision that was presented last.
    pub(crate) fn presented(&self) -> Option<RevisionId> {
        self.presented.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, resolve: impl FnOnce(&R) -> Option<Arc<CertifiedKey>>) -> Option<Arc<CertifiedKey>> {
        let live = self.identity.live();
        let before = live.snapshot();
        let chosen = resolve(&self.resolver)?;
        // The set may have been swapped just before the choice.
        let revision = find(&before, &chosen).or_else(|| find(&live.snapshot(), &chosen));
        *self.presented.lock().unwrap_or_else(PoisonError::into_inner) = revision;
        Some(chosen)
    }
}

/// A revoked primary goes on being presented, but is in force no more: so the primary is looked at by itself.
fn find(set: &KeySet<IdentityView>, chosen: &Arc<CertifiedKey>) -> Option<RevisionId> {
    let keys = set.primary().into_iter().chain(set.iter());
    keys.into_iter()
        .find(|key| Arc::ptr_eq(key.certified(), chosen))
        .map(|key| key.id().clone())
}

impl ResolvesServerCert for Witness<dyn ResolvesServerCert> {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.note(|resolver| resolver.resolve(hello))
    }
}

impl ResolvesClientCert for Witness<dyn ResolvesClientCert> {
    fn resolve(&self, hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.note(|resolver| resolver.resolve(hints, schemes))
    }

    fn has_certs(&self) -> bool {
        self.resolver.has_certs()
    }
}
