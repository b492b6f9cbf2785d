//! A QUIC client that keeps one connection.

use std::net::SocketAddr;
use std::sync::Arc;

use keydir_rustls::rustls::version::TLS13;
use keydir_rustls::{BuildError, Connector, Identity, Term, TrustAnchors, client_config};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint};
use tokio::sync::Mutex;

use crate::BoxError;

/// A client of one server.
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
    server: (SocketAddr, String),
    connector: Connector,
    current: Mutex<Option<(Term, Connection)>>,
}

impl Client {
    /// A client of the server with this address and name.
    ///
    /// # Errors
    /// If the TLS config cannot be built.
    pub fn new(
        identity: &Identity,
        anchors: &TrustAnchors,
        endpoint: Endpoint,
        server: (SocketAddr, String),
    ) -> Result<Self, BuildError> {
        let tls = client_config(anchors).identity(identity).versions(&[&TLS13]);
        let connector = tls.connector_with(|config| config.alpn_protocols = vec![b"whoami".to_vec()])?;
        Ok(Self {
            endpoint,
            server,
            connector,
            current: Mutex::default(),
        })
    }

    /// The connection for one request, not to be kept: another takes its place when something is revoked. What is under
    /// way on the old one is finished.
    ///
    /// # Errors
    /// If it has to connect, and that fails.
    pub async fn connection(&self) -> Result<Connection, BoxError> {
        let mut current = self.current.lock().await;
        loop {
            if let Some((term, connection)) = &*current
                && self.connector.stands(term)
                && connection.close_reason().is_none()
            {
                return Ok(connection.clone());
            }
            let term = self.connector.begin();
            let tls = QuicClientConfig::try_from(self.connector.config())?;
            let (address, name) = &self.server;
            let config = ClientConfig::new(Arc::new(tls));
            let connecting = self.endpoint.connect_with(config, *address, name)?;
            *current = Some((term, connecting.await?));
        }
    }
}
