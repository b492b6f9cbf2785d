//! Why something could not be generated. No message holds a byte of a secret.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::KeyAlgorithm;

/// Why something could not be generated.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The system gives no randomness.
    Randomness,
    /// A profile, or a parameter, asks for what cannot be.
    Impossible {
        /// Which one.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// This build cannot make such keys.
    Unsupported(KeyAlgorithm),
    /// What was given is not the PEM that is wanted.
    Pem(&'static str),
    /// A certificate cannot be read, or means something else.
    Certificate(&'static str),
    /// The certificate that shall issue is no CA that could.
    NotACa(&'static str),
    /// The private key cannot be read, or is of a kind that is not made here.
    Key,
    /// The private key is not that of the certificate.
    KeyMismatch,
    /// The issuer's validity has not begun.
    NotYetValid {
        /// When it begins.
        not_before: SystemTime,
    },
    /// The issuer's validity is over.
    Expired {
        /// When it ended.
        not_after: SystemTime,
    },
    /// The issuer ends too soon: what it would issue would have less than a tenth of the life it was asked for.
    EndsTooSoon {
        /// When the issuer ends.
        not_after: SystemTime,
        /// The life that was asked for.
        life: Duration,
    },
    /// The issuer's pathLen leaves no room for the CA that it shall vouch for.
    PathLen,
    /// Two CAs of a chain would have the same subject.
    SameSubject,
    /// The CA that shall be cross-signed is not self-signed.
    NotARoot,
    /// A subject that cannot be written again as it stands.
    Subject,
    /// The cryptography has refused.
    Crypto(String),
}

impl Error {
    pub(crate) fn impossible(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Impossible {
            field,
            reason: reason.into(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |time: &SystemTime| humantime::format_rfc3339_seconds(*time);
        match self {
            Self::Randomness => f.write_str("the system gives no randomness"),
            Self::Impossible { field, reason } => write!(f, "{field}: {reason}"),
            Self::Unsupported(algorithm) => write!(
                f,
                "this build of keydir-rotate makes no key of kind {algorithm}; one with the feature aws-lc-rs does"
            ),
            Self::Pem(reason) => write!(f, "bad PEM: {reason}"),
            Self::Certificate(reason) => write!(f, "bad certificate: {reason}"),
            Self::NotACa(reason) => write!(f, "the certificate cannot issue others: {reason}"),
            Self::Key => {
                f.write_str("the private key is not one of Ed25519, ECDSA P-256 or P-384, or RSA that can be read")
            }
            Self::KeyMismatch => f.write_str("the private key is not that of the certificate"),
            Self::NotYetValid { not_before } => write!(f, "the issuer is not valid before {}", time(not_before)),
            Self::Expired { not_after } => write!(f, "the issuer has expired at {}", time(not_after)),
            Self::EndsTooSoon { not_after, life } => write!(
                f,
                "the issuer expires at {}, too soon for a life of {}",
                time(not_after),
                humantime::format_duration(*life)
            ),
            Self::PathLen => f.write_str("the issuer's pathLen leaves no room for this CA"),
            Self::SameSubject => f.write_str("a CA above has the same subject; each needs one of its own"),
            Self::NotARoot => f.write_str("only a self-signed CA can be cross-signed"),
            Self::Subject => f.write_str("the subject has a form that cannot be written again as it stands"),
            Self::Crypto(reason) => write!(f, "cryptography: {reason}"),
        }
    }
}

impl std::error::Error for Error {}
