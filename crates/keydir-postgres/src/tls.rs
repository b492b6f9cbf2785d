//! TLS to PostgreSQL, as libpq's `sslmode` has it, with the trust and the certificates of key directories.
//!
//! tokio-postgres asks for TLS itself, but only a connector that it calls at once (as for "direct" TLS) sees every
//! connection, also those without TLS, on which nobody may ask for the password.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use keydir_rustls::rustls::ClientConfig;
use keydir_rustls::rustls::client::Resumption;
use keydir_rustls::rustls::crypto::CryptoProvider;
use keydir_rustls::rustls::pki_types::ServerName;
use keydir_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use keydir_rustls::{BuildError, Connection, Connector, NoProvider, TrustAnchors, client_config, crypto_provider};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::Socket;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_rustls::TlsConnector;

use crate::good_bye::AskForEnd;
use crate::last_word::LastWord;
use crate::stream::PgStream;
use crate::unverified;

/// A session may go on for as long as it likes: what ends it is its holder. So TLS does not cut it.
const NO_LIMIT: Duration = Duration::from_secs(u32::MAX as u64);
/// SSLRequest (PostgreSQL documentation, "Message Formats").
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// Of direct TLS (PostgreSQL documentation, "SSL Session Encryption").
const ALPN: &[u8] = b"postgresql";

/// Whether there is TLS, and what of the server is verified: libpq's `sslmode`. Only the last two keep an impostor out,
/// and only with them a password may be sent as it is; with the others it is SCRAM or nothing.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS if the server offers it, which anybody in between can prevent. Nothing is verified.
    #[default]
    Prefer,
    /// TLS. Nothing is verified.
    Require,
    /// The server's certificate must be of a CA that is trusted; for which name, does not matter.
    VerifyCa(TrustAnchors),
    /// The server's certificate must be of a CA that is trusted, and for the host's name.
    VerifyFull(TrustAnchors),
}

impl SslMode {
    fn anchors(&self) -> Option<&TrustAnchors> {
        match self {
            Self::VerifyCa(anchors) | Self::VerifyFull(anchors) => Some(anchors),
            _ => None,
        }
    }
}

/// How connections are made; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Tls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    provider: Arc<CryptoProvider>,
    mode: SslMode,
    direct: bool,
    /// By the certificate that is shown. Sessions and what is alive are looked after by each for itself.
    made: Mutex<Vec<(Option<Arc<CertifiedKey>>, Kind)>>,
}

#[derive(Clone, Debug)]
enum Kind {
    Plain,
    Unverified(Arc<ClientConfig>),
    Verified(Connector),
}

impl Tls {
    pub(crate) fn new(mode: SslMode, direct: bool) -> Result<Self, NoProvider> {
        Ok(Self(Arc::new(Shared {
            provider: crypto_provider()?,
            mode,
            direct,
            made: Mutex::default(),
        })))
    }

    /// What vouches for the server.
    #[cfg(feature = "_pool")]
    pub(crate) fn anchors(&self) -> Option<&TrustAnchors> {
        self.0.mode.anchors()
    }

    /// What an attempt with this certificate connects with.
    pub(crate) fn with_certificate(&self, certificate: Option<&Arc<CertifiedKey>>) -> Result<PostgresTls, BuildError> {
        let mut made = self.0.made.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |own: &Option<Arc<CertifiedKey>>| match (own, certificate) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (None, None) => true,
            _ => false,
        };
        let kind = match made.iter().find(|(own, _)| same(own)) {
            Some((_, kind)) => kind.clone(),
            None => {
                // Nobody else holds it: it cannot be asked for again.
                made.retain(|(own, _)| own.as_ref().is_none_or(|own| Arc::strong_count(own) > 1));
                let kind = self.make(certificate)?;
                made.push((certificate.cloned(), kind.clone()));
                kind
            }
        };
        Ok(PostgresTls {
            kind,
            direct: self.0.direct,
            may_be_plain: matches!(self.0.mode, SslMode::Prefer),
            noted: Arc::default(),
        })
    }

    fn make(&self, certificate: Option<&Arc<CertifiedKey>>) -> Result<Kind, BuildError> {
        let adjust = |config: &mut ClientConfig| {
            if let Some(certificate) = certificate {
                config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::clone(certificate)));
            }
            // A connection lives long, and each handshake tells what it rests on.
            config.resumption = Resumption::disabled();
            if self.0.direct {
                config.alpn_protocols = vec![ALPN.to_vec()];
            }
        };
        let Some(anchors) = self.0.mode.anchors() else {
            return match self.0.mode {
                SslMode::Disable => Ok(Kind::Plain),
                _ => Ok(Kind::Unverified(Arc::new(unverified::config(
                    Arc::clone(&self.0.provider),
                    adjust,
                )?))),
            };
        };
        let builder = client_config(anchors);
        let builder = match self.0.mode {
            SslMode::VerifyCa(_) => builder.any_name(),
            _ => builder,
        };
        Ok(Kind::Verified(builder.connector_with(adjust)?.with_grace(NO_LIMIT)))
    }
}

/// The TLS of a login, as tokio-postgres takes it. Cancel requests need it too:
/// `client.cancel_token().cancel_query(lease.tls())`.
#[derive(Clone, Debug)]
pub struct PostgresTls {
    kind: Kind,
    direct: bool,
    may_be_plain: bool,
    noted: Arc<Noted>,
}

/// What is there once the connection is made.
#[derive(Debug, Default)]
struct Noted {
    connection: OnceLock<Connection>,
    end: AskForEnd,
}

impl PostgresTls {
    /// What the connection that was made with this rests on; `None` without verified TLS.
    pub(crate) fn connection(&self) -> Option<&Connection> {
        self.noted.connection.get()
    }

    /// Whether what vouches for the server was not revoked.
    pub(crate) fn stands(&self) -> bool {
        self.connection().is_none_or(Connection::stands)
    }

    /// Ends the connection that was made with this, on which nothing is under way.
    #[cfg(feature = "_pool")]
    pub(crate) fn end(&self) {
        self.noted.end.ask();
    }

    /// Whether anything was sent since this was asked last.
    #[cfg(feature = "bb8")]
    pub(crate) fn was_used(&self) -> bool {
        self.noted.end.was_written()
    }

    /// The same for another connection.
    pub(crate) fn afresh(&self) -> Self {
        Self {
            noted: Arc::default(),
            ..self.clone()
        }
    }
}

impl MakeTlsConnect<Socket> for PostgresTls {
    type Stream = PgStream;
    type TlsConnect = Handshake;
    type Error = TlsError;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, TlsError> {
        Ok(Handshake {
            tls: self.clone(),
            host: host.to_owned(),
        })
    }
}

/// One handshake of a [`PostgresTls`].
#[derive(Debug)]
pub struct Handshake {
    tls: PostgresTls,
    host: String,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = PgStream;
    type Error = TlsError;
    type Future = Pin<Box<dyn Future<Output = Result<PgStream, TlsError>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(self.shake_hands(socket))
    }
}

impl Handshake {
    async fn shake_hands(self, socket: Socket) -> Result<PgStream, TlsError> {
        let mut socket = LastWord::new(socket);
        let tls = &self.tls;
        let end = &tls.noted.end;
        if matches!(tls.kind, Kind::Plain) {
            return Ok(PgStream::plain(socket, end));
        }
        if !tls.direct {
            match ask(&mut socket).await.map_err(TlsError::Io)? {
                b'S' => {}
                b'N' if tls.may_be_plain => return Ok(PgStream::plain(socket, end)),
                _ => return Err(TlsError::NotOffered),
            }
        }
        let name = || ServerName::try_from(self.host.clone()).map_err(|_| TlsError::NoName(self.host.clone()));
        match &tls.kind {
            Kind::Plain => Ok(PgStream::plain(socket, end)),
            Kind::Unverified(config) => {
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(name()?, socket).await.map_err(TlsError::Io)?;
                Ok(PgStream::unverified(stream, end))
            }
            Kind::Verified(connector) => {
                let stream = connector.connect(name()?, socket).await;
                let stream = stream.map_err(|error| TlsError::Handshake(Box::new(error)))?;
                let _ = tls.noted.connection.set(stream.connection().clone());
                Ok(PgStream::verified(stream, end))
            }
        }
    }
}

/// Asks for TLS. Exactly one byte is read: whatever else came before the handshake is part of it, and fails it.
async fn ask(socket: &mut LastWord<Socket>) -> io::Result<u8> {
    socket.write_all(&SSL_REQUEST).await?;
    socket.flush().await?;
    socket.read_u8().await
}

/// Why there is no TLS.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// The connection broke, or the handshake failed.
    Io(io::Error),
    /// The handshake failed.
    Handshake(Box<keydir_rustls::HandshakeError>),
    /// The server offers no TLS.
    NotOffered,
    /// The host is neither a name nor an address.
    NoName(String),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(_) => f.write_str("the TLS handshake failed"),
            Self::Handshake(error) => error.fmt(f),
            Self::NotOffered => f.write_str("the server offers no TLS: set ssl = on there, or another sslmode here"),
            Self::NoName(host) => write!(f, "the host {host:?} is neither a name nor an address"),
        }
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Handshake(error) => error.source(),
            Self::NotOffered | Self::NoName(_) => None,
        }
    }
}
