//! Certificate authorities.

use std::fmt;
use std::time::SystemTime;

use keydir::{RevisionId, Secret};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, PublicKeyData,
};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};

use super::dates::Dates;
use super::{Certificate, Serial, subject};
use crate::generate::pair::{PrivateKey, crypto};
use crate::generate::{CaProfile, Error};

/// A certificate authority with its private key: one revision of a CA directory. `Debug` shows nothing of the key.
///
/// Its certificate passes `openssl verify -x509_strict`: critical basicConstraints, keyUsage, subjectKeyIdentifier, and
/// authorityKeyIdentifier in all that it issues. Its key belongs in a directory of its own, which only the rotator
/// reads; [`certificate`](Self::certificate) is what goes into the directories of trust anchors.
///
/// ```
/// use keydir_rotate::generate::{Ca, CaProfile, LeafProfile, LeafUsage};
/// # use std::time::{Duration, UNIX_EPOCH};
/// # let day = Duration::from_secs(86_400);
/// # let now = UNIX_EPOCH + 20_000 * day;
///
/// let mut root = CaProfile::new("mesh root", 365 * day);
/// root.path_len = Some(1);
/// let root = Ca::create(&root, &"r1".parse()?, now)?;
///
/// let mut issuing = CaProfile::new("mesh", 90 * day);
/// issuing.path_len = Some(0);
/// let issuing = root.issue_ca(&issuing, &"r1".parse()?, now)?;
///
/// let mut api = LeafProfile::new([LeafUsage::Server, LeafUsage::Client], day);
/// api.dns = vec!["api.example.com".to_owned()];
/// let leaf = issuing.issue(&api, now)?;
/// assert!(issuing.certificate().is_issuer_of(&leaf.certificate));
///
/// // Kept as the parts `crt` and `key`, and read again.
/// let again = Ca::load(issuing.crt().as_bytes(), issuing.key())?;
///
/// // The issuing CA may issue leaves only.
/// assert!(again.issue_ca(&CaProfile::new("more", day), &"r1".parse()?, now).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Ca {
    certificate: Certificate,
    /// What is sent along with each leaf, beside `certificate`: CAs above, cross-certificates. No root.
    pub(super) chain: Vec<Certificate>,
    pub(super) issuer: Issuer<'static, PrivateKey>,
}

impl Ca {
    /// A new self-signed one, with the subject `CN=<name> <revision id>`, valid from five minutes before `now`.
    ///
    /// # Errors
    /// [`Error::Impossible`] if the profile is, or name and id together have more than 64 characters.
    pub fn create(profile: &CaProfile, id: &RevisionId, now: SystemTime) -> Result<Self, Error> {
        profile.check()?;
        let subject = subject::of_revision(&profile.name, id)?;
        let dates = Dates::own(now, profile.life)?;
        let key = PrivateKey::generate(profile.algorithm)?;
        let params = params(subject, profile.path_len, dates)?;
        let certificate = params.self_signed(&key).map_err(crypto)?;
        Self::with(Certificate::read(certificate.der())?, Vec::new(), key)
    }

    /// One that was made before, by this crate or by others: the parts `crt` (its certificate first, then what its
    /// leaves send along) and `key`.
    ///
    /// # Errors
    /// If it is no CA, lacks the subjectKeyIdentifier, or the key is another's; if a further certificate neither
    /// vouches for one before it nor has the key of one; and [`Error::Pem`], [`Error::Certificate`], [`Error::Key`].
    pub fn load(crt: &[u8], key: &Secret) -> Result<Self, Error> {
        let all = Certificate::all_from_pem(crt)?;
        let (certificate, rest) = all.split_first().ok_or(Error::Certificate("there is none"))?;
        let mut before = vec![certificate];
        for next in rest {
            next.path_len()?;
            if !before
                .iter()
                .any(|one| next.is_issuer_of(one) || next.spki() == one.spki())
            {
                return Err(Error::Certificate("it holds one that does not belong to the chain"));
            }
            before.push(next);
        }
        let chain = rest.iter().filter(|one| !one.is_self_signed()).cloned().collect();
        Self::with(certificate.clone(), chain, PrivateKey::load(key)?)
    }

    pub(super) fn with(certificate: Certificate, chain: Vec<Certificate>, key: PrivateKey) -> Result<Self, Error> {
        certificate.path_len()?;
        if certificate.key_id().is_none() {
            return Err(Error::NotACa("it has no subjectKeyIdentifier"));
        }
        let spki = SubjectPublicKeyInfo::from_der(certificate.spki());
        let own = spki.is_ok_and(|(_, spki)| *spki.subject_public_key.data == *key.der_bytes());
        if !own {
            return Err(Error::KeyMismatch);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate.der().into(), key).map_err(|_| Error::Subject)?;
        Ok(Self {
            certificate,
            chain,
            issuer,
        })
    }

    /// Its own certificate; of a self-signed one the trust anchor.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The part `crt` of a CA directory: its certificate, and what its leaves send along.
    ///
    /// Not for directories of trust anchors, where each certificate is trusted for itself.
    pub fn crt(&self) -> String {
        let all = std::iter::once(&self.certificate).chain(&self.chain);
        all.map(Certificate::pem).collect()
    }

    /// The part `key` of a CA directory, PEM.
    pub fn key(&self) -> &Secret {
        self.issuer.key().pem()
    }

    /// What follows a certificate that this CA has issued, up to the root, which whoever verifies has to have.
    pub(super) fn above(&self) -> Vec<Certificate> {
        let own = (!self.certificate.is_self_signed()).then_some(&self.certificate);
        own.into_iter().chain(&self.chain).cloned().collect()
    }

    /// Signs, and reads what was signed.
    pub(super) fn sign(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Result<Certificate, Error> {
        let signed = params.signed_by(key, &self.issuer).map_err(crypto)?;
        let signed = Certificate::read(signed.der())?;
        // A subject that rcgen has not written as it stands would lead nobody to us.
        if signed.issuer() != self.certificate.subject() {
            return Err(Error::Subject);
        }
        Ok(signed)
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca")
            .field("certificate", &self.certificate)
            .field("chain", &self.chain)
            .finish_non_exhaustive()
    }
}

/// Those of a CA.
pub(super) fn params(
    subject: DistinguishedName,
    path_len: Option<u8>,
    dates: Dates,
) -> Result<CertificateParams, Error> {
    let mut params = base(subject, dates)?;
    params.is_ca = IsCa::Ca(path_len.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// What all certificates have in common. The defaults of rcgen lack the authorityKeyIdentifier, and give two
/// certificates for one key the same serial number.
pub(super) fn base(subject: DistinguishedName, dates: Dates) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.serial_number = Some(Serial::random()?.to_rcgen());
    params.use_authority_key_identifier_extension = true;
    params.key_identifier_method = KeyIdMethod::Sha256;
    dates.set(&mut params);
    Ok(params)
}
