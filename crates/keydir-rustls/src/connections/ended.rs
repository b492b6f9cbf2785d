//! Why a connection ends, or never comes about.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use keydir::RevisionId;

/// Why a connection may not go on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Ended {
    /// The revision of our own identity that the handshake presented was revoked.
    Identity(RevisionId),
    /// The peer is not trusted any more: its CA was removed, its certificate has expired or was revoked by a CRL, or
    /// the application's own rule refuses it now.
    Peer {
        /// The revision that vouched for it last; `None` if none did after the handshake.
        ca: Option<RevisionId>,
        /// What a new handshake would fail with.
        error: rustls::Error,
    },
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(id) => write!(f, "the identity {id} was revoked"),
            Self::Peer { ca: Some(ca), error } => {
                write!(f, "the peer, vouched for by {ca}, is not trusted any more: {error}")
            }
            Self::Peer { ca: None, error } => {
                write!(f, "the peer's trust was lost during the handshake: {error}")
            }
        }
    }
}

impl Error for Ended {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Identity(_) => None,
            Self::Peer { error, .. } => Some(error),
        }
    }
}

/// Why a handshake came to nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The handshake itself: one side refused the other, or the connection broke. A `rustls::Error` stands behind the
    /// error of the former.
    Tls(io::Error),
    /// It took longer than allowed.
    TooSlow(Duration),
    /// What it rested on was revoked before it was done. The peer got a `close_notify`.
    ///
    /// Nothing was sent yet, so a client connects again, which goes by what is trusted now. That is no rare thing at the
    /// end of a rotation: a session rests on the certificate of the handshake that it comes from, which the server may
    /// have replaced long ago.
    Ended(Ended),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(_) => f.write_str("the TLS handshake failed"),
            Self::TooSlow(limit) => write!(f, "the TLS handshake took longer than {} s", limit.as_secs_f64()),
            Self::Ended(_) => f.write_str("the TLS handshake was overtaken by a revocation"),
        }
    }
}

impl Error for HandshakeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Tls(error) => Some(error),
            Self::TooSlow(_) => None,
            Self::Ended(ended) => Some(ended),
        }
    }
}
