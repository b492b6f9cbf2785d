//! What can go wrong when something is opened or built, and how refusals of webpki are told to rustls.

use std::fmt;
use std::sync::Arc;

use rustls::{CertificateError, Error, OtherError};

/// Why an identity or a set of anchors could not be opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory, or what is in it.
    Directory(keydir::OpenError),
    /// No cryptography is there.
    Provider(NoProvider),
    /// The platform's roots were asked for, and there are none that can be read.
    #[cfg(feature = "platform-roots")]
    PlatformRoots(NoPlatformRoots),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(error) => error.fmt(f),
            Self::Provider(error) => error.fmt(f),
            #[cfg(feature = "platform-roots")]
            Self::PlatformRoots(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Directory(error) => error.source(),
            Self::Provider(_) => None,
            #[cfg(feature = "platform-roots")]
            Self::PlatformRoots(_) => None,
        }
    }
}

impl From<keydir::OpenError> for OpenError {
    fn from(error: keydir::OpenError) -> Self {
        Self::Directory(error)
    }
}

impl From<NoProvider> for OpenError {
    fn from(error: NoProvider) -> Self {
        Self::Provider(error)
    }
}

#[cfg(feature = "platform-roots")]
impl From<NoPlatformRoots> for OpenError {
    fn from(error: NoPlatformRoots) -> Self {
        Self::PlatformRoots(error)
    }
}

/// The platform has no root certificates, or none that can be read.
#[cfg(feature = "platform-roots")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoPlatformRoots(pub(crate) String);

#[cfg(feature = "platform-roots")]
impl fmt::Display for NoPlatformRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(reason) = self;
        write!(
            f,
            "the platform has no root certificates that can be read ({reason}): install them (ca-certificates), or let \
             SSL_CERT_FILE or SSL_CERT_DIR point to them"
        )
    }
}

#[cfg(feature = "platform-roots")]
impl std::error::Error for NoPlatformRoots {}

/// Neither a feature (`aws-lc-rs`, `ring`) nor the application brings a `CryptoProvider`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoProvider;

impl fmt::Display for NoProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "no CryptoProvider: enable the feature aws-lc-rs or ring of keydir-rustls, give one of your own, \
             or install a default for the process",
        )
    }
}

impl std::error::Error for NoProvider {}

/// Why a rustls config could not be built.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// rustls refuses it, such as a provider that can do none of the protocol versions.
    Rustls(Error),
    /// Tickets were asked for, and neither `aws-lc-rs` nor `ring` is enabled.
    NoTicketer,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rustls(error) => write!(f, "rustls refuses the configuration: {error}"),
            Self::NoTicketer => {
                f.write_str("tickets need the feature aws-lc-rs or ring of keydir-rustls, or a ticketer of your own")
            }
        }
    }
}

impl std::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Rustls(error) => Some(error),
            Self::NoTicketer => None,
        }
    }
}

/// A peer has sent more intermediate certificates than any real chain has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChainTooLong(usize);

impl ChainTooLong {
    pub(crate) fn error(intermediates: usize) -> Error {
        let error = Self(intermediates);
        CertificateError::Other(OtherError(Arc::new(error))).into()
    }
}

impl fmt::Display for ChainTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the chain leads through {} certificates", self.0)
    }
}

impl std::error::Error for ChainTooLong {}

/// The error of rustls that makes it send the alert which fits; rustls keeps its own translation to itself.
pub(crate) fn refused(error: webpki::Error) -> Error {
    use webpki::Error as W;
    match error {
        W::BadDer | W::BadDerTime | W::TrailingData(_) => CertificateError::BadEncoding,
        W::CertNotValidYet { time, not_before } => CertificateError::NotValidYetContext { time, not_before },
        W::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        W::InvalidCertValidity => CertificateError::Expired,
        W::UnknownIssuer => CertificateError::UnknownIssuer,
        W::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        W::CertRevoked => CertificateError::Revoked,
        W::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        W::CrlExpired { time, next_update } => CertificateError::ExpiredRevocationListContext { time, next_update },
        W::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        error => CertificateError::Other(OtherError(Arc::new(error))),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages() {
        let alert = Error::General("no version".into());
        let too_long = ChainTooLong::error(9);
        let table: [(&dyn fmt::Display, &str); 4] = [
            (
                &OpenError::from(NoProvider),
                "no CryptoProvider: enable the feature aws-lc-rs or ring of keydir-rustls, give one of your own, or \
                 install a default for the process",
            ),
            (
                &BuildError::Rustls(alert),
                "rustls refuses the configuration: unexpected error: no version",
            ),
            (
                &BuildError::NoTicketer,
                "tickets need the feature aws-lc-rs or ring of keydir-rustls, or a ticketer of your own",
            ),
            (
                &too_long,
                "invalid peer certificate: Other(OtherError(ChainTooLong(9)))",
            ),
        ];
        for (error, expected) in table {
            assert_eq!(error.to_string(), expected);
        }
    }
}
