//! The ways that do not hold, as controls: each test that says "refused" has one that shows what gets in without us.

use std::sync::{Arc, Mutex};

use rustls::server::{ProducesTickets, ResolvesServerCert, ServerSessionMemoryCache, StoresServerSessions};
use rustls::{ServerConfig, SupportedProtocolVersion};

use crate::provider::{new_ticketer, provider};
use crate::support::{Scene, Way};

/// A store or a ticketer that can be replaced by an empty one.
#[derive(Debug)]
struct Replaceable<T: ?Sized>(Mutex<Arc<T>>);

impl<T: ?Sized> Replaceable<T> {
    fn now(&self) -> Arc<T> {
        Arc::clone(&self.0.lock().unwrap())
    }
}

impl StoresServerSessions for Replaceable<dyn StoresServerSessions> {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.now().put(key, value)
    }
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.now().get(key)
    }
    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.now().take(key)
    }
    fn can_cache(&self) -> bool {
        true
    }
}

impl ProducesTickets for Replaceable<dyn ProducesTickets> {
    fn enabled(&self) -> bool {
        true
    }
    fn lifetime(&self) -> u32 {
        self.now().lifetime()
    }
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.now().encrypt(plain)
    }
    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.now().decrypt(cipher)
    }
}

/// A config with a verifier that knows today's CAs, and sessions that do not.
pub(crate) struct Naive {
    pub(crate) config: Arc<ServerConfig>,
    store: Arc<Replaceable<dyn StoresServerSessions>>,
    ticketer: Option<Arc<Replaceable<dyn ProducesTickets>>>,
}

impl Naive {
    pub(crate) fn new(scene: &Scene, way: Way) -> Self {
        let resolver = scene.server_identity.server_resolver();
        let mut config = unguarded(scene, way.versions, resolver);
        let store = Arc::new(Replaceable(Mutex::new(empty_store())));
        config.session_storage = Arc::clone(&store) as _;
        let ticketer = way.tickets.then(|| {
            let ticketer = Arc::new(Replaceable(Mutex::new(new_ticketer())));
            config.ticketer = Arc::clone(&ticketer) as _;
            ticketer
        });
        Self {
            config: Arc::new(config),
            store,
            ticketer,
        }
    }

    /// What one would do at a removal.
    pub(crate) fn flush_and_rotate(&self) {
        *self.store.0.lock().unwrap() = empty_store();
        if let Some(ticketer) = &self.ticketer {
            *ticketer.0.lock().unwrap() = new_ticketer();
        }
    }
}

fn unguarded(
    scene: &Scene,
    versions: &[&'static SupportedProtocolVersion],
    resolver: Arc<dyn ResolvesServerCert>,
) -> ServerConfig {
    ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_client_cert_verifier(scene.anchors.client_verifier())
        .with_cert_resolver(resolver)
}

fn empty_store() -> Arc<dyn StoresServerSessions> {
    ServerSessionMemoryCache::new(4096)
}
