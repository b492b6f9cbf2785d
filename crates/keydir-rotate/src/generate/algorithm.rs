//! Kinds of private keys.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use super::Error;

/// A kind of private key. In policies `ed25519`, `ecdsa-p256`, `ecdsa-p384`, `rsa-2048`, `rsa-3072` or `rsa-4096`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyAlgorithm {
    /// Ed25519 (RFC 8410). Fine for JWT; few public TLS clients take it.
    Ed25519,
    /// ECDSA on P-256 with SHA-256: what every TLS end takes.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384 with SHA-384.
    EcdsaP384,
    /// RSA, signing with PKCS#1 v1.5 and SHA-256 where it signs certificates.
    Rsa {
        /// 2048, 3072 or 4096.
        bits: u32,
    },
}

impl KeyAlgorithm {
    const ALL: [Self; 6] = [
        Self::Ed25519,
        Self::EcdsaP256,
        Self::EcdsaP384,
        Self::Rsa { bits: 2048 },
        Self::Rsa { bits: 3072 },
        Self::Rsa { bits: 4096 },
    ];

    pub(crate) fn check(self) -> Result<(), Error> {
        if Self::ALL.contains(&self) {
            return Ok(());
        }
        Err(Error::impossible("algorithm", format!("{self} is none of {}", names())))
    }
}

fn names() -> String {
    KeyAlgorithm::ALL.map(|algorithm| algorithm.to_string()).join(", ")
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ed25519 => f.write_str("ed25519"),
            Self::EcdsaP256 => f.write_str("ecdsa-p256"),
            Self::EcdsaP384 => f.write_str("ecdsa-p384"),
            Self::Rsa { bits } => write!(f, "rsa-{bits}"),
        }
    }
}

impl FromStr for KeyAlgorithm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|algorithm| algorithm.to_string() == text);
        found.ok_or_else(|| Error::impossible("algorithm", format!("{text:?} is none of {}", names())))
    }
}

impl<'de> Deserialize<'de> for KeyAlgorithm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
