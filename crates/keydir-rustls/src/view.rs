//! How a directory is read as trust anchors, or as pinned certificates.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use keydir::{Broken, Candidates, Fingerprint, Parsed, Piece, Revision, Unusable, Usage, View, uses};
use rustls::pki_types::CertificateDer;
use webpki::{EndEntityCert, anchor_from_trusted_cert};

use crate::certificate::Certificate;
use crate::hints::Hints;
use crate::pem;
use crate::trust::{Anchor, Pin, Trust};

/// Reads a directory as what peers are verified against: CA certificates, or pinned ones.
/// [`TrustAnchors`](crate::TrustAnchors) makes it.
pub struct AnchorsView {
    kind: Kind,
    hints: Arc<Hints>,
    last: Mutex<Last>,
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
    losses: u64,
}

/// The certificates of one revision.
#[derive(Debug)]
pub struct Accepted(Certificates);

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

    fn all(&self) -> impl Iterator<Item = (&CertificateDer<'static>, Piece)> {
        let (anchors, pin) = match &self.0 {
            Certificates::Anchors(anchors) => (anchors.as_slice(), None),
            Certificates::Pin(pin) => (&[][..], Some((&pin.der, pin.piece))),
        };
        let anchors = anchors.iter().map(|anchor| (&anchor.der, anchor.piece));
        anchors.chain(pin)
    }
}

impl AnchorsView {
    /// A view of CA certificates.
    pub fn anchors() -> Self {
        Self::new(Kind::Anchors, Arc::new(Hints::new()))
    }

    /// A view of certificates that are accepted by themselves.
    pub fn pinned() -> Self {
        Self::new(Kind::Pinned, Arc::new(Hints::new()))
    }

    pub(crate) fn new(kind: Kind, hints: Arc<Hints>) -> Self {
        Self {
            kind,
            hints,
            last: Mutex::default(),
        }
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
                // To accept what a CRL was published to forbid would be worse than to refuse all.
                if revision.part("crl").is_some() {
                    return Err(Unusable::new(
                        "crl-not-enforced",
                        "this version of keydir-rustls does not enforce CRLs: take the part away to trust the CA without one",
                    )
                    .part("crl"));
                }
                anchors(&parts)
            }
            Kind::Pinned => pin(&parts),
        }
    }

    fn combine(&self, accepted: &Candidates<'_, Accepted>) -> Result<Trust, Broken> {
        let now = accepted.now();
        let trusted: HashSet<_> = accepted
            .iter()
            .flat_map(|(_, accepted)| accepted.all())
            .filter(|(_, piece)| piece.is_valid_at(now))
            .map(|(_, piece)| piece.fingerprint)
            .collect();
        let mut trust = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if !last.trusted.is_subset(&trusted) {
                last.losses += 1;
            }
            last.trusted = trusted;
            Trust::new(next_serial(), last.losses)
        };
        for (id, accepted) in accepted.iter() {
            match &accepted.0 {
                Certificates::Anchors(anchors) => anchors
                    .iter()
                    .filter(|anchor| anchor.piece.is_valid_at(now))
                    .for_each(|anchor| trust.add_anchor(id, anchor)),
                Certificates::Pin(pin) => {
                    if pin.piece.is_valid_at(now) {
                        trust.add_pin(id, pin);
                    }
                }
            }
        }
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

/// A number for each [`Trust`] of the process, so that a verdict can be bound to the one it was made under.
fn next_serial() -> u64 {
    static SERIAL: AtomicU64 = AtomicU64::new(1);
    SERIAL.fetch_add(1, Ordering::Relaxed)
}

fn anchors(parts: &[(&str, &[u8])]) -> Result<Parsed<Accepted>, Unusable> {
    let mut anchors = Vec::new();
    let mut pieces = Vec::new();
    for (part, pem) in parts {
        for der in pem::certificates(pem).map_err(|error| error.in_part(part))? {
            let anchor = anchor(der).map_err(|unusable| unusable.part(part))?;
            pieces.push(anchor.piece);
            anchors.push(Arc::new(anchor));
        }
    }
    let accepted = Parsed::new(Accepted(Certificates::Anchors(anchors)));
    Ok(pieces.into_iter().fold(accepted, Parsed::piece))
}

/// Whoever holds the key of a certificate among the anchors can mint names, so it must be a CA's.
fn anchor(der: CertificateDer<'static>) -> Result<Anchor, Unusable> {
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
    Ok(Anchor {
        piece,
        authority,
        bare,
        der,
    })
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
    Ok(Parsed::new(Accepted(Certificates::Pin(Pin { der, piece }))).piece(piece))
}

fn unsupported(error: &webpki::Error) -> Unusable {
    Unusable::new(
        "unsupported",
        format!("it holds a certificate that rustls cannot use: {error}"),
    )
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
        let read = |pem: &str| code(anchors(&[("crt", pem.as_bytes())]));
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
