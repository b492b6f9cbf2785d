//! Whole rustls configs. What is dangerous to leave out must be said; the rest are options.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::server::{ProducesTickets, ServerSessionMemoryCache};
use rustls::{ClientConfig, DEFAULT_VERSIONS, ServerConfig, SupportedProtocolVersion};

#[cfg(feature = "tokio")]
use crate::admission::Admission;
#[cfg(feature = "tokio")]
use crate::anchor::Role;
use crate::anchors::TrustAnchors;
use crate::error::BuildError;
use crate::identity::Identity;
use crate::provider::{DirectoryTime, ticketer};
use crate::verifier::Asks;

/// Sessions that a server remembers without tickets; TLS 1.3 takes two for each handshake.
const SERVER_SESSIONS: usize = 4096;

/// Begins a `rustls::ServerConfig` that presents an identity. What clients must show has to be said next.
///
/// ```no_run
/// # let identity = keydir_rustls::Identity::open("/run/secrets/server-tls")?;
/// # let anchors = keydir_rustls::TrustAnchors::open("/run/secrets/mesh-ca")?;
/// let config: rustls::ServerConfig = keydir_rustls::server_config(&identity)
///     .require_client(&anchors)
///     .alpn(["h2", "http/1.1"])
///     .build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn server_config(identity: &Identity) -> ServerWithoutClients {
    ServerWithoutClients(identity.clone())
}

/// A server config of which nobody has said yet what clients must show.
#[derive(Clone, Debug)]
#[must_use = "say what clients must show, then build"]
pub struct ServerWithoutClients(Identity);

impl ServerWithoutClients {
    /// Each client must show a certificate that is trusted at the time of its handshake, full or resumed.
    pub fn require_client(self, anchors: &TrustAnchors) -> ServerBuilder {
        self.with(Clients::Required(anchors.clone()))
    }

    /// A client may show no certificate; one that it shows must be trusted.
    pub fn optional_client(self, anchors: &TrustAnchors) -> ServerBuilder {
        self.with(Clients::Optional(anchors.clone()))
    }

    /// Clients are not asked for a certificate.
    pub fn no_client(self) -> ServerBuilder {
        self.with(Clients::Unasked)
    }

    fn with(self, clients: Clients) -> ServerBuilder {
        ServerBuilder {
            identity: self.0,
            others: Vec::new(),
            clients,
            tells: true,
            alpn: Vec::new(),
            tickets: Tickets::Off,
            versions: DEFAULT_VERSIONS.to_vec(),
        }
    }
}

/// A server config that can be built.
#[derive(Clone, Debug)]
#[must_use = "nothing happens until it is built"]
pub struct ServerBuilder {
    identity: Identity,
    others: Vec<Identity>,
    clients: Clients,
    tells: bool,
    alpn: Vec<Vec<u8>>,
    tickets: Tickets,
    versions: Vec<&'static SupportedProtocolVersion>,
}

#[derive(Clone, Debug)]
enum Clients {
    Required(TrustAnchors),
    Optional(TrustAnchors),
    Unasked,
}

#[derive(Clone, Debug)]
enum Tickets {
    Off,
    Default,
    Own(Arc<dyn ProducesTickets>),
}

impl ServerBuilder {
    /// Presents this identity, in place of the one that the config began with, to clients that ask for a name (SNI)
    /// which fits it better: a name of its primary before a wildcard, and a wildcard (for one whole label) before
    /// none. Of identities that fit equally the first given is presented, and so is the very first where none fits, or
    /// where the client asks for no name. May be said again for more. Each identity rotates for itself.
    ///
    /// ```no_run
    /// # use keydir_rustls::{Identity, server_config};
    /// let shop = Identity::open("/run/secrets/shop-tls")?;
    /// let blog = Identity::open("/run/secrets/blog-tls")?;
    /// let config = server_config(&shop).no_client().also_identity(&blog).build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn also_identity(mut self, identity: &Identity) -> Self {
        self.others.push(identity.clone());
        self
    }

    /// Does not tell clients the names of the CAs. They are sent in clear in TLS 1.2, and with many CAs they are long.
    /// Clients that have several certificates cannot choose by them then.
    pub fn without_hints(mut self) -> Self {
        self.tells = false;
        self
    }

    /// The protocols offered by ALPN, the preferred one first.
    pub fn alpn<P: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// Sessions are given to the clients as encrypted tickets; without this the server remembers the last 4,096.
    pub fn tickets(mut self) -> Self {
        self.tickets = Tickets::Default;
        self
    }

    /// Likewise, by a ticketer of your own, such as one that shares its keys with other processes. It is guarded like
    /// any other.
    pub fn ticketer(mut self, ticketer: Arc<dyn ProducesTickets>) -> Self {
        self.tickets = Tickets::Own(ticketer);
        self
    }

    /// The versions of TLS; 1.3 and 1.2 without this.
    pub fn versions(mut self, versions: &[&'static SupportedProtocolVersion]) -> Self {
        self.versions = versions.to_vec();
        self
    }

    /// Builds the config. Set no other session store or ticketer in it afterwards: they would not be guarded.
    pub fn build(self) -> Result<ServerConfig, BuildError> {
        // What rustls asks the time for is the client's certificate.
        let clock = match &self.clients {
            Clients::Required(anchors) | Clients::Optional(anchors) => anchors.live().dir().clock(),
            Clients::Unasked => self.identity.live().dir().clock(),
        };
        let time = Arc::new(DirectoryTime(Arc::clone(clock)));
        let provider = Arc::clone(self.identity.provider());
        let builder = ServerConfig::builder_with_details(provider, time)
            .with_protocol_versions(&self.versions)
            .map_err(BuildError::Rustls)?;
        let builder = match &self.clients {
            Clients::Required(anchors) => builder.with_client_cert_verifier(anchors.verify_clients(true, self.tells)),
            Clients::Optional(anchors) => builder.with_client_cert_verifier(anchors.verify_clients(false, self.tells)),
            Clients::Unasked => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(self.identity.server_resolver_beside(self.others));
        config.alpn_protocols = self.alpn;
        config.session_storage = ServerSessionMemoryCache::new(SERVER_SESSIONS);
        match self.tickets {
            Tickets::Off => {}
            Tickets::Default => config.ticketer = ticketer()?,
            Tickets::Own(ticketer) => config.ticketer = ticketer,
        }
        match &self.clients {
            Clients::Required(anchors) => anchors.guard_sessions(&mut config, false),
            Clients::Optional(anchors) => anchors.guard_sessions(&mut config, true),
            Clients::Unasked => {}
        }
        Ok(config)
    }

    /// What connections of this config rest on.
    #[cfg(feature = "tokio")]
    pub(crate) fn rests_on(&self) -> (Option<Admission>, Vec<Identity>) {
        let admission = match &self.clients {
            Clients::Required(anchors) | Clients::Optional(anchors) => Some(anchors.admission(Role::Client)),
            Clients::Unasked => None,
        };
        let identities = std::iter::once(&self.identity).chain(&self.others);
        (admission, identities.cloned().collect())
    }
}

/// Begins a `rustls::ClientConfig` that trusts servers of these anchors.
///
/// It resumes sessions until something is no longer trusted or the identity changes, and never after: rustls does not
/// say what a session rests on. ALPN is left to who uses the config.
///
/// ```no_run
/// # let identity = keydir_rustls::Identity::open("/run/secrets/client-tls")?;
/// # let anchors = keydir_rustls::TrustAnchors::open("/run/secrets/mesh-ca")?;
/// let config: rustls::ClientConfig = keydir_rustls::client_config(&anchors).identity(&identity).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn client_config(anchors: &TrustAnchors) -> ClientBuilder {
    ClientBuilder {
        anchors: anchors.clone(),
        identity: None,
        asks: Asks {
            hints: true,
            name: true,
        },
        versions: DEFAULT_VERSIONS.to_vec(),
    }
}

/// A client config that can be built.
#[derive(Clone, Debug)]
#[must_use = "nothing happens until it is built"]
pub struct ClientBuilder {
    pub(crate) anchors: TrustAnchors,
    pub(crate) identity: Option<Identity>,
    pub(crate) asks: Asks,
    versions: Vec<&'static SupportedProtocolVersion>,
}

impl ClientBuilder {
    /// Shows this identity to servers that ask.
    pub fn identity(mut self, identity: &Identity) -> Self {
        self.identity = Some(identity.clone());
        self
    }

    /// Does not tell servers the names of the CAs. They are sent in clear, and with many CAs they are long. Servers that
    /// have several certificates cannot choose by them then.
    pub fn without_hints(mut self) -> Self {
        self.asks.hints = false;
        self
    }

    /// Verifies servers by SPIFFE ID, as X.509-SVIDs are meant to be, in place of their DNS name: the certificate must
    /// have a SPIFFE ID, and the rule must let it in. It may go by something that is reloaded; a session is resumed
    /// without asking it, but a [`Connector`](crate::Connector) asks after each handshake.
    ///
    /// ```no_run
    /// # let anchors = keydir_rustls::TrustAnchors::open("/run/secrets/mesh-ca")?;
    /// let config = keydir_rustls::client_config(&anchors)
    ///     .spiffe(|id| id == "spiffe://mesh.example/ns/shop/sa/db")
    ///     .build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spiffe(mut self, rule: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.anchors = self
            .anchors
            .only(move |peer| peer.spiffe_id().is_some_and(|id| rule(&id)));
        self.asks.name = false;
        self
    }

    /// Verifies who vouches for a server, but not its name: for protocols that have a mode for that, such as
    /// PostgreSQL's `verify-ca`. Whoever has a certificate of these CAs can stand for any server then.
    pub fn any_name(mut self) -> Self {
        self.asks.name = false;
        self
    }

    /// The versions of TLS; 1.3 and 1.2 without this.
    pub fn versions(mut self, versions: &[&'static SupportedProtocolVersion]) -> Self {
        self.versions = versions.to_vec();
        self
    }

    /// Builds the config. Set no other `resumption` in it afterwards.
    pub fn build(self) -> Result<ClientConfig, BuildError> {
        let clock = self.anchors.live().dir().clock();
        let time = Arc::new(DirectoryTime(Arc::clone(clock)));
        let verifier: Arc<dyn ServerCertVerifier> = self.anchors.verify_servers(self.asks);
        let builder = ClientConfig::builder_with_details(Arc::clone(self.anchors.provider()), time)
            .with_protocol_versions(&self.versions)
            .map_err(BuildError::Rustls)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.identity {
            Some(identity) => builder.with_client_cert_resolver(identity.client_resolver()),
            None => builder.with_no_client_auth(),
        };
        config.resumption = self.anchors.resumption(self.identity.as_ref());
        Ok(config)
    }
}
