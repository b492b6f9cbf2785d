//! Lists of what was revoked.

use std::time::{Duration, SystemTime};

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::dates::seconds;
use super::{Ca, Serial};
use crate::generate::pair::crypto;
use crate::generate::{Error, pem};

/// A certificate that its CA has revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Its serial number.
    pub serial: Serial,
    /// Since when.
    pub since: SystemTime,
}

impl Ca {
    /// The part `crl` beside this CA's certificate, PEM: a full list of what it has revoked. An empty one is no less
    /// needed: where CRLs are checked, leaves of a CA without one are refused.
    ///
    /// `number` has to grow from list to list. A new list has to be out before `next_update`; while leaves are valid
    /// that it may revoke, the key of this CA is needed.
    ///
    /// # Errors
    /// If `next_update` does not lie after `this_update`, or this CA may not sign CRLs.
    ///
    /// ```
    /// use keydir_rotate::generate::{Ca, CaProfile, Revoked};
    /// # use std::time::{Duration, UNIX_EPOCH};
    /// # let day = Duration::from_secs(86_400);
    /// # let now = UNIX_EPOCH + 20_000 * day;
    /// let ca = Ca::create(&CaProfile::new("mesh", 90 * day), &"r1".parse()?, now)?;
    /// let stolen = Revoked { serial: "0c0ffee0".parse()?, since: now };
    /// let crl = ca.crl(&[stolen], 1, now, now + 7 * day)?;
    /// assert!(crl.starts_with("-----BEGIN X509 CRL-----"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn crl(
        &self,
        revoked: &[Revoked],
        number: u64,
        this_update: SystemTime,
        next_update: SystemTime,
    ) -> Result<String, Error> {
        let (this, next) = (seconds(this_update)?, seconds(next_update)?);
        if next <= this {
            return Err(Error::impossible("next_update", "it does not lie after this_update"));
        }
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let revoked = revoked.iter().map(|revoked| {
            Ok(RevokedCertParams {
                serial_number: revoked.serial.to_rcgen(),
                revocation_time: epoch + Duration::from_secs(seconds(revoked.since)?),
                reason_code: None,
                invalidity_date: None,
            })
        });
        let params = CertificateRevocationListParams {
            this_update: epoch + Duration::from_secs(this),
            next_update: epoch + Duration::from_secs(next),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect::<Result<_, Error>>()?,
            // rcgen takes the issuer's key identifier from here, also where the CA was made by others and has another.
            key_identifier_method: KeyIdMethod::PreSpecified(self.certificate().key_id().unwrap_or_default().to_vec()),
        };
        let crl = params.signed_by(&self.issuer).map_err(crypto)?;
        let written = CertificateRevocationList::from_der(crl.der());
        if written.is_ok_and(|(_, crl)| crl.issuer().as_raw() == self.certificate().subject()) {
            Ok(pem::encode("X509 CRL", crl.der()).to_string())
        } else {
            Err(Error::Subject)
        }
    }
}
