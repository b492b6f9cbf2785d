//! A client's sessions, given up when what they may rest on is gone.
//!
//! A client that resumes does not see the server's certificates again, and is known to the server by the identity of
//! the first handshake. rustls keeps from the store both of which a session rests on, and a TLS 1.3 server may send a
//! ticket at any time, so that emptying the store at a revocation is not enough: whoever holds the key of a removed CA
//! could plant one later. So a config that was built before something was lost never resumes again: something trusted,
//! the primary, or another revision that some server was presented in its place.

use std::sync::{Arc, Once};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

use crate::admission::Admission;
use crate::identity::Identity;

#[derive(Debug)]
pub(crate) struct FaithfulStore {
    admission: Admission,
    losses: u64,
    identity: Option<(Identity, u64)>,
    told: Once,
    inner: Arc<dyn ClientSessionStore>,
}

impl FaithfulStore {
    pub(crate) fn new(admission: &Admission, identity: Option<&Identity>, inner: Arc<dyn ClientSessionStore>) -> Self {
        Self {
            losses: admission.losses(),
            admission: admission.clone(),
            identity: identity.map(|identity| (identity.clone(), identity.epoch())),
            told: Once::new(),
            inner,
        }
    }

    /// Neither number ever comes back to what it was, so a no is for ever.
    fn may_resume(&self) -> bool {
        let trusts_all = self.admission.losses() == self.losses;
        let is_the_same = |(identity, epoch): &(Identity, u64)| identity.epoch() == *epoch;
        if trusts_all && self.identity.as_ref().is_none_or(is_the_same) {
            return true;
        }
        self.told.call_once(|| {
            let reason = match trusts_all {
                true => "what was presented has changed",
                false => "something is no longer trusted",
            };
            tracing::info!(reason, "this client config resumes no more TLS sessions");
        });
        false
    }
}

impl ClientSessionStore for FaithfulStore {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.inner.set_kx_hint(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.inner.kx_hint(server_name)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        if self.may_resume() {
            self.inner.set_tls12_session(server_name, value);
        }
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.may_resume()
            .then(|| self.inner.tls12_session(server_name))
            .flatten()
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.inner.remove_tls12_session(server_name);
    }

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        if self.may_resume() {
            self.inner.insert_tls13_ticket(server_name, value);
        }
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.may_resume()
            .then(|| self.inner.take_tls13_ticket(server_name))
            .flatten()
    }
}
