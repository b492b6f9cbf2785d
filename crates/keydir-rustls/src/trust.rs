//! The anchors in force, and what they vouch for: a path is looked for from one anchor at a time, so that the revision
//! which vouched is known, a CA that got a new key under its old name works, and a hundred CAs cost what one does.

use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use keydir::{Piece, RevisionId};
use rustls::pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm, TrustAnchor, UnixTime,
};
use rustls::{CertificateError, DistinguishedName, Error};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use crate::certificate::{Authority, authority_key_id, names, validity};
use crate::error::{ChainTooLong, refused};
use crate::hints::List;

/// More intermediates than any real chain has; webpki follows six. Those that lead nowhere do not count.
const MAX_INTERMEDIATES: usize = 8;
/// The leaf's issuer and those of the intermediates.
const MAX_NAMES: usize = 1 + MAX_INTERMEDIATES;
/// Signatures that may be checked for one chain, beside one for each anchor of a name that it leads to.
const MAX_SIGNATURES: usize = 100;

/// Which side of the handshake the peer is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Client,
    Server,
}

/// A CA certificate that peers may chain to.
#[derive(Debug)]
pub(crate) struct Anchor {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) piece: Piece,
    pub(crate) authority: Authority,
    pub(crate) bare: TrustAnchor<'static>,
}

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
    anchors: Vec<(RevisionId, Arc<Anchor>)>,
    by_subject: HashMap<Box<[u8]>, Vec<usize>>,
    pins: HashMap<CertificateDer<'static>, (RevisionId, Piece)>,
}

/// Who vouches for a chain, and from when to when, in seconds since 1970.
#[derive(Clone, Debug)]
pub(crate) struct Vouched {
    pub(crate) revision: RevisionId,
    not_before: u64,
    pub(crate) not_after: u64,
}

impl Vouched {
    pub(crate) fn holds_at(&self, now: UnixTime) -> bool {
        (self.not_before..=self.not_after).contains(&now.as_secs())
    }

    #[cfg(test)]
    pub(crate) fn for_tests(revision: &str) -> Self {
        Self {
            revision: revision.parse().unwrap(),
            not_before: 0,
            not_after: u64::MAX,
        }
    }

    fn within(&mut self, (not_before, not_after): (u64, u64)) {
        self.not_before = self.not_before.max(not_before);
        self.not_after = self.not_after.min(not_after);
    }
}

impl Trust {
    /// `serial` is another for each; `losses` counts how often something that was trusted before no longer was.
    pub(crate) fn new(serial: u64, losses: u64) -> Self {
        Self {
            serial,
            losses,
            hints: None,
            anchors: Vec::new(),
            by_subject: HashMap::new(),
            pins: HashMap::new(),
        }
    }

    /// Of several revisions with the same certificate the first vouches.
    pub(crate) fn add_anchor(&mut self, revision: &RevisionId, anchor: &Arc<Anchor>) {
        let of_subject = self.by_subject.entry(anchor.bare.subject.as_ref().into()).or_default();
        let known = |at: &usize| {
            let known = self.anchors.get(*at);
            known.is_some_and(|(_, known)| known.der == anchor.der)
        };
        if !of_subject.iter().any(known) {
            of_subject.push(self.anchors.len());
            self.anchors.push((revision.clone(), Arc::clone(anchor)));
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

    /// The subjects of the anchors, each once.
    pub(crate) fn subjects(&self) -> Vec<DistinguishedName> {
        let mut seen = HashSet::new();
        let mut subjects = Vec::new();
        for (_, anchor) in &self.anchors {
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

    /// How many certificates are trusted: anchors and pins.
    pub fn len(&self) -> usize {
        self.anchors.len() + self.pins.len()
    }

    /// Whether nothing is trusted, so that no peer is accepted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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

        let mut error = webpki::Error::UnknownIssuer;
        for (revision, anchor) in candidates.iter() {
            match anchor.vouch(role, &end_entity, &walk.intermediates, now, algorithms) {
                Ok(path) => {
                    return Ok(anchor.vouched(revision, leaf, &path, now));
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
    anchors: &'a [(RevisionId, Arc<Anchor>)],
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
    fn iter(&self) -> impl Iterator<Item = &'a (RevisionId, Arc<Anchor>)> {
        let all = self.of_names.iter().copied().flatten();
        let all = all.filter_map(|at| self.anchors.get(*at));
        let pointed_to = |(_, anchor): &&(RevisionId, Arc<Anchor>)| {
            let key_id = anchor.authority.key_id.as_deref();
            key_id.is_some_and(|id| self.key_ids.contains(&id))
        };
        let others = all.clone().filter(move |anchor| !pointed_to(anchor));
        all.filter(pointed_to).chain(others)
    }
}

impl Anchor {
    fn vouch<'p>(
        &'p self,
        role: Role,
        end_entity: &'p EndEntityCert<'p>,
        intermediates: &'p [CertificateDer<'p>],
        now: UnixTime,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
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
        let path_length = |path: &VerifiedPath<'_>| {
            let issued_by_another = path
                .intermediate_certificates()
                .filter(|certificate| certificate.issuer() != certificate.subject())
                .count();
            match self.authority.path_length {
                Some(limit) if issued_by_another > usize::try_from(limit).unwrap_or(usize::MAX) => {
                    Err(webpki::Error::PathLenConstraintViolated)
                }
                _ => Ok(()),
            }
        };
        end_entity.verify_for_usage(
            algorithms,
            slice::from_ref(&self.bare),
            intermediates,
            now,
            usage,
            None,
            Some(&path_length),
        )
    }

    fn vouched(
        &self,
        revision: &RevisionId,
        leaf: &CertificateDer<'_>,
        path: &VerifiedPath<'_>,
        now: UnixTime,
    ) -> Vouched {
        let (not_before, not_after) = seconds(&self.piece);
        let mut vouched = Vouched {
            revision: revision.clone(),
            not_before,
            not_after,
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

fn vouch_for_pin(revision: &RevisionId, piece: &Piece, now: UnixTime) -> Result<Vouched, Error> {
    let (not_before, not_after) = seconds(piece);
    if now.as_secs() < not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    if now.as_secs() > not_after {
        return Err(CertificateError::Expired.into());
    }
    Ok(Vouched {
        revision: revision.clone(),
        not_before,
        not_after,
    })
}

/// The certificates that a chain can lead through, and the names that it can lead to.
struct Walk<'a> {
    intermediates: Few<CertificateDer<'a>, MAX_INTERMEDIATES>,
    issuers: Few<&'a [u8], MAX_NAMES>,
}

impl<'a> Walk<'a> {
    fn from<'b: 'a>(issuer: &'a [u8], intermediates: impl Iterator<Item = &'b [u8]> + Clone) -> Result<Self, Error> {
        let mut walk = Self {
            intermediates: Few::new(CertificateDer::from_slice(&[])),
            issuers: Few::new(&[]),
        };
        walk.issuers.push(issuer);
        let mut at = 0;
        while let Some(name) = walk.issuers.get(at).copied() {
            at += 1;
            for der in intermediates.clone() {
                // Cheap, so that certificates which lead nowhere cost next to nothing, however many were sent.
                let Some((issuer, _)) = names(der).filter(|(_, subject)| *subject == name) else {
                    continue;
                };
                let der = CertificateDer::from(der);
                if EndEntityCert::try_from(&der).is_err() {
                    continue;
                }
                if !walk.intermediates.push(der) {
                    return Err(ChainTooLong::error(MAX_INTERMEDIATES + 1));
                }
                if !walk.issuers.contains(&issuer) {
                    walk.issuers.push(issuer);
                }
            }
        }
        Ok(walk)
    }
}

/// A few things of a kind, without an allocation.
struct Few<T, const MOST: usize> {
    places: [T; MOST],
    taken: usize,
}

impl<T: Clone, const MOST: usize> Few<T, MOST> {
    /// None yet; `free` stands in the places that are free.
    fn new(free: T) -> Self {
        Self {
            places: std::array::from_fn(|_| free.clone()),
            taken: 0,
        }
    }

    /// Whether there was a place for it.
    fn push(&mut self, item: T) -> bool {
        let place = self.places.get_mut(self.taken);
        let fits = place.map(|place| *place = item).is_some();
        self.taken += usize::from(fits);
        fits
    }
}

impl<T, const MOST: usize> Deref for Few<T, MOST> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.places.get(..self.taken).unwrap_or_default()
    }
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

/// A validity in the seconds that rustls counts.
fn seconds(piece: &Piece) -> (u64, u64) {
    let since_1970 = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |duration| duration.as_secs())
    };
    (since_1970(piece.not_before), since_1970(piece.not_after))
}
