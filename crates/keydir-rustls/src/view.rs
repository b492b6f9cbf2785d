//! How a directory is read as trust anchors, or as pinned certificates.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use keydir::{Broken, Candidates, Fingerprint, Parsed, Piece, Revision, Unusable, Usage, View, uses};
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::anchor::{Anchor, next_number, unsupported};
use crate::certificate::Certificate;
use crate::crl::{Algorithms, Crl};
use crate::cross::Removed;
use crate::hints::Hints;
use crate::pem;
use crate::provider::provider;
use crate::revocation::{RevocationPolicy, Revocations};
use crate::trust::{Pin, Trust};

/// Reads a directory as what peers are verified against: CA certificates, or pinned ones.
/// [`TrustAnchors`](crate::TrustAnchors) makes it.
pub struct AnchorsView {
    kind: Kind,
    hints: Arc<Hints>,
    options: Options,
    last: Mutex<Last>,
}

/// What was asked for beside a directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// To verify CRLs by; `None` if there is no cryptography.
    pub(crate) algorithms: Option<Algorithms>,
    pub(crate) revocation: RevocationPolicy,
    pub(crate) refuse_cross_signed: bool,
    /// The platform's roots.
    pub(crate) roots: Vec<Arc<Anchor>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Anchors,
    Pinned,
}

/// What was trusted before, to see what is lost.
#[derive(Default)]
struct Last {
    trusted: HashSet<Fingerprint>,
    revocations: Arc<Revocations>,
    as_of: Option<SystemTime>,
    losses: u64,
    /// The keys of the anchors, those outside their validity among them.
    keys: HashSet<Fingerprint>,
    removed: Removed,
}

/// The certificates of one revision, and its CRLs.
#[derive(Debug)]
pub struct Accepted {
    certificates: Certificates,
    crls: Vec<Arc<Crl>>,
}

#[derive(Debug)]
enum Certificates {
    Anchors(Vec<Arc<Anchor>>),
    Pin(Pin),
}

impl Accepted {
    /// The certificates, as they lie in the directory.
    pub fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.all().map(|(der, _)| der)
    }

    /// The certificate revocation lists of the revision's part `crl`.
    pub fn crls(&self) -> impl Iterator<Item = &Crl> {
        self.crls.iter().map(AsRef::as_ref)
    }

    fn anchors(&self) -> impl Iterator<Item = &Arc<Anchor>> {
        match &self.certificates {
            Certificates::Anchors(anchors) => anchors.iter(),
            Certificates::Pin(_) => [].iter(),
        }
    }

    fn all(&self) -> impl Iterator<Item = (&CertificateDer<'static>, Piece)> {
        let (anchors, pin) = match &self.certificates {
            Certificates::Anchors(anchors) => (anchors.as_slice(), None),
            Certificates::Pin(pin) => (&[][..], Some((&pin.der, pin.piece))),
        };
        let anchors = anchors.iter().map(|anchor| (&anchor.der, anchor.piece));
        anchors.chain(pin)
    }
}

impl AnchorsView {
    /// A view of CA certificates and their CRLs, without the options of
    /// [`TrustAnchors::builder`](crate::TrustAnchors::builder). If the process has no cryptography, revisions with a
    /// CRL are unusable.
    pub fn anchors() -> Self {
        let provider = provider().ok();
        let options = Options {
            algorithms: provider.map(|provider| provider.signature_verification_algorithms.all),
            ..Options::default()
        };
        Self::new(Kind::Anchors, Arc::new(Hints::new()), options)
    }

    /// A view of certificates that are accepted by themselves.
    pub fn pinned() -> Self {
        Self::new(Kind::Pinned, Arc::new(Hints::new()), Options::default())
    }

    pub(crate) fn new(kind: Kind, hints: Arc<Hints>, options: Options) -> Self {
        let last = Last {
            removed: Removed::new(options.refuse_cross_signed),
            revocations: Arc::new(Revocations::new(
                options.revocation,
                options.algorithms.unwrap_or_default(),
                std::iter::empty(),
            )),
            ..Last::default()
        };
        Self {
            kind,
            hints,
            options,
            last: Mutex::new(last),
        }
    }

    /// What was lost since the last time, and what is remembered of it.
    fn trust(&self, accepted: &Candidates<'_, Accepted>) -> Trust {
        let now = accepted.now();
        let all = || accepted.iter().flat_map(|(_, accepted)| accepted.all());
        let trusted: HashSet<_> = all()
            .filter(|(_, piece)| piece.is_valid_at(now))
            .map(|(_, piece)| piece.fingerprint)
            .collect();
        let anchors = accepted.iter().flat_map(|(_, accepted)| accepted.anchors());
        let anchors: Vec<_> = anchors.chain(&self.options.roots).collect();
        let keys: HashSet<_> = anchors.iter().map(|anchor| anchor.key()).collect();
        let names: HashSet<&[u8]> = anchors.iter().map(|anchor| anchor.bare.subject.as_ref()).collect();
        let crls = accepted.iter().chain(accepted.kept_crls());
        let mut revocations = Arc::new(Revocations::new(
            self.options.revocation,
            self.options.algorithms.unwrap_or_default(),
            crls.flat_map(|(_, accepted)| accepted.crls.iter().cloned()),
        ));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if revocations.are(&last.revocations) {
            revocations = Arc::clone(&last.revocations);
        }
        revocations.tell_of_expired(&last.revocations, now, last.as_of);
        revocations.tell_of_strangers(&last.revocations, |name| names.contains(name));
        // The list of a CA that was removed goes with it; whose an intermediate CA was, nobody knows.
        let none_removed = last.keys.is_subset(&keys);
        let is_anchor = |key: &[u8]| keys.contains(&Fingerprint::of(key));
        revocations.tell_of_lost(&last.revocations, |crl| {
            none_removed || crl.signer().is_some_and(is_anchor)
        });
        let refuses_more = revocations.refuse_more_than(&last.revocations, now, last.as_of);
        if refuses_more || !last.trusted.is_subset(&trusted) {
            last.losses += 1;
        }
        last.as_of = Some(now);
        last.removed = last.removed.after(&last.keys, &keys);
        last.trusted = trusted;
        last.keys = keys;
        last.revocations = Arc::clone(&revocations);
        Trust::new(next_number(), last.losses, revocations, last.removed.clone())
    }
}

impl View for AnchorsView {
    type Item = Accepted;
    type Whole = Trust;

    fn usage(&self) -> &Usage {
        match self.kind {
            Kind::Anchors => &uses::ANCHORS,
            Kind::Pinned => &uses::PINNED,
        }
    }

    fn parse(&self, revision: &Revision<'_>) -> Result<Parsed<Accepted>, Unusable> {
        let parts: Vec<_> = ["crt", "pem"]
            .into_iter()
            .filter_map(|part| Some((part, revision.part(part)?)))
            .collect();
        match self.kind {
            Kind::Anchors => {
                // If one is broken all of it is: to accept what a CRL was published to forbid would be worse.
                anchors(&parts, revision.part("crl"), self.options.algorithms)
            }
            Kind::Pinned => pin(&parts),
        }
    }

    fn combine(&self, accepted: &Candidates<'_, Accepted>) -> Result<Trust, Broken> {
        let now = accepted.now();
        let mut trust = self.trust(accepted);
        for (id, accepted) in accepted.iter() {
            let anchors = accepted.anchors().filter(|anchor| anchor.piece.is_valid_at(now));
            anchors.for_each(|anchor| trust.add_anchor(Some(id), anchor));
            if let Certificates::Pin(pin) = &accepted.certificates
                && pin.piece.is_valid_at(now)
            {
                trust.add_pin(id, pin);
            }
        }
        let roots = self.options.roots.iter().filter(|root| root.piece.is_valid_at(now));
        roots.for_each(|root| trust.add_anchor(None, root));
        trust.set_hints(self.hints.keep(trust.subjects()));
        Ok(trust)
    }
}

impl fmt::Debug for AnchorsView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnchorsView")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

fn anchors(
    parts: &[(&str, &[u8])],
    crl: Option<&[u8]>,
    algorithms: Option<Algorithms>,
) -> Result<Parsed<Accepted>, Unusable> {
    let mut anchors = Vec::new();
    let mut pieces = Vec::new();
    for (part, pem) in parts {
        for der in pem::certificates(pem).map_err(|error| error.in_part(part))? {
            let anchor = Anchor::read(der).map_err(|unusable| unusable.part(part))?;
            pieces.push(anchor.piece);
            anchors.push(Arc::new(anchor));
        }
    }
    let crls = match crl {
        Some(pem) => crls(pem, &anchors, algorithms).map_err(|unusable| unusable.part("crl"))?,
        None => Vec::new(),
    };
    let ends: Vec<_> = crls.iter().map(|crl| crl.next_update()).collect();
    let accepted = Accepted {
        certificates: Certificates::Anchors(anchors),
        crls,
    };
    let accepted = pieces.into_iter().fold(Parsed::new(accepted), Parsed::piece);
    Ok(ends.into_iter().fold(accepted, Parsed::again_at))
}

/// A list of one of the anchors must be signed by it; one of another name is that of some intermediate CA, whose key
/// only a peer will show.
fn crls(pem: &[u8], anchors: &[Arc<Anchor>], algorithms: Option<Algorithms>) -> Result<Vec<Arc<Crl>>, Unusable> {
    let algorithms = algorithms
        .ok_or_else(|| Unusable::new("no-provider", "its CRL cannot be verified without a CryptoProvider"))?;
    let mut crls = Vec::new();
    for der in pem::crls(pem).map_err(|error| error.in_part("crl"))? {
        let mut crl = Crl::read(&der)?;
        let of_name: Vec<_> = anchors
            .iter()
            .filter(|anchor| anchor.bare.subject.as_ref() == crl.issuer_name())
            .collect();
        let mut keys = of_name
            .iter()
            .map(|anchor| anchor.bare.subject_public_key_info.as_ref());
        if !of_name.is_empty() && !keys.any(|key| crl.bind(key, algorithms)) {
            return Err(Unusable::new(
                "crl-of-another-key",
                format!(
                    "it holds a CRL of {}, which is not signed with the key of the certificate of that name",
                    crl.issuer()
                ),
            ));
        }
        crls.push(Arc::new(crl));
    }
    Ok(crls)
}

fn pin(parts: &[(&str, &[u8])]) -> Result<Parsed<Accepted>, Unusable> {
    let several = || {
        Unusable::new(
            "several-certificates",
            "a pin is exactly one certificate; publish one revision for each",
        )
    };
    let [(part, pem)] = parts else {
        return Err(several());
    };
    let mut certificates = pem::certificates(pem).map_err(|error| error.in_part(part))?;
    let (Some(der), true) = (certificates.pop(), certificates.is_empty()) else {
        return Err(several().part(part));
    };
    // It must be one whose handshake signature webpki can check later.
    EndEntityCert::try_from(&der).map_err(|error| unsupported(&error).part(part))?;
    let piece = Certificate::read(&der)
        .and_then(|certificate| certificate.piece())
        .map_err(|unusable| unusable.part(part))?;
    let accepted = Accepted {
        certificates: Certificates::Pin(Pin { der, piece }),
        crls: Vec::new(),
    };
    Ok(Parsed::new(accepted).piece(piece))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, IsCa, KeyPair};

    use super::*;

    fn pem(is_ca: IsCa) -> String {
        let mut params = CertificateParams::default();
        params.is_ca = is_ca;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    fn ca() -> String {
        pem(IsCa::Ca(rcgen::BasicConstraints::Unconstrained))
    }

    fn code<T>(parsed: Result<T, Unusable>) -> &'static str {
        parsed.map_or_else(|unusable| unusable.code(), |_| "fine")
    }

    #[test]
    fn each_reason_has_its_code() {
        let (ca, leaf) = (ca(), pem(IsCa::NoCa));
        let read = |pem: &str| code(anchors(&[("crt", pem.as_bytes())], None, None));
        assert_eq!(read(&ca), "fine");
        assert_eq!(read(&(ca.clone() + &ca)), "fine");
        assert_eq!(read(&leaf), "not-a-ca");
        assert_eq!(read(&(ca.clone() + &leaf)), "not-a-ca");
        assert_eq!(read(&pem(IsCa::ExplicitNoCa)), "not-a-ca");
        assert_eq!(
            read("-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n"),
            "bad-certificate"
        );
        assert_eq!(read("-----BEGIN CERTIFICATE-----\nAAEC"), "bad-pem");
        assert_eq!(read(""), "no-pem");

        let pinned = |pem: &str| code(pin(&[("crt", pem.as_bytes())]));
        assert_eq!((pinned(&ca), pinned(&leaf)), ("fine", "fine"));
        assert_eq!(pinned(&(ca.clone() + &leaf)), "several-certificates");
        assert_eq!(
            code(pin(&[("crt", ca.as_bytes()), ("pem", ca.as_bytes())])),
            "several-certificates"
        );
    }
}
