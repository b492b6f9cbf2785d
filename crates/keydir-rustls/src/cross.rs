//! Cross-signing seen: a CA that was removed comes back where a CA that stays has signed its key.
//!
//! To an X.509 verifier that is a chain like any other, and whoever has signed across may have meant it. But whoever has
//! removed a CA has not, so each such certificate is told of once, and refused where that was asked for.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use keydir::Fingerprint;
use webpki::{Error, VerifiedPath};

use crate::anchor::next_number;
use crate::certificate::step;
use crate::subject;

/// Keys of former CAs that are remembered, the latest among them.
const MAX_REMOVED: usize = 1024;
/// Certificates that were told of. Beyond that no more are.
const MAX_TOLD: usize = 1024;

/// The keys of CAs that were removed since the start, by the fingerprints of their SubjectPublicKeyInfo.
#[derive(Clone, Default)]
pub(crate) struct Removed {
    /// Of these keys.
    number: u64,
    keys: Arc<HashSet<Fingerprint>>,
    told: Arc<Mutex<HashSet<Fingerprint>>>,
    refuse: bool,
}

impl Removed {
    pub(crate) fn new(refuse: bool) -> Self {
        Self {
            refuse,
            ..Self::default()
        }
    }

    /// What is removed after a change of the anchors, from one set of keys to the next.
    pub(crate) fn after(&self, last: &HashSet<Fingerprint>, now: &HashSet<Fingerprint>) -> Self {
        let gone = last.difference(now).chain(self.keys.difference(now));
        let keys: HashSet<_> = gone.copied().take(MAX_REMOVED).collect();
        if keys == *self.keys {
            return self.clone();
        }
        Self {
            number: next_number(),
            keys: Arc::new(keys),
            ..self.clone()
        }
    }

    /// Another one for other keys.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Tells of certificates on the path by which a removed CA comes back, and refuses the path if so it was asked.
    pub(crate) fn check(&self, path: &VerifiedPath<'_>) -> Result<(), Error> {
        if self.keys.is_empty() {
            return Ok(());
        }
        for certificate in path.intermediate_certificates() {
            let key = certificate.subject_public_key_info();
            let is_removed = step(&key).is_some_and(|(key, _)| self.keys.contains(&Fingerprint::of(key)));
            if !is_removed {
                continue;
            }
            let der = certificate.der();
            if self.is_news(Fingerprint::of(&der)) {
                tracing::warn!(
                    subject = subject::of_certificate(&der).unwrap_or_default(),
                    issuer = subject::issuer_of_certificate(&der).unwrap_or_default(),
                    refused = self.refuse,
                    "a CA that was removed comes back by a cross certificate: revoke that one with a CRL"
                );
            }
            if self.refuse {
                return Err(Error::UnknownIssuer);
            }
        }
        Ok(())
    }

    fn is_news(&self, certificate: Fingerprint) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < MAX_TOLD && told.insert(certificate)
    }
}

impl fmt::Debug for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Removed")
            .field("keys", &self.keys.len())
            .field("refuse", &self.refuse)
            .finish_non_exhaustive()
    }
}
