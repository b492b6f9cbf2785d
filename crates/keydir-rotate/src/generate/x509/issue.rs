//! What a CA issues: leaves, and CAs below it.

use std::time::SystemTime;

use keydir::{RevisionId, Secret};
use rcgen::{CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};

use super::ca::{base, params};
use super::cross::path_len_below;
use super::dates::Dates;
use super::{Ca, Certificate, subject};
use crate::generate::pair::PrivateKey;
use crate::generate::{CaProfile, Error, LeafProfile, LeafUsage};

/// A leaf with its chain and its key: one revision of a TLS identity.
#[derive(Debug)]
#[non_exhaustive]
pub struct Issued {
    /// The part `crt`, PEM: the leaf, then CAs up to the root, which is left out.
    pub crt: String,
    /// The part `key`: PKCS#8, PEM.
    pub key: Secret,
    /// The leaf, with its dates and serial number.
    pub certificate: Certificate,
}

impl Ca {
    /// A new key, and a leaf for it: digitalSignature, serverAuth and clientAuth as the profile says, no CA. It is
    /// valid from five minutes before `now` for the life of the profile, but never outside of the issuer's own
    /// validity.
    ///
    /// # Errors
    /// [`Error::Impossible`] if the profile is; [`Error::NotYetValid`], [`Error::Expired`] and [`Error::EndsTooSoon`]
    /// by the dates of this CA.
    pub fn issue(&self, profile: &LeafProfile, now: SystemTime) -> Result<Issued, Error> {
        profile.check()?;
        let dates = Dates::below(self.certificate(), now, profile.life)?;
        let params = leaf(profile, dates)?;
        let key = PrivateKey::generate(profile.algorithm)?;
        let certificate = self.sign(&params, &key)?;
        let above = self.above();
        let all = std::iter::once(&certificate).chain(&above);
        Ok(Issued {
            crt: all.map(Certificate::pem).collect(),
            key: key.pem().clone(),
            certificate,
        })
    }

    /// A new CA below this one, such as an issuing CA below a root whose key is seldom used. Its leaves send its
    /// certificate along. Consumers trust the root alone.
    ///
    /// # Errors
    /// As [`issue`](Self::issue); [`Error::PathLen`] if this CA's pathLen leaves no room, or less than the profile asks
    /// for; [`Error::SameSubject`] if it would have this CA's name, or that of one above.
    pub fn issue_ca(&self, profile: &CaProfile, id: &RevisionId, now: SystemTime) -> Result<Self, Error> {
        profile.check()?;
        let subject = subject::of_revision(&profile.name, id)?;
        let dates = Dates::below(self.certificate(), now, profile.life)?;
        let path_len = path_len_below(self.certificate().path_len()?, profile.path_len)?;
        let params = params(subject, path_len, dates)?;
        let key = PrivateKey::generate(profile.algorithm)?;
        let certificate = self.sign(&params, &key)?;
        let mut above = std::iter::once(self.certificate()).chain(&self.chain);
        if above.any(|ca| certificate.subject() == ca.subject() || certificate.subject() == ca.issuer()) {
            return Err(Error::SameSubject);
        }
        Self::with(certificate, self.above(), key)
    }
}

fn leaf(profile: &LeafProfile, dates: Dates) -> Result<CertificateParams, Error> {
    let empty = DistinguishedName::new;
    let mut params = base(
        profile.common_name.as_deref().map_or_else(empty, subject::common_name),
        dates,
    )?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let usage = profile.usage.iter().map(|usage| match usage {
        LeafUsage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        LeafUsage::Client => ExtendedKeyUsagePurpose::ClientAuth,
    });
    params.extended_key_usages = usage.collect();
    let names = &mut params.subject_alt_names;
    for name in &profile.dns {
        let name = name.as_str().try_into();
        names.push(SanType::DnsName(
            name.map_err(|_| Error::impossible("dns", "it is not ASCII"))?,
        ));
    }
    names.extend(profile.ip.iter().copied().map(SanType::IpAddress));
    for uri in profile.uri.iter().chain(&profile.spiffe) {
        let uri = uri.as_str().try_into();
        names.push(SanType::URI(
            uri.map_err(|_| Error::impossible("uri", "it is not ASCII"))?,
        ));
    }
    Ok(params)
}
