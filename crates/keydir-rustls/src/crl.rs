//! One certificate revocation list (RFC 5280, section 5): read at load, and bound to the key that has signed it.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use keydir::{Fingerprint, Unusable};
use rustls::pki_types::SignatureVerificationAlgorithm;
use webpki::BorrowedCertRevocationList;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{
    DistributionPointName, GeneralName, IssuingDistributionPoint, ParsedExtension, X509Extension,
};
use x509_parser::oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use crate::certificate::{raw_of_first, step};
use crate::subject;

pub(crate) type Algorithms = &'static [&'static dyn SignatureVerificationAlgorithm];

/// A certificate revocation list (RFC 5280, section 5) of a revision of trust anchors.
pub struct Crl {
    fingerprint: Fingerprint,
    /// A name in DER.
    issuer: Box<[u8]>,
    /// The cRLNumber (section 5.2.3), without leading zeros.
    number: Option<Box<[u8]>>,
    this_update: u64,
    next_update: u64,
    /// Which of the keys of its issuer's name has signed it, as far as it says (section 5.2.1).
    key_id: Option<Box<[u8]>>,
    scope: Option<Scope>,
    /// Serial numbers, without leading zeros.
    revoked: HashSet<Box<[u8]>>,
    /// The key that verifies the signature, as soon as it is known.
    signer: OnceLock<Box<[u8]>>,
    /// What a key has to verify; nothing once the key is known from the beginning.
    signed: Option<Signed>,
}

struct Signed {
    message: Box<[u8]>,
    algorithm: Box<[u8]>,
    signature: Box<[u8]>,
}

/// Which of its issuer's certificates a list is about, if not all (section 5.2.5).
struct Scope {
    der: Box<[u8]>,
    no_leaves: bool,
    no_cas: bool,
    uris: Vec<String>,
}

impl Crl {
    /// Reads what webpki can use: version 2, direct, complete, with a next update.
    pub(crate) fn read(der: &[u8]) -> Result<Self, Unusable> {
        let parsed = BorrowedCertRevocationList::from_der(der).map_err(|error| unusable(&error))?;
        let revoked = parsed
            .into_iter()
            .map(|revoked| Ok(digits(revoked?.serial_number).into()))
            .collect::<Result<_, webpki::Error>>()
            .map_err(|error| unusable(&error))?;
        // webpki keeps the rest to itself, but has found it in its place.
        Self::walk(der, revoked).ok_or_else(|| unusable(&"an extension or a date of it cannot be read"))
    }

    fn walk(der: &[u8], revoked: HashSet<Box<[u8]>>) -> Option<Self> {
        let (list, _) = step(der)?;
        let (message, rest) = raw_of_first(list)?;
        let (algorithm, rest) = step(rest)?;
        let (signature, _) = step(rest)?;
        let (message_content, _) = step(message)?;
        let (_version, rest) = step(message_content)?;
        let (_algorithm, rest) = step(rest)?;
        let (issuer, rest) = raw_of_first(rest)?;
        let (rest, this_update) = ASN1Time::from_der(rest).ok()?;
        let (mut rest, next_update) = ASN1Time::from_der(rest).ok()?;
        if rest.first() == Some(&0x30) {
            (_, rest) = step(rest)?;
        }
        let (tagged, _) = step(rest)?;
        let (mut extensions, _) = step(tagged)?;

        let mut crl = Self {
            fingerprint: Fingerprint::of(der),
            issuer: issuer.into(),
            number: None,
            this_update: seconds(&this_update),
            next_update: seconds(&next_update),
            key_id: None,
            scope: None,
            revoked,
            signer: OnceLock::new(),
            signed: Some(Signed {
                message: message.into(),
                algorithm: algorithm.into(),
                signature: bits(signature)?.into(),
            }),
        };
        while !extensions.is_empty() {
            let (rest, extension) = X509Extension::from_der(extensions).ok()?;
            extensions = rest;
            match extension.parsed_extension() {
                ParsedExtension::CRLNumber(_) => {
                    let (number, _) = step(extension.value)?;
                    crl.number = Some(digits(number).into());
                }
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    crl.key_id = id.key_identifier.as_ref().map(|id| id.0.into());
                }
                ParsedExtension::IssuingDistributionPoint(point) => {
                    crl.scope = Some(Scope::of(extension.value, point));
                }
                _ if extension.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT => return None,
                _ => {}
            }
        }
        Some(crl)
    }

    /// The CA that has issued it, in the style of RFC 4514.
    pub fn issuer(&self) -> String {
        subject::of_name(&self.issuer).unwrap_or_default()
    }

    /// When it was issued.
    pub fn this_update(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.this_update)
    }

    /// When the next one was to be issued: from this moment on it counts as expired.
    pub fn next_update(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.next_update)
    }

    pub(crate) fn has_expired_by(&self, now: SystemTime) -> bool {
        self.next_update() <= now
    }

    /// How many certificates it revokes.
    pub fn revoked(&self) -> usize {
        self.revoked.len()
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The issuer's name as webpki tells names: without its header.
    pub(crate) fn issuer_name(&self) -> &[u8] {
        step(&self.issuer).map_or(&[], |(name, _)| name)
    }

    pub(crate) fn next_update_seconds(&self) -> u64 {
        self.next_update
    }

    /// Whether the certificate with this serial number stands in it. A CA may write a number in a certificate and in a
    /// list in two ways, though DER has one: leading zeros make no difference.
    pub(crate) fn revokes(&self, serial: &[u8]) -> bool {
        self.revoked.contains(digits(serial))
    }

    /// Whether it revokes nothing that these do not revoke.
    pub(crate) fn adds_nothing_to<'a>(&self, others: impl Iterator<Item = &'a Self> + Clone) -> bool {
        let mut revoked = self.revoked.iter();
        revoked.all(|serial| others.clone().any(|other| other.revokes(serial)))
    }

    /// Binds it to this key for good, if the key verifies it.
    pub(crate) fn bind(&mut self, key: &[u8], algorithms: Algorithms) -> bool {
        let is_its = self.is_signed_by(key, algorithms);
        if is_its {
            self.signed = None;
        }
        is_its
    }

    /// Whether this key (a SubjectPublicKeyInfo without its header) has signed it. What was found once is remembered: a
    /// signature is that of one key.
    pub(crate) fn is_signed_by(&self, key: &[u8], algorithms: Algorithms) -> bool {
        if let Some(signer) = self.signer.get() {
            return **signer == *key;
        }
        let signed = self.signed.as_ref();
        let is_its = signed.is_some_and(|signed| signed.verifies(key, algorithms).unwrap_or(false));
        is_its && **self.signer.get_or_init(|| key.into()) == *key
    }

    /// Whether it says so itself that this key has signed it.
    pub(crate) fn points_to(&self, key_id: &[u8]) -> bool {
        self.key_id.as_deref() == Some(key_id)
    }

    /// The key that is known to have signed it (a SubjectPublicKeyInfo without its header).
    pub(crate) fn signer(&self) -> Option<&[u8]> {
        self.signer.get().map(AsRef::as_ref)
    }

    /// Whether both are of the same key; `None` if nobody can tell.
    pub(crate) fn has_the_key_of(&self, other: &Self) -> Option<bool> {
        if self.fingerprint == other.fingerprint {
            return Some(true);
        }
        let by_key = self.signer().zip(other.signer()).map(|(one, other)| one == other);
        by_key.or_else(|| Some(self.key_id.as_ref()? == other.key_id.as_ref()?))
    }

    pub(crate) fn has_the_scope_of(&self, other: &Self) -> bool {
        match (&self.scope, &other.scope) {
            (Some(one), Some(other)) => one.der == other.der,
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    /// Whether a certificate of its issuer's key would stand in it if it were revoked, by the same rule as webpki's.
    pub(crate) fn covers(&self, certificate: &[u8], is_leaf: bool) -> bool {
        let Some(scope) = &self.scope else { return true };
        if (is_leaf && scope.no_leaves) || (!is_leaf && scope.no_cas) {
            return false;
        }
        match distribution_points(certificate) {
            Some(None) => true,
            Some(Some(points)) => points.iter().any(|uri| scope.uris.contains(uri)),
            None => false,
        }
    }

    /// Whether it is newer than another list of its key and about the same certificates. Of two of the same number and
    /// date, which no CA should make, none is.
    pub(crate) fn supersedes(&self, other: &Self) -> bool {
        self.newest_first(other) == Ordering::Less && self.has_the_scope_of(other)
    }

    /// The newest first, by number, then by date.
    pub(crate) fn newest_first(&self, other: &Self) -> Ordering {
        let by_number = match (&self.number, &other.number) {
            (Some(one), Some(other)) => other.len().cmp(&one.len()).then_with(|| other.cmp(one)),
            (one, other) => other.is_some().cmp(&one.is_some()),
        };
        by_number.then(other.this_update.cmp(&self.this_update))
    }
}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crl")
            .field("issuer", &self.issuer())
            .field("next_update", &self.next_update)
            .field("revoked", &self.revoked.len())
            .finish_non_exhaustive()
    }
}

impl Scope {
    fn of(der: &[u8], point: &IssuingDistributionPoint<'_>) -> Self {
        Self {
            der: der.into(),
            no_leaves: point.only_contains_ca_certs,
            no_cas: point.only_contains_user_certs,
            uris: uris(point.distribution_point.as_ref()),
        }
    }
}

impl Signed {
    fn verifies(&self, key: &[u8], algorithms: Algorithms) -> Option<bool> {
        let (kind, rest) = step(key)?;
        let (key, _) = step(rest)?;
        let key = bits(key)?;
        let mut fitting = algorithms.iter().filter(|algorithm| {
            algorithm.public_key_alg_id().as_ref() == kind && *algorithm.signature_alg_id() == *self.algorithm
        });
        Some(fitting.any(|algorithm| algorithm.verify_signature(key, &self.message, &self.signature).is_ok()))
    }
}

/// A number that is not negative, without leading zeros.
fn digits(integer: &[u8]) -> &[u8] {
    let zeros = integer.iter().take_while(|byte| **byte == 0).count();
    integer.get(zeros..).unwrap_or_default()
}

/// The bytes of a bit string of whole bytes.
fn bits(content: &[u8]) -> Option<&[u8]> {
    content.strip_prefix(&[0])
}

fn uris(name: Option<&DistributionPointName<'_>>) -> Vec<String> {
    let Some(DistributionPointName::FullName(names)) = name else {
        return Vec::new();
    };
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    names.iter().filter_map(uri).collect()
}

/// Where a certificate says that its revocation would be told (section 4.2.1.13), as far as webpki follows it; `None` in
/// the middle if it does not say. `None` if the certificate cannot be read.
fn distribution_points(certificate: &[u8]) -> Option<Option<Vec<String>>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let points = certificate
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::CRLDistributionPoints(points) => Some(points),
            _ => None,
        });
    let direct = |points: &[x509_parser::extensions::CRLDistributionPoint<'_>]| {
        let points = points
            .iter()
            .filter(|point| point.crl_issuer.is_none() && point.reasons.is_none());
        points
            .flat_map(|point| uris(point.distribution_point.as_ref()))
            .collect()
    };
    Some(points.map(|points| direct(points)))
}

/// Since 1970, as rustls counts.
fn seconds(time: &ASN1Time) -> u64 {
    time.timestamp().try_into().unwrap_or(0)
}

fn unusable(why: &dyn fmt::Display) -> Unusable {
    Unusable::new("bad-crl", format!("it holds a CRL that cannot be used: {why}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
        KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
    };

    use super::*;
    use crate::anchor::Anchor;
    use crate::provider::provider;

    fn ca(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn crl(ca: &CertifiedIssuer<'_, KeyPair>, number: &[u8], year: i32) -> Vec<u8> {
        let revoked = [&[5][..], &[0x80, 1]].map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(year, 1, 1),
            next_update: date_time_ymd(year + 1, 1, 1),
            crl_number: SerialNumber::from_slice(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.into(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(ca).unwrap().der().to_vec()
    }

    fn key(ca: &CertifiedIssuer<'_, KeyPair>) -> Vec<u8> {
        let anchor = Anchor::read(ca.der().clone()).unwrap();
        anchor.bare.subject_public_key_info.to_vec()
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let (ours, other) = (ca("mesh"), ca("mesh"));
        for year in [1999, 2049, 2050, 9000] {
            let mut crl = Crl::read(&crl(&ours, &[1, 0], year)).unwrap();
            let written = |year| {
                let seconds = date_time_ymd(year, 1, 1).unix_timestamp().try_into().unwrap();
                SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
            };
            assert_eq!(
                (crl.this_update(), crl.next_update()),
                (written(year), written(year + 1))
            );
            assert!(crl.has_expired_by(written(year + 1)) && !crl.has_expired_by(written(year)));
            assert!(crl.issuer().contains("CN=mesh"), "{}", crl.issuer());
            assert_eq!(crl.revoked(), 2);
            assert!(crl.revokes(&[5]) && crl.revokes(&[0, 0x80, 1]) && !crl.revokes(&[6]));
            // As no CA should write them.
            assert!(crl.revokes(&[0, 5]) && crl.revokes(&[0x80, 1]) && !crl.revokes(&[5, 0]));

            let algorithms = provider().unwrap().signature_verification_algorithms.all;
            assert!(!crl.is_signed_by(&key(&other), algorithms) && !crl.is_signed_by(&[], algorithms));
            assert!(!crl.bind(&key(&other), algorithms));
            assert!(crl.bind(&key(&ours), algorithms));
            // It is known from now on.
            assert!(crl.is_signed_by(&key(&ours), &[]) && !crl.is_signed_by(&key(&other), algorithms));
        }
    }

    #[test]
    fn numbers_are_numbers() {
        let ca = ca("mesh");
        let [two, long, longer, same] = [(&[2][..], 2030), (&[1, 0], 2020), (&[1, 0, 0], 2020), (&[0, 2], 2020)]
            .map(|(number, year)| Crl::read(&crl(&ca, number, year)).unwrap());
        let mut all = [&same, &long, &two, &longer];
        all.sort_by(|one, other| one.newest_first(other));
        assert!(std::ptr::eq(all[0], &longer) && std::ptr::eq(all[1], &long));
        assert!(
            std::ptr::eq(all[2], &two) && std::ptr::eq(all[3], &same),
            "the same number, an earlier date"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(at in any::<prop::sample::Index>(), bits in any::<u8>()) {
            thread_local!(static DER: Vec<u8> = crl(&ca("mesh"), &[7], 2030));
            let mut der = DER.with(Clone::clone);
            let at = at.index(der.len());
            prop_assert!(Crl::read(&der[..at]).is_err());
            der[at] ^= bits;
            let algorithms = provider().unwrap().signature_verification_algorithms.all;
            if let Ok(crl) = Crl::read(&der) {
                let _ = (crl.issuer(), crl.is_signed_by(&der, algorithms), crl.covers(&der, true));
                let _ = (crl.newest_first(&crl), crl.points_to(&der), format!("{crl:?}"));
            }
        }
    }
}
