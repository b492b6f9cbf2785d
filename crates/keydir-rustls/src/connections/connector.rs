//! The client's side of TLS connections.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use keydir::Use;
use rustls::ClientConfig;
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Resumption};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::ended::HandshakeError;
use super::handshake::{GRACE, TIMEOUT, drive};
use super::stream::TlsStream;
use super::table::Table;
use crate::admission::Admission;
use crate::anchor::Role;
use crate::anchors::{CLIENT_SESSIONS, TrustAnchors};
use crate::chosen::{Choice, Chosen};
use crate::config::ClientBuilder;
use crate::error::BuildError;
use crate::identity::Identity;
use crate::resumption::FaithfulStore;

/// Opens TLS connections that know what they rest on: our identity, and whoever vouches for the server. Made by
/// [`ClientBuilder::connector`](crate::ClientBuilder::connector). Cheap to clone; clones share sessions.
///
/// Beyond what the config alone does, resumption goes on after a revocation or a new identity, from the next full
/// handshake with each server on, and a connection that is alive is told when what it rests on is revoked, given a
/// grace, and then cut.
///
/// ```no_run
/// # async fn call() -> Result<(), Box<dyn std::error::Error>> {
/// let identity = keydir_rustls::Identity::open("/run/secrets/client-tls")?;
/// let anchors = keydir_rustls::TrustAnchors::open("/run/secrets/mesh-ca")?;
/// let connector = keydir_rustls::client_config(&anchors).identity(&identity).connector()?;
///
/// let tcp = tokio::net::TcpStream::connect(("db.mesh.example", 8443)).await?;
/// let tls = connector.connect("db.mesh.example".try_into()?, tcp).await?;
/// # drop(tls);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Connector {
    shared: Arc<Shared>,
    timeout: Duration,
    grace: Duration,
}

/// The term of a pool; see [`Connector::begin`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    losses: u64,
    /// With an identity.
    begun: Option<Arc<u64>>,
}

struct Shared {
    config: ClientConfig,
    /// The sessions of all epochs.
    sessions: Arc<dyn ClientSessionStore>,
    wanted: ClientBuilder,
    admission: Admission,
    table: Arc<Table>,
    epoch: ArcSwapOption<Epoch>,
}

/// A time in which nothing was lost and the identity stayed. rustls resumes no session under another verifier or
/// resolver than it was made with, whenever its ticket arrives; so each epoch has its own, over the same live trust.
struct Epoch {
    config: Arc<ClientConfig>,
    losses: u64,
    identity: Option<u64>,
    /// What was presented in this epoch; more than one only where servers asked for another than the primary.
    presented: Mutex<Vec<Choice>>,
}

impl Epoch {
    fn begin(shared: &Shared) -> Self {
        let wanted = &shared.wanted;
        // Looked at before the config is used: a change in between begins another epoch.
        let losses = shared.admission.losses();
        let identity = wanted.identity.as_ref().map(Identity::epoch);
        let mut config = shared.config.clone();
        // Who keeps the config for longer resumes nothing by it after the epoch.
        let store = FaithfulStore::new(
            &shared.admission,
            wanted.identity.as_ref(),
            Arc::clone(&shared.sessions),
        );
        config.resumption = Resumption::store(Arc::new(store));
        config
            .dangerous()
            .set_certificate_verifier(wanted.anchors.verify_servers(wanted.asks));
        if let Some(identity) = &wanted.identity {
            config.client_auth_cert_resolver = identity.client_resolver();
        }
        Self {
            config: Arc::new(config),
            losses,
            identity,
            presented: Mutex::default(),
        }
    }

    fn lasts(&self, shared: &Shared) -> bool {
        shared.admission.losses() == self.losses
            && shared.wanted.identity.as_ref().map(Identity::epoch) == self.identity
    }

    /// What a connection rests on: the key that its handshake presented. A session comes from one of the handshakes
    /// before, and rustls does not say which.
    fn identities(&self, chosen: &Chosen, resumed: bool) -> Vec<Choice> {
        match chosen {
            Some((choice, _)) => {
                let mut presented = self.presented();
                presented.retain(|other| !Arc::ptr_eq(&other.key, &choice.key));
                presented.push(choice.clone());
                vec![choice.clone()]
            }
            None if resumed => self.presented().clone(),
            None => Vec::new(),
        }
    }

    fn presented(&self) -> MutexGuard<'_, Vec<Choice>> {
        self.presented.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientBuilder {
    /// Builds a [`Connector`] in place of a config: for connections that know what they rest on.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn connector(self) -> Result<Connector, BuildError> {
        self.connector_with(|_| {})
    }

    /// Likewise; `adjust` may change what this builder has no option for, such as `alpn_protocols`. Leave the
    /// verifier, the resolver and `resumption` alone.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn connector_with(self, adjust: impl FnOnce(&mut ClientConfig)) -> Result<Connector, BuildError> {
        let mut config = self.clone().build()?;
        adjust(&mut config);
        let admission = self.anchors.admission(Role::Server);
        let identities = self.identity.iter().cloned().collect();
        let shared = Shared {
            config,
            sessions: Arc::new(ClientSessionMemoryCache::new(CLIENT_SESSIONS)),
            table: Table::new(Some(admission.clone()), identities),
            admission,
            epoch: ArcSwapOption::empty(),
            wanted: self,
        };
        Ok(Connector {
            shared: Arc::new(shared),
            timeout: TIMEOUT,
            grace: GRACE,
        })
    }
}

impl Connector {
    /// How long a handshake may take; 10 s without this.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long connections may go on after a revocation, to finish what is in flight; 5 s without this.
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Performs a handshake.
    ///
    /// With TLS 1.3 a client is done before the server has verified its certificate: a refusal shows at the first
    /// read. So count a connection as good only when the server has answered.
    ///
    /// Must be called from within a tokio runtime with time enabled.
    ///
    /// # Errors
    /// If the handshake fails, takes too long, or was overtaken by a revocation of what it rests on.
    ///
    /// # Cancel safety
    /// Not cancel safe: the connection is lost with the future.
    pub async fn connect<IO>(&self, server: ServerName<'static>, io: IO) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let (epoch, _used) = self.used_epoch();
        let connector = TlsConnector::from(Arc::clone(&epoch.config));
        let handshake = connector.connect(server, io).into_fallible();
        let (tls, chosen) = drive(pin!(handshake), self.timeout).await?;
        let identities = |resumed| epoch.identities(&chosen, resumed);
        let registered = TlsStream::register(tls.into(), &self.shared.table, identities, self.grace).await;
        if let Err(HandshakeError::Ended(_)) = registered {
            // That may be a session of a certificate that has expired since. There may be more of them, and each would
            // cost a handshake.
            let epochs = &self.shared.epoch;
            epochs.compare_and_swap(&Some(epoch), None);
        }
        registered
    }

    /// The config of this moment, for hosts that make their own handshakes. It is right for ever, but once something
    /// is revoked, or the identity changes, it resumes no sessions any more, and this gives another.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.epoch().config)
    }

    /// Begins the term of a pool: connections that are made in it may be used for new requests for as long as it
    /// [stands](Self::stands). Keep it as long as them.
    pub fn begin(&self) -> Term {
        Term {
            losses: self.shared.admission.losses(),
            begun: self.identity().map(Identity::begin),
        }
    }

    /// Whether nothing that is trusted, and nothing that was presented in this term, was revoked since it began: exact
    /// from the moment of loading, and a few atomic loads as long as nothing is revoked. What has ended stays so.
    ///
    /// That the validity of a server's certificate has ended, or that a rule of the application refuses it now, only its
    /// [`Connection`](crate::Connection) knows.
    pub fn stands(&self, term: &Term) -> bool {
        let of_identity = self.identity().zip(term.begun.as_deref());
        let shown = of_identity.is_none_or(|(identity, begun)| identity.stands_since(*begun));
        shown && self.shared.admission.losses() == term.losses
    }

    /// The identity that servers are shown.
    pub fn identity(&self) -> Option<&Identity> {
        self.shared.wanted.identity.as_ref()
    }

    /// Whom it trusts.
    pub fn anchors(&self) -> &TrustAnchors {
        &self.shared.wanted.anchors
    }

    /// How many connections are alive.
    pub fn connections(&self) -> usize {
        self.shared.table.len()
    }

    /// Asks for every connection that is alive whether its server is still admitted, because the application's own
    /// rule ([`TrustAnchors::only`](crate::TrustAnchors::only)) has changed. Changes of directories need no call.
    pub fn recheck(&self) {
        self.shared.table.recheck();
    }

    /// A session may be resumed that rests on what was presented before, so that counts as used during the handshake;
    /// as for a choice, counted first and then looked at again.
    fn used_epoch(&self) -> (Arc<Epoch>, Vec<Use>) {
        loop {
            let epoch = self.epoch();
            let used = epoch.presented().iter().map(|choice| choice.key.hold()).collect();
            if epoch.lasts(&self.shared) {
                return (epoch, used);
            }
        }
    }

    fn epoch(&self) -> Arc<Epoch> {
        let shared = &*self.shared;
        if let Some(current) = shared.epoch.load_full().filter(|epoch| epoch.lasts(shared)) {
            return current;
        }
        // Two that find this at once both begin one. The other's lives on in its connections.
        let next = Arc::new(Epoch::begin(shared));
        shared.epoch.store(Some(Arc::clone(&next)));
        next
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("connections", &self.connections())
            .field("timeout", &self.timeout)
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}
