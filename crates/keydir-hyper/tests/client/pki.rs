//! CAs, leaves and the directories that hold them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use keydir::{Clock, Dir};
use keydir_rustls::rustls::pki_types::CertificateDer;
use keydir_rustls::rustls::pki_types::pem::PemObject;
use keydir_rustls::{Identity, TrustAnchors};
use rcgen::{
    CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, KeyIdMethod, RevokedCertParams,
    SanType, SerialNumber, date_time_ymd,
};

pub(crate) use crate::ca::{Ca, Leaf};

impl Ca {
    /// A leaf whose common name is the revision that it is for.
    pub(crate) fn leaf(&self, revision: &str) -> Leaf {
        self.leaf_with(revision, |_| {})
    }

    /// That is good until so many hours after [`Hand::start`].
    pub(crate) fn leaf_until(&self, revision: &str, hours: u64) -> Leaf {
        self.leaf_with(revision, |params| {
            params.not_after = date_time_ymd(START, 1, 1) + Duration::from_secs(hours * 3600);
        })
    }

    pub(crate) fn leaf_with(&self, revision: &str, adjust: impl FnOnce(&mut CertificateParams)) -> Leaf {
        self.issue(revision, |params| {
            params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
            adjust(params);
        })
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()
    }

    /// Revokes one serial number.
    pub(crate) fn crl(&self, serial: u64) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2090, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    pub(crate) fn anchors(&self) -> (Dir, TrustAnchors) {
        let dir = Dir::in_memory(cas(&[("c1", self)]));
        let anchors = TrustAnchors::in_dir(&dir).unwrap();
        (dir, anchors)
    }
}

pub(crate) fn cas(cas: &[(&str, &Ca)]) -> Vec<(String, String)> {
    cas.iter()
        .map(|(id, ca)| (format!("{id}.crt"), ca.pem.clone()))
        .collect()
}

/// The files of identities, the primary first.
pub(crate) fn files(primary: (&str, &Leaf), others: &[(&str, &Leaf)]) -> Vec<(String, String)> {
    let mut files = vec![(format!("{}.crt.primary", primary.0), primary.1.crt.clone())];
    files.extend(others.iter().map(|(id, leaf)| (format!("{id}.crt"), leaf.crt.clone())));
    let keys = others.iter().chain([&primary]);
    files.extend(keys.map(|(id, leaf)| (format!("{id}.key"), leaf.key.clone())));
    files
}

pub(crate) fn identity(revision: &str, leaf: &Leaf) -> (Dir, Identity) {
    let dir = Dir::in_memory(files((revision, leaf), &[]));
    let identity = Identity::in_dir(&dir).unwrap();
    (dir, identity)
}

/// How often a revision is in use.
pub(crate) fn uses(dir: &Dir, revision: &str) -> usize {
    dir.report().sets.iter().map(|set| set.uses(revision)).sum()
}

const START: i32 = 2030;

/// A clock that stands where it is put.
#[derive(Clone)]
pub(crate) struct Hand(Arc<AtomicU64>);

impl Hand {
    pub(crate) fn start() -> Self {
        let hand = Self(Arc::default());
        hand.set(0);
        hand
    }

    /// To so many hours after the start.
    pub(crate) fn set(&self, hours: u64) {
        let start: u64 = date_time_ymd(START, 1, 1).unix_timestamp().try_into().unwrap();
        self.0.store(start + hours * 3600, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}
