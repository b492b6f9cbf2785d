//! The server's side of TLS connections.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::ended::HandshakeError;
use super::handshake::{GRACE, TIMEOUT, drive};
use super::stream::TlsStream;
use super::table::Table;
use crate::config::ServerBuilder;
use crate::error::BuildError;

/// Accepts TLS connections that know what they rest on: our identity, and whoever vouches for the client. Made by
/// [`ServerBuilder::acceptor`](crate::ServerBuilder::acceptor). Cheap to clone.
///
/// Beyond what the config alone does, a connection whose handshake straddled a revocation is refused itself, and one
/// that is alive is told when what it rests on is revoked, given a grace, and then cut. A connection does not outlive
/// the client's certificate either.
///
/// ```no_run
/// # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
/// let identity = keydir_rustls::Identity::open("/run/secrets/server-tls")?;
/// let anchors = keydir_rustls::TrustAnchors::open("/run/secrets/mesh-ca")?;
/// let acceptor = keydir_rustls::server_config(&identity).require_client(&anchors).acceptor()?;
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8443").await?;
/// loop {
///     let (tcp, _) = listener.accept().await?;
///     let acceptor = acceptor.clone();
///     tokio::spawn(async move {
///         let tls = acceptor.accept(tcp).await?;
///         let connection = tls.connection().clone();
///         // Serve requests while `connection.stands()`; say to the peer with the next answer that the connection closes
///         // if it does not, and shut it down at `connection.closing()` if no request comes.
/// #       drop((tls, connection));
///         Ok::<_, keydir_rustls::HandshakeError>(())
///     });
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    table: Arc<Table>,
    timeout: Duration,
    grace: Duration,
}

impl ServerBuilder {
    /// Builds an [`Acceptor`] in place of a config: for connections that know what they rest on.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn acceptor(self) -> Result<Acceptor, BuildError> {
        self.acceptor_with(|_| {})
    }

    /// Likewise; `adjust` may change what this builder has no option for, such as `max_fragment_size`. Leave the
    /// verifier, the resolver, the session store and the ticketer alone.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn acceptor_with(self, adjust: impl FnOnce(&mut ServerConfig)) -> Result<Acceptor, BuildError> {
        let (admission, identities) = self.rests_on();
        let mut config = self.build()?;
        adjust(&mut config);
        Ok(Acceptor {
            config: Arc::new(config),
            table: Table::new(admission, identities),
            timeout: TIMEOUT,
            grace: GRACE,
        })
    }
}

impl Acceptor {
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

    /// Performs a handshake. Run it in a task of its own: clients may be slow, and a refused one gets up to a second
    /// to read why.
    ///
    /// Must be called from within a tokio runtime with time enabled.
    ///
    /// # Errors
    /// If the handshake fails, takes too long, or was overtaken by a revocation of what it rests on.
    ///
    /// # Cancel safety
    /// Not cancel safe: the connection is lost with the future.
    pub async fn accept<IO>(&self, io: IO) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = TlsAcceptor::from(Arc::clone(&self.config)).accept(io).into_fallible();
        let (tls, chosen) = drive(pin!(handshake), self.timeout).await?;
        let identities = |_| chosen.iter().map(|(choice, _)| choice.clone()).collect();
        TlsStream::register(tls.into(), &self.table, identities, self.grace).await
    }

    /// The config of every handshake.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// How many connections are alive.
    pub fn connections(&self) -> usize {
        self.table.len()
    }

    /// Asks for every connection that is alive whether its client is still admitted, because the application's own
    /// rule ([`TrustAnchors::only`](crate::TrustAnchors::only)) has changed. Changes of directories need no call.
    pub fn recheck(&self) {
        self.table.recheck();
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("connections", &self.connections())
            .field("timeout", &self.timeout)
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}
