//! Key pairs.

use keydir::Secret;
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, SignatureAlgorithm};
use zeroize::{Zeroize, Zeroizing};

use super::pem::{self, Block};
use super::random::random;
use super::{Error, KeyAlgorithm};

/// What stands before the 32 secret bytes of an Ed25519 key in PKCS#8 (RFC 8410, section 7). Both backends would write
/// version 2, with the public key inside, which OpenSSL 3.0 cannot read.
const ED25519: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// A key to sign with, and the one to verify with.
///
/// ```
/// use keydir_rotate::generate::{KeyAlgorithm, KeyPair};
///
/// let pair = KeyPair::generate(KeyAlgorithm::Ed25519)?;
/// let files = [("r1.private", pair.private.expose()), ("r1.public", pair.public.as_bytes())];
/// # let dir = keydir::Dir::in_memory(files);
/// # Ok::<(), keydir_rotate::generate::Error>(())
/// ```
#[derive(Debug)]
pub struct KeyPair {
    /// The part `private`: PKCS#8, PEM.
    pub private: Secret,
    /// The part `public`: SubjectPublicKeyInfo, PEM.
    pub public: String,
}

impl KeyPair {
    /// A new one.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for RSA if only the feature `ring` is on; [`Error::Impossible`] for other sizes of RSA.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, Error> {
        let key = PrivateKey::generate(algorithm)?;
        let public = rcgen::PublicKeyData::subject_public_key_info(&key);
        Ok(Self {
            public: pem::encode("PUBLIC KEY", &public).to_string(),
            private: key.pem.clone(),
        })
    }
}

/// A private key that signs certificates, and the text that it is kept as. Erased when it goes.
pub(crate) struct PrivateKey {
    pair: rcgen::KeyPair,
    pem: Secret,
}

impl PrivateKey {
    pub(crate) fn generate(algorithm: KeyAlgorithm) -> Result<Self, Error> {
        algorithm.check()?;
        let pair = match algorithm {
            KeyAlgorithm::Ed25519 => ed25519()?,
            KeyAlgorithm::EcdsaP256 => generate_for(&PKCS_ECDSA_P256_SHA256)?,
            KeyAlgorithm::EcdsaP384 => generate_for(&PKCS_ECDSA_P384_SHA384)?,
            KeyAlgorithm::Rsa { bits } => rsa(bits)?,
        };
        let mut pem = pem::encode("PRIVATE KEY", pair.serialized_der());
        Ok(Self {
            pair,
            pem: Secret::from(std::mem::take(&mut *pem)),
        })
    }

    /// PKCS#8; with aws-lc-rs SEC1 and PKCS#1 too.
    pub(crate) fn load(pem: &Secret) -> Result<Self, Error> {
        let mut keys = pem::decode(pem.expose())?;
        // What `openssl ecparam -genkey` writes before the key; the key repeats it.
        if keys.len() > 1 && keys.first().is_some_and(|block| block.label == "EC PARAMETERS") {
            keys.remove(0);
        }
        let [Block { label, der }] = keys.as_slice() else {
            return Err(Error::Pem("it does not hold exactly one private key"));
        };
        if !["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"].contains(label) {
            return Err(Error::Pem(
                "it holds something else than a private key without a passphrase",
            ));
        }
        let pair = rcgen::KeyPair::try_from(der.as_slice()).map_err(|_| Error::Key)?;
        let known: [&SignatureAlgorithm; 4] = [
            &PKCS_ED25519,
            &PKCS_ECDSA_P256_SHA256,
            &PKCS_ECDSA_P384_SHA384,
            &PKCS_RSA_SHA256,
        ];
        let key = Self { pair, pem: pem.clone() };
        if known.contains(&key.pair.algorithm()) {
            Ok(key)
        } else {
            Err(Error::Key)
        }
    }

    pub(crate) fn pem(&self) -> &Secret {
        &self.pem
    }
}

impl rcgen::PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.pair.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.pair.algorithm()
    }
}

impl rcgen::SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.pair.sign(message)
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.pair.zeroize();
    }
}

fn generate_for(algorithm: &'static SignatureAlgorithm) -> Result<rcgen::KeyPair, Error> {
    rcgen::KeyPair::generate_for(algorithm).map_err(crypto)
}

fn ed25519() -> Result<rcgen::KeyPair, Error> {
    let seed = random(32)?;
    let mut pkcs8 = Zeroizing::new(Vec::with_capacity(ED25519.len() + seed.len()));
    pkcs8.extend_from_slice(&ED25519);
    pkcs8.extend_from_slice(&seed);
    rcgen::KeyPair::try_from(pkcs8.as_slice()).map_err(crypto)
}

#[cfg(feature = "aws-lc-rs")]
fn rsa(bits: u32) -> Result<rcgen::KeyPair, Error> {
    let size = match bits {
        2048 => rcgen::RsaKeySize::_2048,
        3072 => rcgen::RsaKeySize::_3072,
        _ => rcgen::RsaKeySize::_4096,
    };
    rcgen::KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, size).map_err(crypto)
}

#[cfg(not(feature = "aws-lc-rs"))]
fn rsa(bits: u32) -> Result<rcgen::KeyPair, Error> {
    Err(Error::Unsupported(KeyAlgorithm::Rsa { bits }))
}

pub(crate) fn crypto(error: rcgen::Error) -> Error {
    Error::Crypto(error.to_string())
}
