//! Keys in PEM, one a part, read as strictly as section 5 of the convention wants.
//!
//! A line that begins like a boundary has to be one; the base64 between is left to rustls.

use keydir::Unusable;
use keydir_rustls::rustls::pki_types::pem::{PemObject, SectionKind};
use keydir_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

/// The only private key of a part: PKCS#8, SEC1 or PKCS#1, without a passphrase.
pub(crate) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Unusable> {
    let block = only_block(pem, true)?;
    match block.label.as_slice() {
        b"PRIVATE KEY" => Ok(PrivatePkcs8KeyDer::from(block.der()?).into()),
        b"EC PRIVATE KEY" => Ok(PrivateSec1KeyDer::from(block.der()?).into()),
        b"RSA PRIVATE KEY" => Ok(PrivatePkcs1KeyDer::from(block.der()?).into()),
        b"ENCRYPTED PRIVATE KEY" => Err(Unusable::new(
            "encrypted-key",
            "its private key is encrypted; store it without a passphrase",
        )),
        _ => Err(foreign("a private key")),
    }
}

/// The only public key of a part, as the DER of its SPKI.
pub(crate) fn public_key(pem: &[u8]) -> Result<Vec<u8>, Unusable> {
    let block = only_block(pem, false)?;
    if block.label != b"PUBLIC KEY" {
        return Err(foreign("a public key (PUBLIC KEY)"));
    }
    let der = block.der()?;
    match SubjectPublicKeyInfo::from_der(&der) {
        Ok(([], _)) => Ok(der),
        _ => Err(bad("its public key cannot be read")),
    }
}

struct Block<'a> {
    label: Vec<u8>,
    /// Both boundaries included.
    text: &'a [u8],
}

impl Block<'_> {
    fn der(&self) -> Result<Vec<u8>, Unusable> {
        match <(SectionKind, Vec<u8>)>::from_pem_slice(self.text) {
            Ok((_, der)) if !der.is_empty() => Ok(der),
            _ if self.text.windows(9).any(|window| window == b"ENCRYPTED") => Err(Unusable::new(
                "encrypted-key",
                "its private key is encrypted; store it without a passphrase",
            )),
            _ => Err(bad("its PEM block is not base64")),
        }
    }
}

/// The one block of a part. EC PARAMETERS are passed over where a private key may follow them.
fn only_block(pem: &[u8], private: bool) -> Result<Block<'_>, Unusable> {
    let mut found: Option<Block<'_>> = None;
    let mut open: Option<(usize, &[u8])> = None;
    let mut at = 0;
    for line in pem.split_inclusive(|byte| *byte == b'\n') {
        let start = at;
        at += line.len();
        let line = line.trim_ascii_end();
        let boundary = |prefix: &[u8]| -> Option<Option<&[u8]>> {
            let rest = line.strip_prefix(prefix)?;
            let label = rest.strip_prefix(b" ").and_then(|rest| rest.strip_suffix(b"-----"));
            Some(label.filter(|label| !label.is_empty() && !label.contains(&b'-')))
        };
        match (boundary(b"-----BEGIN"), boundary(b"-----END"), open) {
            (None, None, _) => {}
            (Some(Some(label)), None, None) => open = Some((start, label)),
            (None, Some(Some(label)), Some((begin, begun))) if label == begun => {
                open = None;
                if label == b"EC PARAMETERS" && private && found.is_none() {
                    continue;
                }
                let text = pem.get(begin..at).unwrap_or_default();
                let label = label.to_vec();
                if found.replace(Block { label, text }).is_some() {
                    return Err(Unusable::new("several-keys", "it holds more than one PEM block"));
                }
            }
            _ => return Err(bad("its PEM blocks do not begin and end as they should")),
        }
    }
    match found {
        _ if open.is_some() => Err(bad("its PEM block has no end")),
        Some(block) => Ok(block),
        None => Err(Unusable::new("no-pem", "it holds no key in PEM")),
    }
}

fn foreign(wanted: &str) -> Unusable {
    Unusable::new("foreign-pem", format!("its PEM block is not {wanted}"))
}

fn bad(reason: &str) -> Unusable {
    Unusable::new("bad-pem", reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(label: &str) -> String {
        format!("-----BEGIN {label}-----\nAAEC\n-----END {label}-----\n")
    }

    #[test]
    fn one_private_key_in_any_of_three_forms() {
        for label in ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"] {
            let pem = format!("text\n{}{}", block("EC PARAMETERS"), block(label));
            assert_eq!(private_key(pem.as_bytes()).unwrap().secret_der(), [0, 1, 2], "{label}");
        }
    }

    #[test]
    fn what_is_not_exactly_that_is_refused() {
        let key = block("PRIVATE KEY");
        for (pem, code) in [
            (String::new(), "no-pem"),
            ("\u{0}\u{1}garbage".to_owned(), "no-pem"),
            (block("EC PARAMETERS"), "no-pem"),
            (key.clone() + &key, "several-keys"),
            (key.clone() + &block("EC PARAMETERS"), "several-keys"),
            (block("PUBLIC KEY"), "foreign-pem"),
            (block("CERTIFICATE"), "foreign-pem"),
            (block("ENCRYPTED PRIVATE KEY"), "encrypted-key"),
            (key.replace("AAEC", "Proc-Type: 4,ENCRYPTED\n\nAAEC"), "encrypted-key"),
            (key.replace("AAEC", "A*EC"), "bad-pem"),
            (key.replace("-----END", "----END"), "bad-pem"),
            (key.replace("END PRIVATE", "END PUBLIC"), "bad-pem"),
            (key.trim_end().to_owned() + &key, "bad-pem"),
            (key[..30].to_owned(), "bad-pem"),
        ] {
            assert_eq!(private_key(pem.as_bytes()).unwrap_err().code(), code, "{pem}");
        }
        let parameters = block("EC PARAMETERS") + &block("PUBLIC KEY");
        assert_eq!(public_key(parameters.as_bytes()).unwrap_err().code(), "several-keys");
        assert_eq!(
            public_key(block("PUBLIC KEY").as_bytes()).unwrap_err().code(),
            "bad-pem"
        );
    }
}
