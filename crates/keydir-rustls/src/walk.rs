//! The certificates of a chain that lead somewhere, found before any signature is checked.

use std::ops::Deref;

use rustls::Error;
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::certificate::names;
use crate::error::ChainTooLong;

/// More intermediates than any real chain has; webpki follows six. Those that lead nowhere do not count.
const MAX_INTERMEDIATES: usize = 8;
/// The leaf's issuer and those of the intermediates.
pub(crate) const MAX_NAMES: usize = 1 + MAX_INTERMEDIATES;

/// The certificates that a chain can lead through, and the names that it can lead to.
pub(crate) struct Walk<'a> {
    pub(crate) intermediates: Few<CertificateDer<'a>, MAX_INTERMEDIATES>,
    pub(crate) issuers: Few<&'a [u8], MAX_NAMES>,
}

impl<'a> Walk<'a> {
    pub(crate) fn from<'b: 'a>(
        issuer: &'a [u8],
        intermediates: impl Iterator<Item = &'b [u8]> + Clone,
    ) -> Result<Self, Error> {
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
pub(crate) struct Few<T, const MOST: usize> {
    places: [T; MOST],
    taken: usize,
}

impl<T: Clone, const MOST: usize> Few<T, MOST> {
    /// None yet; `free` stands in the places that are free.
    pub(crate) fn new(free: T) -> Self {
        Self {
            places: std::array::from_fn(|_| free.clone()),
            taken: 0,
        }
    }

    /// Whether there was a place for it.
    pub(crate) fn push(&mut self, item: T) -> bool {
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
