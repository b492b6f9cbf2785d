//! Who a server or a client is: the primary of a directory, at each handshake.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use keydir::{Dir, Key, Live, NoPrimary};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::error::OpenError;
use crate::identity_view::{IdentityKey, IdentityView};
use crate::provider::provider;

/// The TLS identity of a server or a client: certificates and keys in a directory, of which the primary is presented.
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

    /// For rustls's own builder: presents the primary to each client, without a lock or an allocation.
    pub fn server_resolver(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::new(ServerResolver(self.clone()))
    }

    /// For rustls's own builder: presents the primary to each server that asks. Give the config
    /// [`TrustAnchors::resumption`](crate::TrustAnchors::resumption) too: a resumed session presents what the first
    /// handshake did.
    pub fn client_resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::new(ClientResolver(self.clone()))
    }

    pub(crate) fn provider(&self) -> &Arc<CryptoProvider> {
        self.shared.live.view().provider()
    }

    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        let set = self.shared.live.load();
        set.primary().ok().map(|key| Arc::clone(key.certified()))
    }

    /// A number that changes with what clients present: if it is the same at two moments, no client has presented
    /// anything else between them than at both.
    pub(crate) fn epoch(&self) -> u64 {
        let set = self.shared.live.load();
        self.shared.presented.note(set.primary().ok())
    }
}

/// What clients presented last, and how often it changed. All that look at the primary note it, so that a change which
/// nobody has seen was presented to nobody either.
#[derive(Debug, Default)]
struct Presented {
    last: ArcSwapOption<Key<IdentityKey>>,
    changes: AtomicU64,
}

impl Presented {
    fn note(&self, now: Option<&Arc<Key<IdentityKey>>>) -> u64 {
        let same = match (&*self.last.load(), now) {
            (Some(last), Some(now)) => Arc::ptr_eq(last, now),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.last.store(now.cloned());
            self.changes.fetch_add(1, Ordering::SeqCst);
        }
        self.changes.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
struct ServerResolver(Identity);

impl ResolvesServerCert for ServerResolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.certified()
    }
}

#[derive(Debug)]
struct ClientResolver(Identity);

impl ResolvesClientCert for ClientResolver {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let set = self.0.shared.live.load();
        let primary = set.primary().ok();
        self.0.shared.presented.note(primary);
        primary.map(|key| Arc::clone(key.certified()))
    }

    fn has_certs(&self) -> bool {
        self.0.shared.live.load().primary().is_ok()
    }
}
