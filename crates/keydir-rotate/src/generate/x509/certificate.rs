//! Certificates as they are read.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Version};

use super::Serial;
use crate::generate::{Error, pem};

/// A certificate, as far as a rotator has to know it.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    serial: Serial,
    not_before: SystemTime,
    not_after: SystemTime,
    /// Both names as they are encoded.
    subject: Vec<u8>,
    issuer: Vec<u8>,
    spki: Vec<u8>,
    /// subjectKeyIdentifier, authorityKeyIdentifier.
    key_id: Option<Vec<u8>>,
    authority: Option<Vec<u8>>,
    ca: Result<Option<u8>, &'static str>,
}

impl Certificate {
    /// The first certificate of a part such as `crt`: the leaf of an identity.
    ///
    /// # Errors
    /// As [`all_from_pem`](Self::all_from_pem).
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        let mut all = Self::all_from_pem(pem)?;
        Ok(all.swap_remove(0))
    }

    /// All certificates of a part, at least one.
    ///
    /// # Errors
    /// If the part holds none, or anything else, or one that cannot be read.
    pub fn all_from_pem(pem: &[u8]) -> Result<Vec<Self>, Error> {
        let blocks = pem::decode(pem)?;
        if blocks.is_empty() || blocks.iter().any(|block| block.label != "CERTIFICATE") {
            return Err(Error::Pem("it does not hold certificates and nothing else"));
        }
        blocks.iter().map(|block| Self::read(&block.der)).collect()
    }

    pub(crate) fn read(der: &[u8]) -> Result<Self, Error> {
        let Ok(([], read)) = X509Certificate::from_der(der) else {
            return Err(Error::Certificate("it cannot be read"));
        };
        let (mut key_id, mut authority) = (None, None);
        for extension in read.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => key_id = Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    authority = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                _ => {}
            }
        }
        let validity = read.validity();
        Ok(Self {
            der: der.to_vec(),
            serial: Serial::new(read.raw_serial()),
            not_before: system_time(validity.not_before)?,
            not_after: system_time(validity.not_after)?,
            subject: read.subject().as_raw().to_vec(),
            issuer: read.issuer().as_raw().to_vec(),
            spki: read.public_key().raw.to_vec(),
            key_id,
            authority,
            ca: path_len(&read),
        })
    }

    /// The first moment of its validity.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// The last moment of its validity, a whole second.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The serial number, which together with the issuer names it.
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// Whether `other` was signed with the key of this certificate: by authorityKeyIdentifier, where `other` has one,
    /// and by signature. Names say nothing: a CA may be renamed, and two may have one name. Dates are not looked at.
    pub fn is_issuer_of(&self, other: &Self) -> bool {
        if let (Some(wanted), Some(id)) = (&other.authority, &self.key_id)
            && wanted != id
        {
            return false;
        }
        let key = SubjectPublicKeyInfo::from_der(&self.spki);
        let other = X509Certificate::from_der(&other.der);
        matches!((key, other), (Ok((_, key)), Ok((_, other))) if other.verify_signature(Some(&key)).is_ok())
    }

    /// One block of PEM.
    pub fn pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.der).to_string()
    }

    /// Its DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    pub(crate) fn subject(&self) -> &[u8] {
        &self.subject
    }

    pub(crate) fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    pub(crate) fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The subjectKeyIdentifier.
    pub(crate) fn key_id(&self) -> Option<&[u8]> {
        self.key_id.as_deref()
    }

    /// The pathLen of a CA (none: unlimited), or why it is no CA.
    pub(crate) fn path_len(&self) -> Result<Option<u8>, Error> {
        self.ca.map_err(Error::NotACa)
    }

    pub(crate) fn is_self_signed(&self) -> bool {
        self.subject == self.issuer && self.is_issuer_of(self)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("serial", &format_args!("{}", self.serial))
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

fn path_len(read: &X509Certificate<'_>) -> Result<Option<u8>, &'static str> {
    const TWICE: &str = "it has an extension twice, or one that cannot be read";
    if read.version() != X509Version::V3 {
        return Err("it is not of version 3");
    }
    let constraints = read.basic_constraints().map_err(|_| TWICE)?;
    let constraints = constraints.filter(|constraints| constraints.value.ca);
    let constraints = constraints.ok_or("its basicConstraints do not say CA:TRUE")?;
    let usage = read.key_usage().map_err(|_| TWICE)?;
    if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err("its keyUsage lacks keyCertSign");
    }
    // More than 255 CAs in a chain are as good as any number.
    Ok(constraints
        .value
        .path_len_constraint
        .and_then(|length| length.try_into().ok()))
}

fn system_time(time: ASN1Time) -> Result<SystemTime, Error> {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let moment = match seconds {
        0.. => UNIX_EPOCH.checked_add(distance),
        _ => UNIX_EPOCH.checked_sub(distance),
    };
    moment.ok_or(Error::Certificate("it has a date that cannot be"))
}
