//! Subjects of CAs.

use keydir::RevisionId;
use rcgen::{DistinguishedName, DnType, DnValue};
use x509_parser::asn1_rs::Tag;
use x509_parser::prelude::{FromDer, X509Name};

use crate::generate::{Error, names};

/// `CN=<name> <revision id>`: of its own for each revision, so that chains are told apart by name where a program
/// looks no further, as OpenSSL and GnuTLS without authorityKeyIdentifier, and rustls for CRLs.
pub(crate) fn of_revision(name: &str, id: &RevisionId) -> Result<DistinguishedName, Error> {
    let name = format!("{name} {id}");
    names::common_name("name", &name)?;
    Ok(common_name(&name))
}

pub(crate) fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// As rcgen writes it again. What it cannot write as it stands (an attribute that is there twice, rare kinds of
/// strings) is found by comparing what was issued.
pub(crate) fn from_der(name: &[u8]) -> Result<DistinguishedName, Error> {
    let (_, name) = X509Name::from_der(name).map_err(|_| Error::Subject)?;
    let mut subject = DistinguishedName::new();
    for attribute in name.iter_attributes() {
        let oid: Vec<u64> = attribute.attr_type().iter().ok_or(Error::Subject)?.collect();
        let text = attribute.as_str().map_err(|_| Error::Subject)?;
        let value = match attribute.attr_value().header.tag() {
            Tag::Utf8String => DnValue::Utf8String(text.to_owned()),
            Tag::PrintableString => DnValue::PrintableString(text.try_into().map_err(|_| Error::Subject)?),
            Tag::Ia5String => DnValue::Ia5String(text.try_into().map_err(|_| Error::Subject)?),
            _ => return Err(Error::Subject),
        };
        subject.push(DnType::from_oid(&oid), value);
    }
    Ok(subject)
}
