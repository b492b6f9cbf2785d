//! What keydir itself must know of a certificate: names, dates, and whether it is a CA.

use std::time::{Duration, SystemTime};

use keydir::{Fingerprint, Piece, Unusable};
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::{Validity, X509Certificate, X509CertificateParser};
use x509_parser::extensions::ParsedExtension;
use x509_parser::nom::Parser;
use x509_parser::oid_registry::OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER;
use x509_parser::prelude::{AuthorityKeyIdentifier, FromDer};
use x509_parser::x509::X509Version;

/// A certificate, read.
pub(crate) struct Certificate<'a> {
    der: &'a [u8],
    parsed: X509Certificate<'a>,
}

impl<'a> Certificate<'a> {
    pub(crate) fn read(der: &'a CertificateDer<'_>) -> Result<Self, Unusable> {
        Self::read_by(X509CertificateParser::new(), der)
    }

    /// For names and dates alone: what is inside of the extensions, a third of the work, is not looked at.
    pub(crate) fn read_outline(der: &'a CertificateDer<'_>) -> Result<Self, Unusable> {
        Self::read_by(X509CertificateParser::new().with_deep_parse_extensions(false), der)
    }

    fn read_by(mut parser: X509CertificateParser, der: &'a [u8]) -> Result<Self, Unusable> {
        match parser.parse(der) {
            Ok(([], parsed)) => Ok(Self { der, parsed }),
            _ => Err(Unusable::new(
                "bad-certificate",
                "it holds a certificate that cannot be read",
            )),
        }
    }

    /// The issuer's name as it is encoded; names are equal if these bytes are.
    pub(crate) fn issuer(&self) -> &[u8] {
        self.parsed.issuer().as_raw()
    }

    /// The subject's name, likewise.
    pub(crate) fn subject(&self) -> &[u8] {
        self.parsed.subject().as_raw()
    }

    /// The certificate as something with dates of its own.
    pub(crate) fn piece(&self) -> Result<Piece, Unusable> {
        let validity = self.parsed.validity();
        let not_before = system_time(validity.not_before.timestamp());
        let not_after = system_time(validity.not_after.timestamp());
        match (not_before, not_after) {
            (Some(not_before), Some(not_after)) if not_before <= not_after => Ok(Piece {
                fingerprint: Fingerprint::of(self.der),
                not_before,
                not_after,
            }),
            _ => Err(Unusable::new(
                "validity",
                "it holds a certificate whose validity ends before it begins",
            )),
        }
    }

    /// What the certificate allows as a CA, or why it is none (convention, section 5).
    pub(crate) fn authority(&self) -> Result<Authority, &'static str> {
        const TWICE: &str = "it has an extension twice, or one that cannot be read";
        if self.parsed.version() != X509Version::V3 {
            return Err("it is not of version 3");
        }
        let constraints = self.parsed.basic_constraints().map_err(|_| TWICE)?;
        let constraints = constraints
            .filter(|constraints| constraints.value.ca)
            .ok_or("its basicConstraints do not say CA:TRUE")?;
        let usage = self.parsed.key_usage().map_err(|_| TWICE)?;
        if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
            return Err("its keyUsage lacks keyCertSign");
        }
        let purposes = self.parsed.extended_key_usage().map_err(|_| TWICE)?;
        let purposes = purposes.map(|purposes| purposes.value);
        Ok(Authority {
            path_length: constraints.value.path_len_constraint,
            servers: purposes.is_none_or(|purposes| purposes.any || purposes.server_auth),
            clients: purposes.is_none_or(|purposes| purposes.any || purposes.client_auth),
            key_id: self.subject_key_id(),
        })
    }

    fn subject_key_id(&self) -> Option<Vec<u8>> {
        self.parsed
            .iter_extensions()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            })
    }
}

/// What a CA certificate says about the certificates under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authority {
    /// How many intermediate CAs may stand between it and a leaf.
    pub(crate) path_length: Option<u32>,
    /// Whether servers may be certified.
    pub(crate) servers: bool,
    /// Whether clients may be certified.
    pub(crate) clients: bool,
    pub(crate) key_id: Option<Vec<u8>>,
}

/// The first and the last second of a certificate's validity, since 1970. `None` if it cannot be read.
///
/// This runs in handshakes, after webpki has read the same certificate: what comes before the dates is stepped over.
pub(crate) fn validity(der: &[u8]) -> Option<(u64, u64)> {
    let (_issuer, rest) = step(from_issuer(der)?)?;
    let (_, validity) = Validity::from_der(rest).ok()?;
    let not_before = validity.not_before.timestamp().try_into().unwrap_or(0);
    let not_after = validity.not_after.timestamp().try_into().ok()?;
    Some((not_before, not_after))
}

/// The issuer and the subject of a certificate that webpki can read, as webpki tells them: without their headers.
pub(crate) fn names(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (issuer, rest) = step(from_issuer(der)?)?;
    let (_validity, rest) = step(rest)?;
    let (subject, _) = step(rest)?;
    Some((issuer, subject))
}

/// A certificate from its issuer's name on.
fn from_issuer(der: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = step(der)?;
    let (mut rest, _) = step(certificate)?;
    // Version, serial number, signature algorithm.
    for _ in 0..3 {
        (_, rest) = step(rest)?;
    }
    Some(rest)
}

/// The content of the first element in some DER, and what follows it.
pub(crate) fn step(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match header[1] {
        short @ 0..=0x7f => (usize::from(short), rest),
        long @ 0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// The first element in some DER as a whole, and what follows it.
pub(crate) fn raw_of_first(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, rest) = step(der)?;
    der.split_at_checked(der.len().checked_sub(rest.len())?)
}

/// The subjectKeyIdentifier of a certificate, if it can be read and has one.
pub(crate) fn subject_key_id(der: &CertificateDer<'_>) -> Option<Vec<u8>> {
    Certificate::read(der).ok()?.subject_key_id()
}

/// Whether a CA may sign CRLs (RFC 5280, section 4.2.1.3): its keyUsage, if it has one, has cRLSign.
pub(crate) fn may_sign_crls(der: &CertificateDer<'_>) -> bool {
    let Ok(certificate) = Certificate::read(der) else {
        return false;
    };
    let usage = certificate.parsed.key_usage();
    usage.is_ok_and(|usage| usage.is_none_or(|usage| usage.value.crl_sign()))
}

/// Which of the keys of its issuer's name has signed a certificate, as far as it says.
pub(crate) fn authority_key_id<'a>(der: &'a CertificateDer<'_>) -> Option<&'a [u8]> {
    let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
    let (_, certificate) = parser.parse(der).ok()?;
    let oid = OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER;
    let extension = certificate.get_extension_unique(&oid).ok()??;
    let (_, id) = AuthorityKeyIdentifier::from_der(extension.value).ok()?;
    id.key_identifier.map(|id| id.0)
}

fn system_time(seconds: i64) -> Option<SystemTime> {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use webpki::EndEntityCert;

    use super::*;

    fn certificate(from: i32, to: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 12, 31);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn the_dates_that_are_stepped_to_are_those_that_are_read() {
        // In both of the forms of X.509: two digits of the year until 2049.
        for (from, to) in [(1975, 2030), (2026, 2049), (2049, 2050), (1969, 2000), (2051, 9998)] {
            let der = certificate(from, to);
            let piece = Certificate::read(&der).unwrap().piece().unwrap();
            let seconds = |time: SystemTime| {
                let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH);
                since_1970.map_or(0, |duration| duration.as_secs())
            };
            let expected = (seconds(piece.not_before), seconds(piece.not_after));
            assert_eq!(validity(&der), Some(expected), "{from} {to}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..60), at in any::<prop::sample::Index>(), bits in any::<u8>()
        ) {
            let _ = (validity(&bytes), names(&bytes));
            thread_local!(static DER: Vec<u8> = certificate(2020, 2030).to_vec());
            let mut der = DER.with(Clone::clone);
            let at = at.index(der.len());
            der[at] ^= bits;
            let _ = validity(&der);
            let _ = (validity(&der[..at]), names(&der[..at]));
            let der = CertificateDer::from(der);
            if let Ok(read) = EndEntityCert::try_from(&der) {
                prop_assert_eq!(names(&der), Some((read.issuer(), read.subject())));
            }
            let _ = authority_key_id(&der);
            let (read, outline) = (Certificate::read(&der), Certificate::read_outline(&der));
            prop_assert_eq!(read.is_ok(), outline.is_ok());
            let _ = outline.map(|outline| outline.piece());
            let _ = read.map(|read| (read.piece(), read.authority()));
        }
    }
}
