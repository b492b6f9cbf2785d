//! The key inside a PKCS#8 wrapping of an elliptic-curve key.
//!
//! rustls tries any PKCS#8 key as an RSA key first, and aws-lc checks the whole key before it sees that it is none. The
//! key inside can only be one of a curve, and is loaded in half the time.

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};

/// All of the encoding of a key but its numbers.
///
/// Only this is taken, to the byte, because aws-lc is less strict with SEC1: it takes what follows the key, and another
/// curve's key. The lengths of both numbers, with the public one given, leave no doubt of the curve.
struct Form {
    /// PKCS#8 of version 1 (RFC 5208, 5), id-ecPublicKey with a named curve (RFC 5480, 2.1.1).
    pkcs8: &'static [u8],
    /// ECPrivateKey (RFC 5915, 3) without parameters, as RFC 5915 wants it in PKCS#8: up to the private number,
    sec1: &'static [u8],
    /// which has so many bytes,
    bytes: usize,
    /// and between it and the public one, an uncompressed point of twice as many bytes.
    public: &'static [u8],
}

/// The curves of TLS.
const FORMS: [Form; 3] = [
    // secp256r1
    Form {
        pkcs8: b"\x30\x81\x87\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x04\x6d",
        sec1: b"\x30\x6b\x02\x01\x01\x04\x20",
        bytes: 32,
        public: b"\xa1\x44\x03\x42\x00\x04",
    },
    // secp384r1
    Form {
        pkcs8: b"\x30\x81\xb6\x02\x01\x00\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x04\x81\x9e",
        sec1: b"\x30\x81\x9b\x02\x01\x01\x04\x30",
        bytes: 48,
        public: b"\xa1\x64\x03\x62\x00\x04",
    },
    // secp521r1
    Form {
        pkcs8: b"\x30\x81\xee\x02\x01\x00\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x23\x04\x81\xd6",
        sec1: b"\x30\x81\xd3\x02\x01\x01\x04\x42",
        bytes: 66,
        public: b"\xa1\x81\x89\x03\x81\x86\x00\x04",
    },
];

impl Form {
    fn inside<'a>(&self, pkcs8: &'a [u8]) -> Option<&'a [u8]> {
        let sec1 = pkcs8.strip_prefix(self.pkcs8)?;
        let (_, rest) = sec1.strip_prefix(self.sec1)?.split_at_checked(self.bytes)?;
        let point = rest.strip_prefix(self.public)?;
        (point.len() == 2 * self.bytes).then_some(sec1)
    }
}

/// The SEC1 key, if there is exactly that inside and nothing else.
pub(crate) fn inside(pkcs8: &PrivatePkcs8KeyDer<'_>) -> Option<PrivateKeyDer<'static>> {
    let sec1 = FORMS.iter().find_map(|form| form.inside(pkcs8.secret_pkcs8_der()))?;
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
    fn every_byte_but_those_of_the_numbers_counts_and_none_comes_after() {
        let key = pkcs8(&PKCS_ECDSA_P256_SHA256);
        let der = key.secret_pkcs8_der();
        let read = |der: &[u8]| inside(&der.to_vec().into());
        assert!(read(der).is_some());
        for at in 0..der.len() {
            assert!(read(&der[..at]).is_none());
        }
        for at in (0..36).chain(68..74) {
            let mut other = der.to_vec();
            other[at] ^= 1;
            assert!(read(&other).is_none(), "{at}");
        }
        let mut longer = der.to_vec();
        longer.push(0);
        assert!(read(&longer).is_none());
    }

    /// What a provider would not load as PKCS#8 is not loaded as SEC1.
    #[test]
    fn what_contradicts_itself_is_left_to_the_provider() {
        let element = |tag: u8, content: &[u8]| {
            let length = u8::try_from(content.len()).unwrap();
            let header = if length < 0x80 {
                vec![tag, length]
            } else {
                vec![tag, 0x81, length]
            };
            [&header, content].concat()
        };
        let sec1 = |der: &PrivatePkcs8KeyDer<'_>| match inside(der) {
            Some(PrivateKeyDer::Sec1(key)) => key.secret_sec1_der().to_vec(),
            other => panic!("{other:?}"),
        };
        let (p256, p384) = (pkcs8(&PKCS_ECDSA_P256_SHA256), pkcs8(&PKCS_ECDSA_P384_SHA384));
        let algorithm = &p256.secret_pkcs8_der()[3..27];
        let scalar_only = [&[2, 1, 1][..], &element(4, &[0xff; 32])].concat();
        for (what, key) in [
            ("a key, and more", [&sec1(&p256)[..], b"more"].concat()),
            ("PKCS#8 in PKCS#8", p256.secret_pkcs8_der().to_vec()),
            ("the key of another curve", sec1(&p384)),
            ("a number of another curve", element(0x30, &scalar_only)),
        ] {
            let whole = element(0x30, &[algorithm, &element(4, &key)].concat());
            let whole = PrivatePkcs8KeyDer::from(whole);
            assert!(inside(&whole).is_none(), "{what}");
            let loaded = provider().unwrap().key_provider.load_private_key(whole.into());
            assert!(loaded.is_err(), "{what}");
        }
    }
}
