//! The key inside a PKCS#8 wrapping of an elliptic-curve key.
//!
//! rustls tries any PKCS#8 key as an RSA key first, and aws-lc checks the whole key before it sees that it is none. The
//! key inside can only be one of a curve, and is loaded in half the time.

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};

use crate::certificate::step;

/// PKCS#8 of version 1 (RFC 5208, 5) up to the key, for the curves of TLS: `INTEGER 0`, then the AlgorithmIdentifier of
/// id-ecPublicKey with the named curve (RFC 5480, 2.1.1).
const BEFORE: [&[u8]; 3] = [
    // secp256r1
    b"\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07",
    // secp384r1
    b"\x02\x01\x00\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22",
    // secp521r1
    b"\x02\x01\x00\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x23",
];

/// The SEC1 key (RFC 5915), if there is exactly that inside and nothing else.
pub(crate) fn inside(pkcs8: &PrivatePkcs8KeyDer<'_>) -> Option<PrivateKeyDer<'static>> {
    const SEQUENCE: u8 = 0x30;
    const OCTET_STRING: u8 = 0x04;
    let der = pkcs8.secret_pkcs8_der();
    let (info, []) = step(der).filter(|_| der.first() == Some(&SEQUENCE))? else {
        return None;
    };
    let key = BEFORE.iter().find_map(|before| info.strip_prefix(*before))?;
    let (sec1, []) = step(key).filter(|_| key.first() == Some(&OCTET_STRING))? else {
        return None;
    };
    Some(PrivateSec1KeyDer::from(sec1.to_vec()).into())
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519};

    use super::*;
    use crate::provider::provider;

    fn pkcs8(algorithm: &'static rcgen::SignatureAlgorithm) -> PrivatePkcs8KeyDer<'static> {
        KeyPair::generate_for(algorithm).unwrap().serialize_der().into()
    }

    #[test]
    fn what_is_inside_is_the_same_key() {
        let load = |key| provider().unwrap().key_provider.load_private_key(key);
        for algorithm in [
            &PKCS_ECDSA_P256_SHA256,
            &PKCS_ECDSA_P384_SHA384,
            &PKCS_ECDSA_P521_SHA512,
        ] {
            let key = pkcs8(algorithm);
            let inside = load(inside(&key).unwrap());
            let Ok(outside) = load(key.into()) else {
                assert_eq!(algorithm, &PKCS_ECDSA_P521_SHA512, "ring does not know this curve");
                assert!(inside.is_err());
                continue;
            };
            assert_eq!(inside.unwrap().public_key(), outside.public_key());
            assert!(outside.public_key().is_some());
        }
        assert!(inside(&pkcs8(&PKCS_ED25519)).is_none());
    }

    #[test]
    fn every_byte_before_it_counts_and_none_comes_after() {
        let key = pkcs8(&PKCS_ECDSA_P256_SHA256);
        let der = key.secret_pkcs8_der();
        let read = |der: &[u8]| inside(&der.to_vec().into());
        assert!(read(der).is_some());
        for at in 0..der.len() {
            assert!(read(&der[..at]).is_none());
        }
        for at in 0..29 {
            let mut other = der.to_vec();
            other[at] ^= 1;
            assert!(read(&other).is_none(), "{at}");
        }
        let mut longer = der.to_vec();
        longer.push(0);
        assert!(read(&longer).is_none());
    }
}
