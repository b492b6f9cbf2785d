//! How a directory is read as TLS identities: a certificate with its chain, and its key.

use std::fmt;
use std::sync::Arc;

use keydir::{Broken, Candidates, Parsed, Piece, Revision, Unusable, Usage, View, uses};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{Error, InconsistentKeys};
use webpki::EndEntityCert;
use zeroize::Zeroize;

use crate::certificate::Certificate;
use crate::traits::Traits;
use crate::{ec, pem};

/// Reads a directory as TLS identities. [`Identity`](crate::Identity) makes it.
pub struct IdentityView {
    provider: Arc<CryptoProvider>,
}

/// A certificate with its chain and its key, as rustls takes it.
#[derive(Debug)]
pub struct IdentityKey {
    certified: Arc<CertifiedKey>,
    piece: Piece,
    traits: Traits,
}

impl IdentityKey {
    /// What rustls presents.
    pub fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// The certificates: the leaf first, then its chain.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The leaf's dates.
    pub fn piece(&self) -> &Piece {
        &self.piece
    }

    pub(crate) fn traits(&self) -> &Traits {
        &self.traits
    }
}

impl IdentityView {
    /// A view whose keys are loaded by this provider.
    pub fn new(provider: Arc<CryptoProvider>) -> Self {
        Self { provider }
    }

    pub(crate) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    fn read(&self, crt: &[u8], key: &[u8]) -> Result<IdentityKey, Unusable> {
        let certificates = pem::certificates(crt).map_err(|error| error.in_part("crt"))?;
        let piece = check_chain(&certificates).map_err(|unusable| unusable.part("crt"))?;
        let key = pem::private_key(key).map_err(|error| error.in_part("key"))?;
        let key = self.load(key)?;
        let certified = CertifiedKey::new(certificates, key);
        match certified.keys_match() {
            Ok(()) => Ok(()),
            Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => self.try_out(&certified),
            Err(Error::InconsistentKeys(_)) => Err(mismatch()),
            Err(error) => Err(Unusable::new(
                "unsupported",
                format!("it holds a certificate that rustls cannot use: {error}"),
            )
            .part("crt")),
        }?;
        Ok(IdentityKey {
            traits: Traits::of(&certified),
            certified: Arc::new(certified),
            piece,
        })
    }

    fn load(&self, mut key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Unusable> {
        let provider = self.provider.key_provider;
        let inside = match &key {
            // ring has nothing to gain from it, and rustls wraps the key for ring again, in memory that is not erased.
            PrivateKeyDer::Pkcs8(key) if cfg!(feature = "aws-lc-rs") => ec::inside(key),
            _ => None,
        };
        if let Some(Ok(loaded)) = inside.map(|inside| provider.load_private_key(inside)) {
            key.zeroize();
            return Ok(loaded);
        }
        provider.load_private_key(key).map_err(|_| {
            Unusable::new(
                "unsupported-key",
                "the private key is damaged, or of a kind or size that the CryptoProvider does not support",
            )
            .part("key")
        })
    }

    /// For providers that cannot tell a key's public half: what the key signs, the certificate must verify.
    fn try_out(&self, certified: &CertifiedKey) -> Result<(), Unusable> {
        const MESSAGE: &[u8] = b"does this key belong to that certificate?";
        let algorithms = &self.provider.signature_verification_algorithms;
        let leaf = certified.cert.first().ok_or_else(mismatch)?;
        let leaf = EndEntityCert::try_from(leaf).map_err(|_| mismatch())?;
        let signer = certified
            .key
            .choose_scheme(&algorithms.supported_schemes())
            .ok_or_else(mismatch)?;
        let signature = signer.sign(MESSAGE).map_err(|_| mismatch())?;
        let scheme = signer.scheme();
        let fits = algorithms
            .mapping
            .iter()
            .filter(|(known, _)| *known == scheme)
            .flat_map(|(_, algorithms)| algorithms.iter())
            .any(|algorithm| leaf.verify_signature(*algorithm, MESSAGE, &signature).is_ok());
        fits.then_some(()).ok_or_else(mismatch)
    }
}

fn mismatch() -> Unusable {
    Unusable::new(
        "key-mismatch",
        "the private key is not the one of the first certificate",
    )
}

/// The leaf's dates, if each certificate was issued by the next.
fn check_chain(certificates: &[CertificateDer<'_>]) -> Result<Piece, Unusable> {
    let certificates = certificates
        .iter()
        .map(Certificate::read_outline)
        .collect::<Result<Vec<_>, _>>()?;
    let issuers = certificates.iter().skip(1);
    for (number, (certificate, issuer)) in (1..).zip(certificates.iter().zip(issuers)) {
        if certificate.issuer() != issuer.subject() {
            return Err(Unusable::new(
                "chain-order",
                format!(
                    "certificate {number} was not issued by certificate {}: the leaf comes first, then its issuer, and so on",
                    number + 1
                ),
            ));
        }
    }
    match certificates.first() {
        Some(leaf) => leaf.piece(),
        None => Err(Unusable::new("no-pem", "it holds no certificate")),
    }
}

impl View for IdentityView {
    type Item = IdentityKey;
    type Whole = ();

    fn usage(&self) -> &Usage {
        &uses::TLS_IDENTITY
    }

    fn parse(&self, revision: &Revision<'_>) -> Result<Parsed<IdentityKey>, Unusable> {
        let key = self.read(revision.need("crt")?, revision.need("key")?)?;
        let piece = key.piece;
        Ok(Parsed::new(key).piece(piece))
    }

    fn combine(&self, _: &Candidates<'_, IdentityKey>) -> Result<(), Broken> {
        Ok(())
    }
}

impl fmt::Debug for IdentityView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityView").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::crypto::KeyProvider;
    use rustls::sign::Signer;
    use rustls::{SignatureAlgorithm, SignatureScheme};

    use super::*;
    use crate::provider::provider;

    /// Keys that do not tell their public half, as those in hardware may not.
    #[derive(Debug)]
    struct Silent;

    #[derive(Debug)]
    struct SilentKey(Arc<dyn SigningKey>);

    impl KeyProvider for Silent {
        fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
            let inner = provider().unwrap().key_provider.load_private_key(key)?;
            Ok(Arc::new(SilentKey(inner)))
        }
    }

    impl SigningKey for SilentKey {
        fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
            self.0.choose_scheme(offered)
        }
        fn algorithm(&self) -> SignatureAlgorithm {
            self.0.algorithm()
        }
    }

    #[test]
    fn a_key_whose_public_half_is_not_told_is_tried_out() {
        let silent = IdentityView::new(Arc::new(CryptoProvider {
            key_provider: &Silent,
            ..(*provider().unwrap()).clone()
        }));
        let algorithms = [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ED25519,
        ];
        let keys = algorithms.map(|algorithm| KeyPair::generate_for(algorithm).unwrap());
        for (i, own) in keys.iter().enumerate() {
            let params = CertificateParams::new(["a.test".to_owned()]).unwrap();
            let crt = params.self_signed(own).unwrap().pem();
            for (j, key) in keys.iter().enumerate() {
                let read = silent.read(crt.as_bytes(), key.serialize_pem().as_bytes());
                let code = read.as_ref().err().map(Unusable::code);
                assert_eq!(code, (i != j).then_some("key-mismatch"), "{read:?}");
            }
            let another = KeyPair::generate_for(algorithms[i]).unwrap();
            let read = silent.read(crt.as_bytes(), another.serialize_pem().as_bytes());
            assert_eq!(read.unwrap_err().code(), "key-mismatch");
        }
    }
}
