//! The CRLs in force, and what they say of a verified path.
//!
//! webpki, given several CRLs, takes the first of the issuer's name and refuses if another key has signed that one. So
//! a CA with a new key under its old name would refuse every leaf of one of the two, and of two lists of a CA the older
//! might decide. Here a list counts for the key that verifies it, and of several the newest.

mod changes;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use webpki::{Cert, Error, VerifiedPath};

use crate::anchor::next_number;
use crate::certificate::{may_sign_crls, step, subject_key_id};
use crate::crl::{Algorithms, Crl};

/// What the CRLs of a directory decide, where they say nothing or are old. Without CRLs nothing is checked, unless
/// [`deny_unknown`](Self::deny_unknown) is said.
///
/// ```
/// use keydir_rustls::RevocationPolicy;
///
/// // Every certificate on the way to the CA must be found in a CRL's scope, and the CRL must not be outdated.
/// let strict = RevocationPolicy::new().deny_unknown().enforce_expiry();
/// assert_ne!(strict, RevocationPolicy::default());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "give it to `AnchorsBuilder::revocation`"]
pub struct RevocationPolicy {
    only_end_entity: bool,
    deny_unknown: bool,
    enforce_expiry: bool,
}

impl RevocationPolicy {
    /// The default: every certificate on the way is looked up (RFC 5280, section 6.3), one whose issuer has no CRL is
    /// let in, and a CRL counts also after its next update was due, which an event tells.
    pub const fn new() -> Self {
        Self {
            only_end_entity: false,
            deny_unknown: false,
            enforce_expiry: false,
        }
    }

    /// Looks up the peer's own certificate alone, not those of the intermediate CAs.
    ///
    /// ```
    /// # use keydir_rustls::RevocationPolicy;
    /// let policy = RevocationPolicy::new().only_end_entity();
    /// # let _ = policy;
    /// ```
    pub const fn only_end_entity(mut self) -> Self {
        self.only_end_entity = true;
        self
    }

    /// Refuses a certificate of which no CRL tells whether it is revoked. Every CA in the directory needs a CRL then,
    /// and every intermediate CA, unless only the peer's own certificate is looked up.
    ///
    /// ```
    /// # use keydir_rustls::RevocationPolicy;
    /// let policy = RevocationPolicy::new().deny_unknown();
    /// # let _ = policy;
    /// ```
    pub const fn deny_unknown(mut self) -> Self {
        self.deny_unknown = true;
        self
    }

    /// Refuses a certificate whose CRL is past its next update (RFC 5280, section 5.1.2.5). Who can keep new CRLs from
    /// being published can lock everybody out then.
    ///
    /// ```
    /// # use keydir_rustls::RevocationPolicy;
    /// let policy = RevocationPolicy::new().enforce_expiry();
    /// # let _ = policy;
    /// ```
    pub const fn enforce_expiry(mut self) -> Self {
        self.enforce_expiry = true;
        self
    }
}

/// The CRLs of all revisions in force.
#[derive(Debug, Default)]
pub(crate) struct Revocations {
    policy: RevocationPolicy,
    algorithms: Algorithms,
    /// By the name of the issuer, the newest first.
    by_issuer: HashMap<Box<[u8]>, Vec<Arc<Crl>>>,
    /// Of these lists.
    number: u64,
}

impl Revocations {
    pub(crate) fn new(policy: RevocationPolicy, algorithms: Algorithms, crls: impl Iterator<Item = Arc<Crl>>) -> Self {
        let mut by_issuer: HashMap<Box<[u8]>, Vec<Arc<Crl>>> = HashMap::new();
        let mut seen = HashSet::new();
        for crl in crls.filter(|crl| seen.insert(crl.fingerprint())) {
            by_issuer.entry(crl.issuer_name().into()).or_default().push(crl);
        }
        for crls in by_issuer.values_mut() {
            crls.sort_by(|one, other| one.newest_first(other));
        }
        Self {
            policy,
            algorithms,
            by_issuer,
            number: next_number(),
        }
    }

    /// Another one for other lists.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether both are the same lists, so that they say the same of each path.
    pub(crate) fn are(&self, others: &Self) -> bool {
        let one_by_one = |one: &[Arc<Crl>], other: &[Arc<Crl>]| {
            let fingerprints = |crls: &[Arc<Crl>]| crls.iter().map(|crl| crl.fingerprint()).collect::<Vec<_>>();
            fingerprints(one) == fingerprints(other)
        };
        self.policy == others.policy
            && self.by_issuer.len() == others.by_issuer.len()
            && self.by_issuer.iter().all(|(issuer, crls)| {
                let other = others.by_issuer.get(issuer);
                other.is_some_and(|other| one_by_one(crls, other))
            })
    }

    /// Looks up the certificates of a path to an anchor, of which the subjectKeyIdentifier is given; the answer holds
    /// until the second that is returned.
    pub(crate) fn check(
        &self,
        path: &VerifiedPath<'_>,
        anchor_key_id: Option<&[u8]>,
        now: UnixTime,
    ) -> Result<u64, Error> {
        let mut until = u64::MAX;
        if self.by_issuer.is_empty() && !self.policy.deny_unknown {
            return Ok(until);
        }
        let mut issuer = Issuer::Anchor {
            key: path.anchor().subject_public_key_info.as_ref(),
            key_id: anchor_key_id,
        };
        if !self.policy.only_end_entity {
            for certificate in path.intermediate_certificates().rev() {
                until = until.min(self.look_up(certificate, false, &issuer, now)?);
                issuer = Issuer::Intermediate(certificate);
            }
        } else if let Some(certificate) = path.intermediate_certificates().next() {
            issuer = Issuer::Intermediate(certificate);
        }
        Ok(until.min(self.look_up(path.end_entity(), true, &issuer, now)?))
    }

    fn look_up(&self, certificate: &Cert<'_>, is_leaf: bool, issuer: &Issuer<'_>, now: UnixTime) -> Result<u64, Error> {
        let mut until = u64::MAX;
        let mut known = false;
        let of_name = self.by_issuer.get(certificate.issuer());
        for crl in of_name
            .map(|of_name| self.of_key(of_name, issuer))
            .transpose()?
            .into_iter()
            .flatten()
        {
            if crl.revokes(certificate.serial()) {
                return Err(Error::CertRevoked);
            }
            if !crl.covers(&certificate.der(), is_leaf) {
                continue;
            }
            if !issuer.may_sign_crls() {
                return Err(Error::IssuerNotCrlSigner);
            }
            known = true;
            if self.policy.enforce_expiry {
                let next_update = crl.next_update_seconds();
                if now.as_secs() >= next_update {
                    let next_update = UnixTime::since_unix_epoch(Duration::from_secs(next_update));
                    return Err(Error::CrlExpired { time: now, next_update });
                }
                until = until.min(next_update.saturating_sub(1));
            }
        }
        match known || !self.policy.deny_unknown {
            true => Ok(until),
            false => Err(Error::UnknownRevocationStatus),
        }
    }

    /// Of the lists of a name those of this key that are not superseded.
    fn of_key<'a>(&self, of_name: &'a [Arc<Crl>], issuer: &Issuer<'_>) -> Result<Vec<&'a Crl>, Error> {
        let key = issuer.key();
        let mut of_key: Vec<&Crl> = Vec::new();
        for crl in of_name {
            if of_key.iter().any(|newer| newer.supersedes(crl)) {
                continue;
            }
            if crl.is_signed_by(&key, self.algorithms) {
                of_key.push(crl);
            } else if crl.signer().is_none() && issuer.key_id().is_some_and(|id| crl.points_to(&id)) {
                // Not of another key of that name, by its own word, but broken.
                return Err(Error::InvalidCrlSignatureForPublicKey);
            }
        }
        Ok(of_key)
    }
}

/// Whoever has signed a certificate on the path, and should have signed the CRLs about it.
enum Issuer<'a> {
    Anchor { key: &'a [u8], key_id: Option<&'a [u8]> },
    Intermediate(&'a Cert<'a>),
}

impl Issuer<'_> {
    /// The SubjectPublicKeyInfo without its header.
    fn key(&self) -> Vec<u8> {
        match self {
            Self::Anchor { key, .. } => key.to_vec(),
            Self::Intermediate(certificate) => {
                let key = certificate.subject_public_key_info();
                step(&key).map(|(key, _)| key.to_vec()).unwrap_or_default()
            }
        }
    }

    fn key_id(&self) -> Option<Vec<u8>> {
        match self {
            Self::Anchor { key_id, .. } => key_id.map(<[u8]>::to_vec),
            Self::Intermediate(certificate) => subject_key_id(&certificate.der()),
        }
    }

    /// As webpki does, this asks intermediates only: to it an anchor is a name and a key.
    fn may_sign_crls(&self) -> bool {
        match self {
            Self::Anchor { .. } => true,
            Self::Intermediate(certificate) => may_sign_crls(&certificate.der()),
        }
    }
}
