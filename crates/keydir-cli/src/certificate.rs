//! What other TLS libraries mind in a certificate that this one takes: cheap signs only, no verification.

use keydir_rustls::rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// What a strict reader minds.
pub(crate) fn strictly(der: &CertificateDer<'_>, is_anchor: bool) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        // What cannot be read at all is unusable, and was reported so.
        return Vec::new();
    };
    let mut found = Vec::new();
    let serial = certificate.raw_serial();
    if serial.first().is_some_and(|first| first & 0x80 != 0) {
        found.push("its serial number is negative: Go refuses it");
    } else if serial.iter().all(|byte| *byte == 0) {
        found.push("its serial number is 0: RFC 5280 wants a positive one");
    } else if serial.len() > 20 {
        found.push("its serial number has more than 20 bytes: RFC 5280 allows no more");
    }
    if matches!(certificate.public_key().parsed(), Ok(PublicKey::RSA(key)) if key.key_size() < 2048) {
        found.push("its RSA key has fewer than 2048 bits: OpenSSL refuses it at its usual security level");
    }
    if is_anchor {
        let constraints = certificate.basic_constraints().ok().flatten();
        if constraints.is_some_and(|constraints| !constraints.critical) {
            found.push(
                "its basicConstraints are not critical: strict readers (Python 3.13, openssl -x509_strict) refuse it",
            );
        }
        if certificate.key_usage().is_ok_and(|usage| usage.is_none()) {
            found.push("it has no keyUsage: strict readers (Python 3.13, openssl -x509_strict) refuse it");
        }
        if !has_key_id(&certificate) {
            found.push("it has no subjectKeyIdentifier: strict readers (Python 3.13, openssl -x509_strict) refuse it");
        }
    }
    found.into_iter().map(str::to_owned).collect()
}

/// The subject of an anchor, by which other libraries look it up.
pub(crate) fn subject(der: &CertificateDer<'_>) -> Option<(Vec<u8>, String)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    Some((subject.as_raw().to_vec(), subject.to_string()))
}

fn has_key_id(certificate: &X509Certificate<'_>) -> bool {
    let mut extensions = certificate.iter_extensions();
    extensions.any(|extension| matches!(extension.parsed_extension(), ParsedExtension::SubjectKeyIdentifier(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SerialNumber};

    #[test]
    fn serial_numbers() {
        for (serial, patched, expected) in [
            (&[0x11, 0x22, 0x33][..], 0x11, None),
            (&[0x11, 0x22, 0x33], 0x91, Some("negative")),
            (&[0x11; 21], 0x11, Some("more than 20")),
            (&[0], 0, Some("is 0")),
        ] {
            let mut params = CertificateParams::default();
            params.serial_number = Some(SerialNumber::from_slice(serial));
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            // No library writes a negative one: the sign is set afterwards.
            let mut der = certificate.der().to_vec();
            let at = der.windows(serial.len()).position(|window| window == serial).unwrap();
            if serial.len() > 1 {
                der[at] = patched;
            }
            let found = strictly(&CertificateDer::from(der), false);
            match expected {
                None => assert_eq!(found, [""; 0]),
                Some(expected) => assert!(found.iter().any(|found| found.contains(expected)), "{found:?}"),
            }
        }
        assert!(strictly(&CertificateDer::from(vec![0x30, 0]), true).is_empty());
    }
}
