//! A server's sessions, bound to what is trusted today.
//!
//! rustls resumes a session without looking at the client's certificates again, and each resumption renews the
//! session: a client of a CA that was removed would get in for ever. To empty the store at the removal does not help
//! either, since a handshake that was verified before it and finishes after it leaves a new session. So each session
//! is verified where it is stored and again where it is taken out; what does not stand gets a full handshake.

use std::sync::{Arc, Once};

use rustls::server::{ProducesTickets, StoresServerSessions};

use crate::admission::Admission;
use crate::session::Peer;

/// Decides which sessions may be kept and resumed.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    pub(crate) admission: Admission,
    /// Whether clients without a certificate are let in, so that their sessions are too.
    pub(crate) anonymous: bool,
}

impl Gate {
    /// In doubt, no.
    fn lets_in(&self, session: &[u8]) -> bool {
        match Peer::of(session) {
            Some(Peer::Anonymous) => self.anonymous,
            Some(Peer::Chain(chain)) => {
                let verdict = self.admission.admits(chain, self.admission.now());
                if let Err(error) = &verdict {
                    tracing::debug!(%error, "session dropped: its client is not trusted any more");
                }
                verdict.is_ok()
            }
            None => {
                // Only a rustls 0.23 to come, which encodes sessions in another way, can bring us here: each time.
                static TOLD: Once = Once::new();
                TOLD.call_once(|| {
                    tracing::error!(
                        "this version of rustls encodes sessions in a way that keydir-rustls does not know: none is \
                         resumed, every handshake is a full one"
                    );
                });
                false
            }
        }
    }
}

/// A session store behind the gate.
#[derive(Debug)]
pub(crate) struct GuardedStore {
    pub(crate) gate: Gate,
    pub(crate) inner: Arc<dyn StoresServerSessions>,
}

impl StoresServerSessions for GuardedStore {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.gate.lets_in(&value) && self.inner.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.inner.get(key).filter(|value| self.gate.lets_in(value))
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.inner.take(key).filter(|value| self.gate.lets_in(value))
    }

    fn can_cache(&self) -> bool {
        self.inner.can_cache()
    }
}

/// A ticketer behind the gate.
#[derive(Debug)]
pub(crate) struct GuardedTickets {
    pub(crate) gate: Gate,
    pub(crate) inner: Arc<dyn ProducesTickets>,
}

impl ProducesTickets for GuardedTickets {
    fn enabled(&self) -> bool {
        self.inner.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.inner.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.gate.lets_in(plain).then(|| self.inner.encrypt(plain)).flatten()
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.inner.decrypt(cipher).filter(|plain| self.gate.lets_in(plain))
    }
}
