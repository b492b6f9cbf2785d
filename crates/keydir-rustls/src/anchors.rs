//! Whom a server or a client trusts: all accepted CAs of a directory, at each handshake and each resumption.

use std::fmt;
use std::sync::Arc;

use keydir::{Dir, Live, RevisionId};
use rustls::ServerConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;

use crate::admission::{Admission, Rule};
use crate::anchor::Role;
use crate::guard::{Gate, GuardedStore, GuardedTickets};
use crate::hints::Hints;
use crate::identity::Identity;
use crate::judge::Judge;
use crate::peer::Peer;
use crate::resumption::FaithfulStore;
use crate::verifier::{Asks, ClientVerifier, ServerVerifier};
use crate::view::{AnchorsView, Kind, Options};

/// rustls's own default.
pub(crate) const CLIENT_SESSIONS: usize = 256;

/// Whom to trust: the CA certificates in a directory, all revisions together. Cheap to clone.
///
/// A revision is a `crt` or `pem` with one or more certificates, each of them a CA's (version 3, CA:TRUE, keyCertSign
/// where keyUsage is given); another one makes the revision unusable, since whoever holds its key could mint names.
/// An anchor counts inside its validity, and its own path length and purposes are enforced.
///
/// A part `crl` holds certificate revocation lists (RFC 5280, section 5): of the CAs of the revision, or of CAs under
/// them. Each counts for the key that has signed it, and the newest of a key counts, in whatever order they stand. One
/// that cannot be used, or has the name of a CA of the revision and another key's signature, makes the revision
/// unusable: what was good last stays in force. [`RevocationPolicy`](crate::RevocationPolicy) has the choices.
///
/// [`pinned`](Self::pinned) is for peers whose one certificate is known beforehand.
///
/// ```no_run
/// # let identity = keydir_rustls::Identity::open("/run/secrets/server-tls")?;
/// let anchors = keydir_rustls::TrustAnchors::open("/run/secrets/mesh-ca")?;
/// let config = keydir_rustls::server_config(&identity).require_client(&anchors).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct TrustAnchors {
    judge: Arc<Judge>,
    rule: Option<Rule>,
    hints: Arc<Hints>,
    provider: Arc<CryptoProvider>,
}

impl TrustAnchors {
    pub(crate) fn new(
        kind: Kind,
        dir: &Dir,
        provider: Arc<CryptoProvider>,
        options: Options,
    ) -> Result<Self, keydir::OpenError> {
        let hints = Arc::new(Hints::new());
        let live = dir.view(AnchorsView::new(kind, Arc::clone(&hints), options))?;
        let judge = Judge::new(live, provider.signature_verification_algorithms);
        Ok(Self {
            judge: Arc::new(judge),
            rule: None,
            hints,
            provider,
        })
    }

    /// The live set, to subscribe to or to look into.
    pub fn live(&self) -> &Live<AnchorsView> {
        self.judge.live()
    }

    /// For rustls's own builder: requires each client to show a certificate that is trusted at that moment.
    ///
    /// That alone lets the clients of a removed CA go on by resumed sessions: [`guard`](Self::guard) the config too.
    pub fn client_verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.verify_clients(true, true)
    }

    /// Likewise, but clients may show none. Goes with [`guard_optional`](Self::guard_optional).
    pub fn optional_client_verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.verify_clients(false, true)
    }

    /// For rustls's own builder: verifies each server by what is trusted at that moment, and tells it the names of the
    /// CAs (TLS 1.3, in clear), so that it can choose among certificates.
    ///
    /// That alone lets the servers of a removed CA go on by resumed sessions: give the config
    /// [`resumption`](Self::resumption) too.
    pub fn server_verifier(&self) -> Arc<dyn ServerCertVerifier> {
        self.verify_servers(Asks {
            hints: true,
            name: true,
        })
    }

    /// Binds the sessions of a config to this trust; required where rustls's own builder was used. Every session is
    /// verified when it is stored and again when it is resumed; one whose client is not trusted any more, or whose
    /// certificate has expired, gets a full handshake. Resumption stays on for all others.
    ///
    /// It wraps the store and the ticketer that the config has: set your own before, never after.
    pub fn guard(&self, config: &mut ServerConfig) {
        self.guard_sessions(config, false);
    }

    /// Likewise for a config that lets clients without a certificate in: their sessions are resumed too.
    pub fn guard_optional(&self, config: &mut ServerConfig) {
        self.guard_sessions(config, true);
    }

    /// For a client config of rustls's own builder that uses the [`server_verifier`](Self::server_verifier) (and the
    /// identity's [`client_resolver`](Identity::client_resolver), if it has one): resumes sessions until something is
    /// no longer trusted or the identity changes, and never after. One for each config.
    pub fn resumption(&self, identity: Option<&Identity>) -> Resumption {
        let sessions = Arc::new(ClientSessionMemoryCache::new(CLIENT_SESSIONS));
        let store = FaithfulStore::new(&self.admission(Role::Server), identity, sessions);
        Resumption::store(Arc::new(store))
    }

    /// The same anchors, but of the peers that they vouch for only those that the rule lets in: an allow-list, by names
    /// or by SPIFFE ID. It is asked at each handshake, full or resumed, on the thread that performs it, so that what it
    /// goes by may be reloaded at any time; who is refused sees the alert `access_denied`. A rule that panics refuses.
    /// Connections that are alive are asked about after [`Acceptor::recheck`](crate::Acceptor::recheck).
    ///
    /// ```no_run
    /// # let anchors = keydir_rustls::TrustAnchors::open("/run/secrets/mesh-ca")?;
    /// let anchors = anchors.only(|peer| peer.spiffe_id().as_deref() == Some("spiffe://mesh.example/ns/shop/sa/cart"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn only(&self, rule: impl Fn(&Peer) -> bool + Send + Sync + 'static) -> Self {
        let rule: Rule = match self.rule.clone() {
            Some(other) => Arc::new(move |peer| other(peer) && rule(peer)),
            None => Arc::new(rule),
        };
        Self {
            rule: Some(rule),
            ..self.clone()
        }
    }

    /// The revision that vouches for a client today, by its certificates (leaf first), as
    /// `ServerConnection::peer_certificates` gives them; `None` if no revision does, and so if a root of the platform
    /// does. After a handshake this costs a comparison.
    pub fn revision_of_client(&self, certificates: &[CertificateDer<'_>]) -> Option<RevisionId> {
        self.revision_of(Role::Client, certificates)
    }

    /// The revision that vouches for a server today, by its certificates. Says nothing of the server's name.
    pub fn revision_of_server(&self, certificates: &[CertificateDer<'_>]) -> Option<RevisionId> {
        self.revision_of(Role::Server, certificates)
    }

    fn revision_of(&self, role: Role, certificates: &[CertificateDer<'_>]) -> Option<RevisionId> {
        let chain = certificates.iter().map(AsRef::as_ref);
        let admitted = self.admission(role).admits(chain, self.judge.now());
        admitted.ok()?.revision
    }

    pub(crate) fn admission(&self, role: Role) -> Admission {
        Admission {
            judge: Arc::clone(&self.judge),
            role,
            rule: self.rule.clone(),
        }
    }

    pub(crate) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    pub(crate) fn verify_clients(&self, mandatory: bool, tells: bool) -> Arc<dyn ClientCertVerifier> {
        Arc::new(ClientVerifier {
            admission: self.admission(Role::Client),
            hints: Arc::clone(&self.hints),
            mandatory,
            tells,
        })
    }

    pub(crate) fn verify_servers(&self, asks: Asks) -> Arc<dyn ServerCertVerifier> {
        Arc::new(ServerVerifier {
            admission: self.admission(Role::Server),
            hints: Arc::clone(&self.hints),
            asks,
        })
    }

    pub(crate) fn guard_sessions(&self, config: &mut ServerConfig, anonymous: bool) {
        let gate = Gate {
            admission: self.admission(Role::Client),
            anonymous,
        };
        config.session_storage = Arc::new(GuardedStore {
            gate: gate.clone(),
            inner: Arc::clone(&config.session_storage),
        });
        config.ticketer = Arc::new(GuardedTickets {
            gate,
            inner: Arc::clone(&config.ticketer),
        });
    }
}

impl fmt::Debug for TrustAnchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustAnchors")
            .field("judge", &self.judge)
            .field("rule", &self.rule.is_some())
            .finish_non_exhaustive()
    }
}
