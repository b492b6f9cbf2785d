//! The parsers of what others wrote, for the fuzz targets of the repository; part of no build but theirs.

use crate::crl::Crl;
use crate::pem::{certificates, private_key};
use crate::session::Peer;

/// Certificates and keys are never empty, and a file that can be read in one way cannot be read in the other.
pub fn pem(pem: &[u8]) {
    let certificates = certificates(pem);
    if let Ok(certificates) = &certificates {
        assert!(!certificates.is_empty() && certificates.iter().all(|der| !der.is_empty()));
    }
    if let Ok(key) = private_key(pem) {
        assert!(!key.secret_der().is_empty() && certificates.is_err());
    }
}

/// A CRL is read or refused, and what is read can be told of.
pub fn crl(der: &[u8]) {
    if let Ok(crl) = Crl::read(der) {
        let _ = (crl.issuer(), crl.this_update(), crl.next_update(), crl.revoked());
        assert!(!crl.is_signed_by(der, &[]));
        assert!(crl.covers(der, true) || crl.newest_first(&crl).is_eq());
    }
}

/// A chain has certificates, and a session that lacks its last byte is none.
pub fn session(session: &[u8]) {
    let Some(peer) = Peer::of(session) else { return };
    if let Peer::Chain(mut chain) = peer {
        assert!(chain.clone().count() > 0 && chain.all(|der| !der.is_empty()));
    }
    let shorter = session.split_last().map(|(_, shorter)| shorter);
    assert_eq!(shorter.and_then(Peer::of), None);
}
