//! The cryptography of this run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};
use rustls::server::ProducesTickets;

#[cfg(feature = "aws-lc-rs")]
pub(crate) use rustls::crypto::aws_lc_rs::default_provider as provider;
#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
pub(crate) use rustls::crypto::ring::default_provider as provider;

pub(crate) fn new_ticketer() -> Arc<dyn ProducesTickets> {
    #[cfg(feature = "aws-lc-rs")]
    return rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    return rustls::crypto::ring::Ticketer::new().unwrap();
}

/// An algorithm that counts how often it is used, and how often it is looked at whether it fits.
#[derive(Debug)]
struct Counting(
    &'static dyn SignatureVerificationAlgorithm,
    &'static AtomicUsize,
    &'static AtomicUsize,
);

impl SignatureVerificationAlgorithm for Counting {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.verify_signature(key, message, signature)
    }
    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.2.fetch_add(1, Ordering::SeqCst);
        self.0.public_key_alg_id()
    }
    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.0.signature_alg_id()
    }
}

/// A provider that counts the signatures which it verifies.
pub(crate) fn counting(checks: &'static AtomicUsize) -> CryptoProvider {
    counting_looks(checks, Box::leak(Box::default()))
}

/// Likewise, and how often it looks for an algorithm.
pub(crate) fn counting_looks(checks: &'static AtomicUsize, looks: &'static AtomicUsize) -> CryptoProvider {
    let mut provider = provider();
    let algorithms = &mut provider.signature_verification_algorithms;
    let counting = algorithms.all.iter().map(|algorithm| {
        let counting: &'static Counting = Box::leak(Box::new(Counting(*algorithm, checks, looks)));
        counting as &dyn SignatureVerificationAlgorithm
    });
    algorithms.all = Box::leak(counting.collect());
    provider
}
