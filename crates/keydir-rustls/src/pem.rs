//! PEM, read strictly (convention, section 5): what is not understood makes the revision unusable, so that a file
//! which was cut, joined badly or mixed up is never taken for a smaller one.

use keydir::Unusable;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};

/// All certificates of a part that holds nothing else; at least one.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    Ok(all(pem, "CERTIFICATE")?.into_iter().map(CertificateDer::from).collect())
}

/// All certificate revocation lists of a part that holds nothing else, in DER; at least one.
pub(crate) fn crls(pem: &[u8]) -> Result<Vec<Vec<u8>>, PemError> {
    all(pem, "X509 CRL")
}

fn all(pem: &[u8], wanted: &'static str) -> Result<Vec<Vec<u8>>, PemError> {
    let mut all = Vec::new();
    for block in blocks(pem)? {
        if block.label != wanted.as_bytes() {
            return Err(PemError::foreign(block.label));
        }
        all.push(block.decode()?);
    }
    if all.is_empty() {
        return Err(PemError::Empty { wanted });
    }
    Ok(all)
}

/// The only private key of a part: PKCS#8, SEC1 or PKCS#1, without a passphrase.
pub(crate) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    let mut key = None;
    for block in blocks(pem)? {
        // What `openssl ecparam -genkey` writes before the key; the key repeats it.
        if block.label == b"EC PARAMETERS" && key.is_none() {
            continue;
        }
        if block.encrypted {
            return Err(PemError::Encrypted);
        }
        let next = match block.label {
            b"PRIVATE KEY" => PrivateKeyDer::from(PrivatePkcs8KeyDer::from(block.decode()?)),
            b"EC PRIVATE KEY" => PrivateKeyDer::from(PrivateSec1KeyDer::from(block.decode()?)),
            b"RSA PRIVATE KEY" => PrivateKeyDer::from(PrivatePkcs1KeyDer::from(block.decode()?)),
            b"ENCRYPTED PRIVATE KEY" => return Err(PemError::Encrypted),
            label => return Err(PemError::foreign(label)),
        };
        if key.replace(next).is_some() {
            return Err(PemError::SeveralKeys);
        }
    }
    key.ok_or(PemError::Empty { wanted: "PRIVATE KEY" })
}

/// Why a part is not the PEM that its use wants. Holds no byte of a block's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PemError {
    Empty { wanted: &'static str },
    Foreign { label: String },
    SeveralKeys,
    Encrypted,
    NoEnd { begin: usize },
    NoBegin { line: usize },
    Boundary { line: usize },
    Body { line: usize },
}

impl PemError {
    fn foreign(label: &[u8]) -> Self {
        // A label is public by its nature, but what stands there may be anything: only what is usual in one is shown.
        let label = label.iter().take(40).map(|b| match b {
            b'A'..=b'Z' | b'0'..=b'9' | b' ' => char::from(*b),
            _ => '?',
        });
        Self::Foreign { label: label.collect() }
    }

    /// As a reason for which a revision cannot be used.
    pub(crate) fn in_part(&self, part: &str) -> Unusable {
        let (code, reason) = match self {
            Self::Empty { wanted } => ("no-pem", format!("it has no PEM block {wanted}")),
            Self::Foreign { label } => (
                "foreign-pem",
                format!("it holds a PEM block {label:?}, which does not belong there"),
            ),
            Self::SeveralKeys => ("several-keys", "it holds more than one private key".into()),
            Self::Encrypted => (
                "encrypted-key",
                "its private key is encrypted; store it without a passphrase".into(),
            ),
            Self::NoEnd { begin } => (
                "bad-pem",
                format!("the PEM block that begins in line {begin} has no end"),
            ),
            Self::NoBegin { line } => ("bad-pem", format!("line {line} ends a PEM block that has no begin")),
            Self::Boundary { line } => (
                "bad-pem",
                format!("line {line} is neither the begin nor the end of a PEM block, though it looks like one"),
            ),
            Self::Body { line } => (
                "bad-pem",
                format!("the PEM block that begins in line {line} is not base64"),
            ),
        };
        Unusable::new(code, reason).part(part)
    }
}

/// One block, its body not yet decoded.
struct Block<'a> {
    label: &'a [u8],
    /// Both boundaries included.
    text: &'a [u8],
    line: usize,
    encrypted: bool,
}

impl Block<'_> {
    /// The structure was checked here; the base64 is left to rustls, which decodes private keys in constant time.
    fn decode(&self) -> Result<Vec<u8>, PemError> {
        let (_, der) =
            <(SectionKind, Vec<u8>)>::from_pem_slice(self.text).map_err(|_| PemError::Body { line: self.line })?;
        if der.is_empty() {
            return Err(PemError::Body { line: self.line });
        }
        Ok(der)
    }
}

fn blocks(pem: &[u8]) -> Result<Vec<Block<'_>>, PemError> {
    let mut blocks = Vec::new();
    let mut open: Option<Open<'_>> = None;
    let mut rest = pem;
    let mut number = 0;
    while !rest.is_empty() {
        let start = rest;
        let length = rest.iter().position(|b| *b == b'\n');
        let (line, after) = rest.split_at(length.map_or(rest.len(), |at| at + 1));
        rest = after;
        number += 1;
        let line = line.trim_ascii_end();

        match (boundary(line), open.as_mut()) {
            (Boundary::Begin(label), None) => {
                open = Some(Open {
                    label,
                    text: start,
                    line: number,
                    encrypted: false,
                    body: false,
                    padded: false,
                });
            }
            (Boundary::Begin(_), Some(block)) => {
                return Err(PemError::NoEnd { begin: block.line });
            }
            (Boundary::End(label), Some(block)) if label == block.label => {
                let taken = block.text.len() - rest.len();
                blocks.push(Block {
                    label,
                    text: block.text.split_at(taken).0,
                    line: block.line,
                    encrypted: block.encrypted,
                });
                open = None;
            }
            (Boundary::End(_), Some(block)) => return Err(PemError::NoEnd { begin: block.line }),
            (Boundary::End(_), None) => return Err(PemError::NoBegin { line: number }),
            (Boundary::Malformed, _) => return Err(PemError::Boundary { line: number }),
            (Boundary::None, Some(block)) => block.body_line(line)?,
            (Boundary::None, None) => {}
        }
    }
    match open {
        Some(block) => Err(PemError::NoEnd { begin: block.line }),
        None => Ok(blocks),
    }
}

/// A block whose end was not yet seen.
struct Open<'a> {
    label: &'a [u8],
    text: &'a [u8],
    line: usize,
    encrypted: bool,
    body: bool,
    padded: bool,
}

impl Open<'_> {
    /// Headers (RFC 1421) are understood only as far as they say that a key is encrypted.
    fn body_line(&mut self, line: &[u8]) -> Result<(), PemError> {
        if !self.body && line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED") {
            self.encrypted = true;
        }
        if self.encrypted || line.is_empty() {
            return Ok(());
        }
        self.body = true;
        let (data, padded) = match line {
            [data @ .., b'=', b'='] | [data @ .., b'='] => (data, true),
            data => (data, false),
        };
        let fine = !self.padded && is_base64(data);
        self.padded |= padded;
        if fine {
            Ok(())
        } else {
            Err(PemError::Body { line: self.line })
        }
    }
}

/// Without a branch for each byte, so that it is done many bytes at a time, and the time does not tell of what.
fn is_base64(data: &[u8]) -> bool {
    data.iter().fold(true, |fine, b| {
        fine & (b.is_ascii_uppercase() | b.is_ascii_lowercase() | b.is_ascii_digit() | (*b == b'+') | (*b == b'/'))
    })
}

enum Boundary<'a> {
    Begin(&'a [u8]),
    End(&'a [u8]),
    /// Two blocks joined without a line end between them, a mutilated line.
    Malformed,
    None,
}

fn boundary(line: &[u8]) -> Boundary<'_> {
    let (rest, begins) = if let Some(rest) = line.strip_prefix(b"-----BEGIN") {
        (rest, true)
    } else if let Some(rest) = line.strip_prefix(b"-----END") {
        (rest, false)
    } else {
        return Boundary::None;
    };
    let label = rest
        .strip_prefix(b" ")
        .and_then(|rest| rest.strip_suffix(b"-----"))
        .filter(|label| !label.is_empty() && !label.contains(&b'-'));
    match label {
        Some(label) if begins => Boundary::Begin(label),
        Some(label) => Boundary::End(label),
        None => Boundary::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n";

    fn key(label: &str) -> String {
        format!("-----BEGIN {label}-----\nAAEC\nAwQ=\n-----END {label}-----\n")
    }

    #[test]
    fn certificates_are_taken_in_order_and_text_between_is_passed_over() {
        let two = "-----BEGIN CERTIFICATE-----\r\nAwQF\r\n-----END CERTIFICATE-----\r\n";
        let pem = format!("subject=CN = a\n{ONE}\n---\n# \u{e9}\n{two}end");
        let read: Vec<_> = certificates(pem.as_bytes())
            .unwrap()
            .iter()
            .map(|der| der.to_vec())
            .collect();
        assert_eq!(read, [vec![0, 1, 2], vec![3, 4, 5]]);
    }

    #[test]
    fn a_certificate_part_that_is_not_strictly_one_is_refused() {
        let joined = ONE.trim_end().to_owned() + ONE;
        for (pem, expected) in [
            ("", "it has no PEM block CERTIFICATE"),
            ("only text", "it has no PEM block CERTIFICATE"),
            (
                &key("PRIVATE KEY"),
                "it holds a PEM block \"PRIVATE KEY\", which does not belong there",
            ),
            (
                &(ONE.to_owned() + &key("x509 \u{1}")),
                "it holds a PEM block \"?509 ?\", which does not belong there",
            ),
            (
                &ONE[..ONE.len() - 3],
                "line 3 is neither the begin nor the end of a PEM block, though it looks like one",
            ),
            (&ONE[..33], "the PEM block that begins in line 1 has no end"),
            (&ONE[30..], "line 2 ends a PEM block that has no begin"),
            (
                &joined,
                "line 3 is neither the begin nor the end of a PEM block, though it looks like one",
            ),
            (
                &ONE.replace("AAEC", "AA=C"),
                "the PEM block that begins in line 1 is not base64",
            ),
            (
                &ONE.replace("AAEC", "AA==\nAA=="),
                "the PEM block that begins in line 1 is not base64",
            ),
            (
                &ONE.replace("AAEC", "AA-_"),
                "the PEM block that begins in line 1 is not base64",
            ),
            (
                &ONE.replace("AAEC", ""),
                "the PEM block that begins in line 1 is not base64",
            ),
            (
                &ONE.replace("END CERTIFICATE", "END PRIVATE KEY"),
                "the PEM block that begins in line 1 has no end",
            ),
        ] {
            let error = certificates(pem.as_bytes()).unwrap_err().in_part("crt");
            assert_eq!(error.to_string(), format!("part crt: {expected}"), "{pem}");
        }
    }

    #[test]
    fn a_key_part_holds_one_key_in_any_of_three_forms() {
        for label in ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"] {
            let parameters = key("EC PARAMETERS");
            for pem in [key(label), parameters + &key(label)] {
                let read = private_key(pem.as_bytes()).unwrap();
                assert_eq!(read.secret_der(), [0, 1, 2, 3, 4], "{label}");
            }
        }
    }

    #[test]
    fn a_key_part_with_anything_else_is_refused() {
        let plain = key("PRIVATE KEY");
        let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAEC\n-----END RSA PRIVATE KEY-----\n";
        for (pem, code) in [
            (plain.clone() + &plain, "several-keys"),
            (plain.clone() + &key("EC PARAMETERS"), "foreign-pem"),
            (plain.clone() + ONE, "foreign-pem"),
            (key("ENCRYPTED PRIVATE KEY"), "encrypted-key"),
            (legacy.to_owned(), "encrypted-key"),
            (key("PUBLIC KEY"), "foreign-pem"),
            (key("EC PARAMETERS"), "no-pem"),
            (String::new(), "no-pem"),
        ] {
            let error = private_key(pem.as_bytes()).unwrap_err().in_part("key");
            assert_eq!(error.code(), code, "{pem}");
        }
    }

    #[test]
    fn a_crl_part_holds_crls_and_nothing_else() {
        let one = key("X509 CRL");
        assert_eq!(crls((one.clone() + "text\n" + &one).as_bytes()).unwrap().len(), 2);
        for (pem, code) in [
            (String::new(), "no-pem"),
            (ONE.to_owned(), "foreign-pem"),
            (one.clone() + ONE, "foreign-pem"),
            (key("CRL"), "foreign-pem"),
            (one[..one.len() - 4].to_owned(), "bad-pem"),
        ] {
            let error = crls(pem.as_bytes()).unwrap_err().in_part("crl");
            assert_eq!(error.code(), code, "{pem}");
        }
    }

    #[test]
    fn every_truncation_of_a_block_is_refused() {
        let text = ONE.trim_end();
        for length in 0..text.len() {
            assert!(certificates(&text.as_bytes()[..length]).is_err(), "{length}");
        }
        assert!(certificates(text.as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            lines in proptest::collection::vec(prop_oneof![
                Just(b"-----BEGIN CERTIFICATE-----".to_vec()),
                Just(b"-----END CERTIFICATE-----".to_vec()),
                Just(b"-----BEGIN PRIVATE KEY-----".to_vec()),
                Just(b"-----END PRIVATE KEY-----".to_vec()),
                Just(b"AAEC".to_vec()),
                proptest::collection::vec(any::<u8>(), 0..40),
            ], 0..12)
        ) {
            let pem = lines.join(&b'\n');
            let begins = lines.iter().filter(|line| line.starts_with(b"-----BEGIN CERT")).count();
            if let Ok(read) = certificates(&pem) {
                prop_assert_eq!(read.len(), begins);
            }
            let _ = private_key(&pem);
        }
    }
}
