//! Cross-certificates, and how far below a CA others may stand.

use std::time::SystemTime;

use rcgen::KeyIdMethod;

use super::ca::params;
use super::dates::Dates;
use super::{Ca, subject};
use crate::generate::Error;

impl Ca {
    /// Vouches for `other`, a root: its leaves from now on, and CAs that it issues, send a cross-certificate along
    /// (subject and key of `other`, issued by this CA), so that whoever trusts this CA alone accepts them.
    /// [`crt`](Ca::crt) of `other` holds it.
    ///
    /// It has a price: as long as this CA is trusted, taking `other` out of trust does not shut its leaves out.
    /// Rotation needs no cross-certificate where every consumer is asked before a CA is used.
    ///
    /// # Errors
    /// [`Error::PathLen`] if this CA's pathLen leaves no room: OpenSSL, Go and GnuTLS would refuse the chain, webpki
    /// would not. [`Error::NotARoot`]: of two certificates of an issuing CA, OpenSSL tries the first only.
    /// [`Error::SameSubject`]; [`Error::NotYetValid`] and [`Error::Expired`] by the dates of either.
    ///
    /// ```
    /// use keydir_rotate::generate::{Ca, CaProfile};
    /// # use std::time::{Duration, UNIX_EPOCH};
    /// # let day = Duration::from_secs(86_400);
    /// # let now = UNIX_EPOCH + 20_000 * day;
    /// let profile = CaProfile::new("mesh", 90 * day);
    /// let old = Ca::create(&profile, &"r1".parse()?, now)?;
    /// let mut new = Ca::create(&profile, &"r2".parse()?, now)?;
    /// old.cross_sign(&mut new, now)?;
    /// assert_eq!(new.crt().matches("BEGIN CERTIFICATE").count(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cross_sign(&self, other: &mut Self, now: SystemTime) -> Result<(), Error> {
        let theirs = other.certificate();
        if !theirs.is_self_signed() {
            return Err(Error::NotARoot);
        }
        if theirs.subject() == self.certificate().subject() {
            return Err(Error::SameSubject);
        }
        let dates = Dates::of_both(self.certificate(), theirs, now)?;
        let path_len = path_len_below(self.certificate().path_len()?, theirs.path_len()?)?;
        let mut params = params(subject::from_der(theirs.subject())?, path_len, dates)?;
        params.key_identifier_method = KeyIdMethod::PreSpecified(theirs.key_id().unwrap_or_default().to_vec());
        let cross = self.sign(&params, other.issuer.key())?;
        if cross.subject() != theirs.subject() {
            return Err(Error::Subject);
        }
        other.chain.push(cross);
        other.chain.extend(self.above());
        Ok(())
    }
}

/// The pathLen of a CA below one with `issuer`, which wants `wanted` for itself; none: unlimited.
pub(super) fn path_len_below(issuer: Option<u8>, wanted: Option<u8>) -> Result<Option<u8>, Error> {
    let Some(issuer) = issuer else { return Ok(wanted) };
    let most = issuer.checked_sub(1).ok_or(Error::PathLen)?;
    match wanted {
        Some(wanted) if wanted > most => Err(Error::PathLen),
        wanted => Ok(Some(wanted.unwrap_or(most))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_below_or_not() {
        for (issuer, wanted, expected) in [
            (None, None, Ok(None)),
            (None, Some(3), Ok(Some(3))),
            (Some(0), None, Err(Error::PathLen)),
            (Some(0), Some(0), Err(Error::PathLen)),
            (Some(1), None, Ok(Some(0))),
            (Some(1), Some(0), Ok(Some(0))),
            (Some(1), Some(1), Err(Error::PathLen)),
            (Some(3), Some(1), Ok(Some(1))),
        ] {
            assert_eq!(path_len_below(issuer, wanted), expected, "{issuer:?} {wanted:?}");
        }
    }
}
