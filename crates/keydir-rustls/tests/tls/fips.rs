//! Whether a config keeps what a provider says of FIPS. The provider here only says so: the build that is validated takes
//! a compiler of its own.

use std::sync::Arc;

use keydir_rustls::{Identity, TrustAnchors, client_config, server_config};
use rustls::crypto::cipher::{
    AeadKey, Iv, MessageDecrypter, MessageEncrypter, Tls13AeadAlgorithm, UnsupportedOperationError,
};
use rustls::crypto::tls13::{Hkdf, HkdfExpander, OkmBlock};
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, SupportedKxGroup,
    WebPkiSupportedAlgorithms, hash, hmac,
};
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, PrivateKeyDer, SignatureVerificationAlgorithm};
use rustls::sign::SigningKey;
use rustls::version::TLS13;
use rustls::{
    CipherSuiteCommon, Connection, ConnectionTrafficSecrets, NamedGroup, SupportedCipherSuite, Tls13CipherSuite,
};

use crate::provider::provider;
use crate::support::*;

/// Does what another does, and claims to be validated.
#[derive(Debug)]
struct Claims<T: ?Sized + 'static>(&'static T);

fn claims<T: ?Sized>(other: &'static T) -> &'static Claims<T> {
    Box::leak(Box::new(Claims(other)))
}

impl hash::Hash for Claims<dyn hash::Hash> {
    fn start(&self) -> Box<dyn hash::Context> {
        self.0.start()
    }
    fn hash(&self, data: &[u8]) -> hash::Output {
        self.0.hash(data)
    }
    fn output_len(&self) -> usize {
        self.0.output_len()
    }
    fn algorithm(&self) -> hash::HashAlgorithm {
        self.0.algorithm()
    }
    fn fips(&self) -> bool {
        true
    }
}

impl Hkdf for Claims<dyn Hkdf> {
    fn extract_from_zero_ikm(&self, salt: Option<&[u8]>) -> Box<dyn HkdfExpander> {
        self.0.extract_from_zero_ikm(salt)
    }
    fn extract_from_secret(&self, salt: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        self.0.extract_from_secret(salt, secret)
    }
    fn expander_for_okm(&self, okm: &OkmBlock) -> Box<dyn HkdfExpander> {
        self.0.expander_for_okm(okm)
    }
    fn hmac_sign(&self, key: &OkmBlock, message: &[u8]) -> hmac::Tag {
        self.0.hmac_sign(key, message)
    }
    fn fips(&self) -> bool {
        true
    }
}

impl Tls13AeadAlgorithm for Claims<dyn Tls13AeadAlgorithm> {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        self.0.encrypter(key, iv)
    }
    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        self.0.decrypter(key, iv)
    }
    fn key_len(&self) -> usize {
        self.0.key_len()
    }
    fn extract_keys(&self, key: AeadKey, iv: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv)
    }
    fn fips(&self) -> bool {
        true
    }
}

impl SupportedKxGroup for Claims<dyn SupportedKxGroup> {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        self.0.start()
    }
    fn name(&self) -> NamedGroup {
        self.0.name()
    }
    fn fips(&self) -> bool {
        true
    }
}

impl SignatureVerificationAlgorithm for Claims<dyn SignatureVerificationAlgorithm> {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        self.0.verify_signature(key, message, signature)
    }
    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.0.public_key_alg_id()
    }
    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.0.signature_alg_id()
    }
    fn fips(&self) -> bool {
        true
    }
}

impl SecureRandom for Claims<dyn SecureRandom> {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        self.0.fill(bytes)
    }
    fn fips(&self) -> bool {
        true
    }
}

impl KeyProvider for Claims<dyn KeyProvider> {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        self.0.load_private_key(key)
    }
    fn fips(&self) -> bool {
        true
    }
}

fn claiming() -> CryptoProvider {
    let CryptoProvider {
        cipher_suites,
        kx_groups,
        signature_verification_algorithms: WebPkiSupportedAlgorithms { all, mapping },
        secure_random,
        key_provider,
    } = provider();
    let suite = cipher_suites.iter().find_map(SupportedCipherSuite::tls13).unwrap();
    let suite = Box::leak(Box::new(Tls13CipherSuite {
        common: CipherSuiteCommon {
            hash_provider: claims(suite.common.hash_provider),
            ..suite.common
        },
        hkdf_provider: claims(suite.hkdf_provider),
        aead_alg: claims(suite.aead_alg),
        quic: None,
    }));
    let algorithms = |algorithms: &'static [&'static dyn SignatureVerificationAlgorithm]| {
        let claiming = algorithms.iter().map(|algorithm| claims(*algorithm) as _);
        &*Vec::leak(claiming.collect::<Vec<_>>())
    };
    let mapping = mapping.iter().map(|(scheme, all)| (*scheme, algorithms(all)));
    CryptoProvider {
        cipher_suites: vec![SupportedCipherSuite::Tls13(suite)],
        kx_groups: kx_groups.iter().map(|group| claims(*group) as _).collect(),
        signature_verification_algorithms: WebPkiSupportedAlgorithms {
            all: algorithms(all),
            mapping: Vec::leak(mapping.collect()),
        },
        secure_random: claims(secure_random),
        key_provider: claims(key_provider),
    }
}

#[test]
fn a_config_says_of_fips_what_its_provider_says() {
    for (provider, expected) in [(claiming(), true), (provider(), false)] {
        let provider = Arc::new(provider);
        assert_eq!(provider.fips(), expected);
        let root = Ca::new("root");
        let own = keydir::Dir::in_memory(root.leaf(NAME).files("r1"));
        let cas = keydir::Dir::in_memory([("c1.crt", root.pem()), ("c1.crl", root.crl(1, &[]))]);
        let identity = Identity::with_provider(&own, Arc::clone(&provider)).unwrap();
        let anchors = TrustAnchors::builder(&cas).with_provider(provider).build().unwrap();
        let server = server_config(&identity).require_client(&anchors).versions(&[&TLS13]);
        let server = Arc::new(server.tickets().build().unwrap());
        let client = client_config(&anchors).identity(&identity).versions(&[&TLS13]);
        let client = Arc::new(client.build().unwrap());
        assert_eq!((server.fips(), client.fips()), (expected, expected));
        assert_eq!((server.require_ems, client.require_ems), (expected, expected));
        for end in [End::Full, End::Resumed] {
            let mut pair = pair(&client, &server);
            assert_eq!(pair.finish(), end);
            for side in [&pair.client, &pair.server] {
                let fips = match side {
                    Connection::Client(client) => client.fips(),
                    Connection::Server(server) => server.fips(),
                };
                assert_eq!(fips, expected);
            }
        }
    }
}
