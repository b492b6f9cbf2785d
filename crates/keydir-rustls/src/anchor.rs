//! One CA certificate as an anchor: what it vouches for, beyond what webpki asks of one.

use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use keydir::{Fingerprint, Piece, RevisionId, Unusable};
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath, anchor_from_trusted_cert};

use crate::certificate::{Authority, Certificate, validity};

/// Which side of the handshake the peer is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Client,
    Server,
}

/// A greater number each time, never 0, so that what rests on something can be bound to it.
pub(crate) fn next_number() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// A CA certificate that peers may chain to.
#[derive(Debug)]
pub(crate) struct Anchor {
    /// Of this reading of it: as long as the number is there, nothing about the anchor has changed.
    number: u64,
    pub(crate) der: CertificateDer<'static>,
    pub(crate) piece: Piece,
    pub(crate) authority: Authority,
    pub(crate) bare: TrustAnchor<'static>,
}

/// Who vouches for a chain, and from when to when, in seconds since 1970.
#[derive(Clone, Debug)]
pub(crate) struct Vouched {
    /// `None` for a root of the platform.
    pub(crate) revision: Option<RevisionId>,
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
    pub(crate) basis: Basis,
}

/// What a verdict rests on, beside the chain, by numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Basis {
    /// The anchor; 0 for a pin.
    pub(crate) anchor: u64,
    /// The CRLs.
    pub(crate) revocations: u64,
    /// The removed CAs, if the path leads through others than the anchor.
    pub(crate) removed: Option<u64>,
}

impl Vouched {
    pub(crate) fn holds_at(&self, now: UnixTime) -> bool {
        (self.not_before..=self.not_after).contains(&now.as_secs())
    }

    #[cfg(test)]
    pub(crate) fn for_tests(revision: &str) -> Self {
        Self {
            revision: Some(revision.parse().unwrap()),
            not_before: 0,
            not_after: u64::MAX,
            basis: Basis::default(),
        }
    }

    fn within(&mut self, (not_before, not_after): (u64, u64)) {
        self.not_before = self.not_before.max(not_before);
        self.not_after = self.not_after.min(not_after);
    }
}

impl Anchor {
    /// Whoever holds the key of a certificate among the anchors can mint names, so it must be a CA's.
    pub(crate) fn read(der: CertificateDer<'static>) -> Result<Self, Unusable> {
        let certificate = Certificate::read(&der)?;
        let authority = certificate.authority().map_err(|reason| {
            Unusable::new(
                "not-a-ca",
                format!("it holds a certificate that is not a CA's: {reason}"),
            )
        })?;
        let piece = certificate.piece()?;
        let bare = anchor_from_trusted_cert(&der)
            .map_err(|error| unsupported(&error))?
            .to_owned();
        Ok(Self {
            number: next_number(),
            piece,
            authority,
            bare,
            der,
        })
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Its public key, as far as one has to know it again.
    pub(crate) fn key(&self) -> Fingerprint {
        Fingerprint::of(&self.bare.subject_public_key_info)
    }

    /// Verifies a chain from the leaf up to this anchor. `allows` is asked about each path that holds otherwise.
    pub(crate) fn vouch<'p>(
        &'p self,
        role: Role,
        end_entity: &'p EndEntityCert<'p>,
        intermediates: &'p [CertificateDer<'p>],
        now: UnixTime,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
        allows: &dyn Fn(&VerifiedPath<'_>) -> Result<(), webpki::Error>,
    ) -> Result<VerifiedPath<'p>, webpki::Error> {
        // To webpki an anchor is a name and a key; what its certificate says is checked here.
        let (allowed, usage) = match role {
            Role::Client => (self.authority.clients, KeyUsage::client_auth()),
            Role::Server => (self.authority.servers, KeyUsage::server_auth()),
        };
        let (not_before, not_after) = seconds(&self.piece);
        if !allowed || !(not_before..=not_after).contains(&now.as_secs()) {
            return Err(webpki::Error::UnknownIssuer);
        }
        let allows = |path: &VerifiedPath<'_>| {
            let issued_by_another = path
                .intermediate_certificates()
                .filter(|certificate| certificate.issuer() != certificate.subject())
                .count();
            match self.authority.path_length {
                Some(limit) if issued_by_another > usize::try_from(limit).unwrap_or(usize::MAX) => {
                    Err(webpki::Error::PathLenConstraintViolated)
                }
                _ => allows(path),
            }
        };
        end_entity.verify_for_usage(
            algorithms,
            slice::from_ref(&self.bare),
            intermediates,
            now,
            usage,
            None,
            Some(&allows),
        )
    }

    /// What follows from a path that was verified: it holds as long as every certificate on it, and `until`; `basis` is
    /// what allowed it.
    pub(crate) fn vouched(
        &self,
        revision: Option<&RevisionId>,
        leaf: &CertificateDer<'_>,
        path: &VerifiedPath<'_>,
        now: UnixTime,
        until: u64,
        basis: Basis,
    ) -> Vouched {
        let (not_before, not_after) = seconds(&self.piece);
        let mut vouched = Vouched {
            revision: revision.cloned(),
            not_before,
            not_after: not_after.min(until),
            basis: Basis {
                anchor: self.number,
                removed: basis
                    .removed
                    .filter(|_| path.intermediate_certificates().next().is_some()),
                ..basis
            },
        };
        // What webpki can read and we cannot is good for this moment only.
        let this_moment = (now.as_secs(), now.as_secs());
        let mut within = |der: &[u8]| {
            vouched.within(validity(der).unwrap_or(this_moment));
        };
        within(leaf);
        path.intermediate_certificates()
            .for_each(|certificate| within(&certificate.der()));
        vouched
    }
}

/// A validity in the seconds that rustls counts.
pub(crate) fn seconds(piece: &Piece) -> (u64, u64) {
    let since_1970 = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |duration| duration.as_secs())
    };
    (since_1970(piece.not_before), since_1970(piece.not_after))
}

pub(crate) fn unsupported(error: &webpki::Error) -> Unusable {
    Unusable::new(
        "unsupported",
        format!("it holds a certificate that rustls cannot use: {error}"),
    )
}
