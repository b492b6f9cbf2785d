//! The anchors in force, and what they vouch for: a path is looked for from one anchor at a time, so that the revision
//! which vouched is known, a CA that got a new key under its old name works, and a hundred CAs cost what one does.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keydir::{Piece, RevisionId};
use rustls::pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm, UnixTime,
};
use rustls::{CertificateError, DistinguishedName, Error};
use webpki::{EndEntityCert, VerifiedPath};

use crate::anchor::{Anchor, Basis, Role, Vouched, seconds};
use crate::certificate::authority_key_id;
use crate::cross::Removed;
use crate::error::refused;
use crate::hints::List;
use crate::revocation::Revocations;
use crate::walk::{Few, MAX_NAMES, Walk};

/// Signatures that may be checked for one chain, beside one for each anchor of a name that it leads to.
const MAX_SIGNATURES: usize = 100;

/// A certificate that is accepted by itself.
#[derive(Debug)]
pub(crate) struct Pin {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) piece: Piece,
}

/// All that is trusted at one moment; derived by [`AnchorsView`](crate::AnchorsView) from the accepted revisions.
#[derive(Debug)]
pub struct Trust {
    serial: u64,
    losses: u64,
    hints: Option<List>,
    revocations: Arc<Revocations>,
    removed: Removed,
    /// Those of the directory first; those without a revision are the platform's.
    anchors: Vec<(Option<RevisionId>, Arc<Anchor>)>,
    by_subject: HashMap<Box<[u8]>, Vec<usize>>,
    pins: HashMap<CertificateDer<'static>, (RevisionId, Piece)>,
}

impl Trust {
    /// `serial` is a greater one for each; `losses` counts how often something that was trusted before no longer was.
    pub(crate) fn new(serial: u64, losses: u64, revocations: Arc<Revocations>, removed: Removed) -> Self {
        Self {
            serial,
            losses,
            hints: None,
            revocations,
            removed,
            anchors: Vec::new(),
            by_subject: HashMap::new(),
            pins: HashMap::new(),
        }
    }

    /// Of several revisions with the same certificate the first vouches.
    pub(crate) fn add_anchor(&mut self, revision: Option<&RevisionId>, anchor: &Arc<Anchor>) {
        let of_subject = self.by_subject.entry(anchor.bare.subject.as_ref().into()).or_default();
        let known = |at: &usize| {
            let known = self.anchors.get(*at);
            known.is_some_and(|(_, known)| known.der == anchor.der)
        };
        if !of_subject.iter().any(known) {
            of_subject.push(self.anchors.len());
            self.anchors.push((revision.cloned(), Arc::clone(anchor)));
        }
    }

    pub(crate) fn add_pin(&mut self, revision: &RevisionId, pin: &Pin) {
        self.pins
            .entry(pin.der.clone())
            .or_insert_with(|| (revision.clone(), pin.piece));
    }

    pub(crate) fn set_hints(&mut self, hints: Option<List>) {
        self.hints = hints;
    }

    /// The subjects of the directory's anchors, each once.
    pub(crate) fn subjects(&self) -> Vec<DistinguishedName> {
        let mut seen = HashSet::new();
        let mut subjects = Vec::new();
        for (_, anchor) in self.anchors.iter().filter(|(revision, _)| revision.is_some()) {
            let subject = anchor.bare.subject.as_ref();
            if seen.insert(subject) {
                subjects.push(DistinguishedName::in_sequence(subject));
            }
        }
        subjects
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    pub(crate) fn losses(&self) -> u64 {
        self.losses
    }

    pub(crate) fn hints(&self) -> Option<List> {
        self.hints
    }

    /// How many certificates are trusted: anchors, those of the platform among them, and pins.
    pub fn len(&self) -> usize {
        self.anchors.len() + self.pins.len()
    }

    /// Whether nothing is trusted, so that no peer is accepted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it would say the same as another trust has said, without verifying anything: the very anchor is there, in
    /// the same revision, and the CRLs and the removed CAs are those of then.
    pub(crate) fn stands_by(&self, vouched: &Vouched) -> bool {
        let Basis {
            anchor: number,
            revocations,
            removed,
        } = vouched.basis;
        let is_it = |(revision, anchor): &(Option<RevisionId>, Arc<Anchor>)| {
            anchor.number() == number && *revision == vouched.revision
        };
        revocations == self.revocations.number()
            && removed.is_none_or(|removed| removed == self.removed.number())
            && self.anchors.iter().any(is_it)
    }

    /// Verifies a chain: the dates, the signatures up to an anchor, what the CAs on the way allow. A server's name is
    /// another question.
    pub(crate) fn vouch<'a>(
        &self,
        role: Role,
        leaf: &CertificateDer<'_>,
        intermediates: impl Iterator<Item = &'a [u8]> + Clone,
        now: UnixTime,
        algorithms: &'static [&'static dyn SignatureVerificationAlgorithm],
    ) -> Result<Vouched, Error> {
        if let Some((revision, piece)) = self.pins.get(leaf) {
            return vouch_for_pin(revision, piece, now);
        }
        let end_entity = EndEntityCert::try_from(leaf).map_err(refused)?;
        let walk = Walk::from(end_entity.issuer(), intermediates)?;
        let candidates = self.candidates(leaf, &walk);
        let left = AtomicUsize::new(MAX_SIGNATURES.saturating_add(candidates.count()));
        let counted = match candidates.count() {
            0 | 1 => Vec::new(), // webpki's own limit is enough
            _ => Counted::all(algorithms, &left),
        };
        let counted: Vec<_> = counted.iter().map(Counted::as_algorithm).collect();
        let algorithms: &[&dyn SignatureVerificationAlgorithm] = match counted.as_slice() {
            [] => algorithms,
            counted => counted,
        };

        let until = Cell::new(u64::MAX);
        let mut error = webpki::Error::UnknownIssuer;
        for (revision, anchor) in candidates.iter() {
            if left.load(Ordering::Relaxed) == 0 {
                break; // None can be verified any more, but each would be looked for.
            }
            let allows = |path: &VerifiedPath<'_>| {
                let key_id = anchor.authority.key_id.as_deref();
                until.set(self.revocations.check(path, key_id, now)?);
                self.removed.check(path)
            };
            match anchor.vouch(role, &end_entity, &walk.intermediates, now, algorithms, &allows) {
                Ok(path) => {
                    let basis = Basis {
                        anchor: anchor.number(),
                        revocations: self.revocations.number(),
                        removed: Some(self.removed.number()),
                    };
                    return Ok(anchor.vouched(revision.as_ref(), leaf, &path, now, until.get(), basis));
                }
                Err(next) if says_little(&error) => error = next,
                Err(_) => {}
            }
        }
        Err(refused(error))
    }

    fn candidates<'a>(&'a self, leaf: &'a CertificateDer<'_>, walk: &'a Walk<'_>) -> Candidates<'a> {
        let mut candidates = Candidates {
            anchors: &self.anchors,
            of_names: Few::new(&[]),
            key_ids: Few::new(&[]),
        };
        for name in walk.issuers.iter() {
            if let Some(of_name) = self.by_subject.get(*name) {
                candidates.of_names.push(of_name);
            }
        }
        if candidates.count() > 1 {
            let shown = std::iter::once(leaf).chain(walk.intermediates.iter());
            for key_id in shown.filter_map(|der| authority_key_id(der)) {
                candidates.key_ids.push(key_id);
            }
        }
        candidates
    }
}

/// The anchors of the names that a walk has met.
struct Candidates<'a> {
    anchors: &'a [(Option<RevisionId>, Arc<Anchor>)],
    /// For each name those in `anchors`, the nearest name first.
    of_names: Few<&'a [usize], MAX_NAMES>,
    /// The keys that the certificates point to, if there is a choice.
    key_ids: Few<&'a [u8], MAX_NAMES>,
}

impl<'a> Candidates<'a> {
    fn count(&self) -> usize {
        self.of_names.iter().map(|of_name| of_name.len()).sum()
    }

    /// Those first whose key the certificates point to; the order of the names is kept among equals.
    fn iter(&self) -> impl Iterator<Item = &'a (Option<RevisionId>, Arc<Anchor>)> {
        let all = self.of_names.iter().copied().flatten();
        let all = all.filter_map(|at| self.anchors.get(*at));
        let pointed_to = |(_, anchor): &&(Option<RevisionId>, Arc<Anchor>)| {
            let key_id = anchor.authority.key_id.as_deref();
            key_id.is_some_and(|id| self.key_ids.contains(&id))
        };
        let others = all.clone().filter(move |anchor| !pointed_to(anchor));
        all.filter(pointed_to).chain(others)
    }
}

fn vouch_for_pin(revision: &RevisionId, piece: &Piece, now: UnixTime) -> Result<Vouched, Error> {
    let (not_before, not_after) = seconds(piece);
    if now.as_secs() < not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    if now.as_secs() > not_after {
        return Err(CertificateError::Expired.into());
    }
    Ok(Vouched {
        revision: Some(revision.clone()),
        not_before,
        not_after,
        basis: Basis::default(),
    })
}

/// Several anchors share one limit, so that a made-up chain costs no more than one anchor's.
#[derive(Debug)]
struct Counted<'a> {
    algorithm: &'static dyn SignatureVerificationAlgorithm,
    left: &'a AtomicUsize,
}

impl<'a> Counted<'a> {
    fn all(algorithms: &'static [&'static dyn SignatureVerificationAlgorithm], left: &'a AtomicUsize) -> Vec<Self> {
        let counted = |algorithm: &&'static _| Self {
            algorithm: *algorithm,
            left,
        };
        algorithms.iter().map(counted).collect()
    }

    fn as_algorithm(&self) -> &dyn SignatureVerificationAlgorithm {
        self
    }
}

impl SignatureVerificationAlgorithm for Counted<'_> {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let take = |left: usize| left.checked_sub(1);
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => self.algorithm.verify_signature(public_key, message, signature),
            Err(_) => Err(InvalidSignature),
        }
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }

    fn fips(&self) -> bool {
        self.algorithm.fips()
    }
}

/// Of the errors of several anchors one is told that says more than "not this one".
fn says_little(error: &webpki::Error) -> bool {
    matches!(
        error,
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey
    )
}
