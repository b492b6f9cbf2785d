//! What sqlx connects with, of one revision and of the trust of this moment.

use std::str::from_utf8;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keydir::{Key, Secret};
use keydir_rustls::{Accepted, TrustAnchors};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::attempt::tagged;
use crate::sqlx::error::SqlxError;
use crate::tls::SslMode;
use crate::view::Credential;

/// The setting by which a session says what it was made with: set by its start-up message, hence with the user and the
/// password in one, and back again after `DISCARD ALL`.
pub(crate) const TAG: &str = "keydir.login";

/// A block that is no certificate, so that nobody is trusted: without any, sqlx would go by the public CAs alone.
const NOBODY: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";

/// Whom a server must be vouched for by.
pub(crate) type Anchors = Vec<Arc<Key<Accepted>>>;

/// All that does not rotate.
#[derive(Clone)]
pub(crate) struct Template {
    base: PgConnectOptions,
    mode: PgSslMode,
    anchors: Option<TrustAnchors>,
    pub(crate) role: Option<String>,
    pub(crate) tags: bool,
}

impl Template {
    pub(crate) fn new(base: PgConnectOptions, mode: SslMode) -> Result<Self, SqlxError> {
        // What goes over a Unix socket, no TLS protects; sqlx would ask for it there.
        let mode = match is_socket(&base) {
            true => SslMode::Disable,
            false => mode,
        };
        let (mode, anchors) = match mode {
            SslMode::Disable => (PgSslMode::Disable, None),
            SslMode::Prefer => (PgSslMode::Prefer, None),
            SslMode::Require => (PgSslMode::Require, None),
            SslMode::VerifyCa(_) => return Err(SqlxError::VerifyCa),
            SslMode::VerifyFull(anchors) => (PgSslMode::VerifyFull, Some(anchors)),
        };
        Ok(Self {
            base,
            mode,
            anchors,
            role: None,
            tags: false,
        })
    }

    pub(crate) fn trust(&self) -> Option<&TrustAnchors> {
        self.anchors.as_ref()
    }

    /// The anchors of this moment, those outside their validity left out.
    pub(crate) fn anchors(&self) -> Anchors {
        let Some(anchors) = &self.anchors else {
            return Anchors::new();
        };
        let set = anchors.live().snapshot();
        let inside = |key: &&Arc<Key<Accepted>>| set.state(key).is_some_and(|state| !state.pending && !state.expired);
        set.iter().filter(inside).cloned().collect()
    }

    /// All of one revision, which the session then says by this number.
    pub(crate) fn options(
        &self,
        key: &Key<Credential>,
        anchors: &Anchors,
        number: u64,
    ) -> Result<PgConnectOptions, SqlxError> {
        let password = key.password().map(Secret::expose).unwrap_or_default();
        let password = from_utf8(password).map_err(|_| SqlxError::NotText(key.id().clone()))?;
        let mut options = self
            .base
            .clone()
            .username(key.user())
            .password(password)
            .ssl_mode(self.mode)
            .options([(TAG, number)]);
        if let Some(role) = &self.role {
            options = options.options([("role", role)]);
        }
        if self.tags {
            let name = self.base.get_application_name().unwrap_or("keydir");
            options = options.application_name(&tagged(name, key.id().as_str()));
        }
        // Never paths: sqlx reads them at each handshake, one after the other, and would join what does not belong
        // together.
        if let Some(pem) = key.pem() {
            options = options
                .ssl_client_cert_from_pem(pem.crt.expose())
                .ssl_client_key_from_pem(pem.key.expose());
        }
        if self.anchors.is_some() {
            options = options.ssl_root_cert_from_pem(pem(anchors).into_bytes());
        }
        Ok(options)
    }
}

/// The same place for tokio-postgres, by which new logins are tried.
pub(crate) fn config(options: &PgConnectOptions) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    match options.get_socket() {
        Some(folder) => config.host_path(folder),
        None => config.host(options.get_host()),
    };
    config.port(options.get_port());
    if let Some(database) = options.get_database() {
        config.dbname(database);
    }
    if let Some(name) = options.get_application_name() {
        config.application_name(name);
    }
    if let Some(options) = options.get_options() {
        config.options(options);
    }
    config
}

fn is_socket(options: &PgConnectOptions) -> bool {
    options.get_socket().is_some() || options.get_host().starts_with('/')
}

fn pem(anchors: &Anchors) -> String {
    let mut pem = String::new();
    for certificate in anchors.iter().flat_map(|key| key.certificates()) {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let mut line = 0;
        for c in STANDARD.encode(certificate).chars() {
            // RFC 7468, section 2.
            if line == 64 {
                pem.push('\n');
                line = 0;
            }
            pem.push(c);
            line += 1;
        }
        pem.push_str("\n-----END CERTIFICATE-----\n");
    }
    match pem.is_empty() {
        true => NOBODY.to_owned(),
        false => pem,
    }
}
