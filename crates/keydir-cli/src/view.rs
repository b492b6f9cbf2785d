//! One view for every use of the convention, so that the program can read any directory.
//!
//! The TLS uses are parsed by keydir-rustls; what a token or a password may be is the core's rule. For the others the
//! rules of section 5 stand here, as far as a program can judge them that does not know the algorithm of a key. Nothing
//! secret is kept.

use std::ops::Deref;
use std::sync::Arc;
use std::time::SystemTime;

use keydir::{Broken, Candidates, Parsed, Revision, Unusable, Usage, View};
use keydir_rustls::rustls::CipherSuiteCommon;
use keydir_rustls::rustls::SupportedCipherSuite;
use keydir_rustls::rustls::crypto::aws_lc_rs::default_provider;
use keydir_rustls::rustls::crypto::hash::HashAlgorithm;
use keydir_rustls::rustls::crypto::{CryptoProvider, hash};
use keydir_rustls::rustls::pki_types::CertificateDer;
use keydir_rustls::{AnchorsView, IdentityView};

use crate::pem;

/// The certificates of a revision, if it has any, and what is to be told of its CRLs, or of its use by HTTP. Derefs to the
/// certificates.
#[derive(Default)]
pub(crate) struct Certificates {
    certificates: Vec<CertificateDer<'static>>,
    pub(crate) crls: Vec<CrlDates>,
    /// Why services that send or check it by HTTP would set it aside, though others may take it.
    pub(crate) not_by_http: Option<Unusable>,
}

/// Whose a CRL is, and when the next one was to come.
pub(crate) struct CrlDates {
    pub(crate) issuer: String,
    pub(crate) next_update: SystemTime,
}

impl Deref for Certificates {
    type Target = [CertificateDer<'static>];

    fn deref(&self) -> &Self::Target {
        &self.certificates
    }
}

/// Reads a directory for one use.
pub(crate) struct AnyView {
    usage: Usage,
    kind: Kind,
    provider: Arc<CryptoProvider>,
}

enum Kind {
    Identity(IdentityView),
    Anchors(Box<AnchorsView>),
    Other,
}

impl AnyView {
    pub(crate) fn new(usage: Usage) -> Self {
        let provider = Arc::new(default_provider());
        let kind = match usage.name() {
            "tls-identity" | "certificate-login" => Kind::Identity(IdentityView::new(Arc::clone(&provider))),
            "anchors" => Kind::Anchors(Box::new(AnchorsView::anchors())),
            "pinned" => Kind::Anchors(Box::new(AnchorsView::pinned())),
            _ => Kind::Other,
        };
        Self { usage, kind, provider }
    }

    /// The error is for all readers, what is returned for those that speak HTTP.
    fn other(&self, revision: &Revision<'_>) -> Result<Option<Unusable>, Unusable> {
        match self.usage.name() {
            "symmetric" => symmetric(revision).map(|()| None),
            "signing" => {
                let spki = self.public_half(revision.need("private")?)?;
                self.agree(revision.part("public"), spki).map(|()| None)
            }
            "verifying" => {
                let spki = revision.part("private").map(|pem| self.public_half(pem)).transpose()?;
                self.agree(revision.part("public"), spki.flatten()).map(|()| None)
            }
            "password-login" => {
                revision.user_name()?;
                Ok(revision.basic_login().err())
            }
            "password-check" => {
                revision.user_name()?;
                match revision.argon2_hash() {
                    Err(unusable) if unusable.code() == "bad-hash" => Err(unusable),
                    hash => Ok(hash.and_then(|_| revision.basic_user_name()).err()),
                }
            }
            "token" => {
                revision.token()?;
                Ok(revision.bearer_token().err())
            }
            "token-check" => self.token_check(revision).map(|()| None),
            _ => Ok(None),
        }
    }

    /// The SPKI that belongs to a private key; `None` if the key does not tell it.
    fn public_half(&self, pem: &[u8]) -> Result<Option<Vec<u8>>, Unusable> {
        let key = pem::private_key(pem).map_err(|unusable| unusable.part("private"))?;
        let key = self.provider.key_provider.load_private_key(key).map_err(|_| {
            Unusable::new(
                "unsupported-key",
                "the private key is damaged, or of a kind that this program cannot check (it knows RSA, P-256, P-384, P-521, Ed25519)",
            )
            .part("private")
        })?;
        Ok(key.public_key().map(|spki| spki.to_vec()))
    }

    fn agree(&self, public: Option<&[u8]>, private: Option<Vec<u8>>) -> Result<(), Unusable> {
        let public = public.map(pem::public_key).transpose();
        match (public.map_err(|unusable| unusable.part("public"))?, private) {
            (Some(public), Some(private)) if public != private => {
                Err(Unusable::new("key-mismatch", "the public key is not that of the private key").part("public"))
            }
            _ => Ok(()),
        }
    }

    fn token_check(&self, revision: &Revision<'_>) -> Result<(), Unusable> {
        if revision.part("token-sha256").is_none() {
            return revision.token().map(drop);
        }
        let digest = revision.token_sha256()?;
        if revision.part("token").is_none() {
            return Ok(());
        }
        let token = self
            .sha256()
            .ok_or_else(|| Unusable::new("no-sha256", "this program cannot compute a SHA-256"))?
            .hash(revision.token()?);
        (token.as_ref() == digest)
            .then_some(())
            .ok_or_else(|| Unusable::new("token-mismatch", "the token has another SHA-256").part("token-sha256"))
    }

    /// The hash function of the cipher suites, so that no other library is needed for one digest.
    fn sha256(&self) -> Option<&'static dyn hash::Hash> {
        let suites = self.provider.cipher_suites.iter();
        suites
            .filter_map(|suite| match suite {
                SupportedCipherSuite::Tls13(suite) => Some(hash_of(&suite.common)),
                _ => None,
            })
            .find(|hash| hash.algorithm() == HashAlgorithm::SHA256)
    }
}

fn hash_of(suite: &CipherSuiteCommon) -> &'static dyn hash::Hash {
    suite.hash_provider
}

impl View for AnyView {
    type Item = Certificates;
    type Whole = ();

    fn usage(&self) -> &Usage {
        &self.usage
    }

    fn parse(&self, revision: &Revision<'_>) -> Result<Parsed<Self::Item>, Unusable> {
        match &self.kind {
            Kind::Identity(view) => {
                if revision.part("username").is_some() {
                    revision.text("username")?;
                }
                Ok(view.parse(revision)?.map(|key| Certificates {
                    certificates: key.certificates().to_vec(),
                    ..Certificates::default()
                }))
            }
            Kind::Anchors(view) => Ok(view.parse(revision)?.map(|accepted| {
                let crls = accepted.crls().map(|crl| CrlDates {
                    issuer: crl.issuer(),
                    next_update: crl.next_update(),
                });
                Certificates {
                    certificates: accepted.certificates().cloned().collect(),
                    crls: crls.collect(),
                    not_by_http: None,
                }
            })),
            Kind::Other => Ok(Parsed::new(Certificates {
                not_by_http: self.other(revision)?,
                ..Certificates::default()
            })),
        }
    }

    fn combine(&self, _: &Candidates<'_, Self::Item>) -> Result<(), Broken> {
        Ok(())
    }
}

/// A public key must never become a shared secret.
fn symmetric(revision: &Revision<'_>) -> Result<(), Unusable> {
    let key = revision.need("key")?;
    if revision.is_flat() {
        let reason = "a symmetric key is named by its id in what it makes, and the flat layout has none";
        return Err(Unusable::new("flat", reason));
    }
    if key.windows(10).any(|window| window == b"-----BEGIN") || is_der(key) {
        let reason = "it is a key or a certificate of another kind, which others may know";
        return Err(Unusable::new("not-symmetric", reason).part("key"));
    }
    Ok(())
}

/// A DER key or certificate: one SEQUENCE of exactly this length that begins with a SEQUENCE or an INTEGER.
fn is_der(bytes: &[u8]) -> bool {
    use x509_parser::der_parser::ber::BerObjectContent::{Integer, Sequence};
    let Ok((rest, object)) = x509_parser::der_parser::parse_der(bytes) else {
        return false;
    };
    let Sequence(inner) = &object.content else { return false };
    let first = inner.first().map(|first| &first.content);
    rest.is_empty() && matches!(first, Some(Sequence(_) | Integer(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use keydir::{Dir, uses};

    /// The reason for which a revision is not usable, if it is not.
    fn parse(usage: Usage, files: &[(&str, &str)]) -> Option<String> {
        let dir = Dir::in_memory(files.iter().copied());
        let problems = match dir.view(AnyView::new(usage)) {
            Ok(live) => live.load().problems().to_vec(),
            Err(error) => return Some(error.to_string()),
        };
        let unusable = problems.into_iter().find(|problem| problem.code == "unusable");
        unusable.map(|problem| problem.message)
    }

    fn check(usage: Usage, files: &[(&str, &str)], expected: Option<&str>) {
        let found = parse(usage, files);
        match expected {
            None => assert_eq!(found, None, "{files:?}"),
            Some(expected) => assert!(
                found.as_ref().is_some_and(|found| found.contains(expected)),
                "{files:?}: {found:?}"
            ),
        }
    }

    #[test]
    fn text_uses_are_judged_by_section_5() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let (upper, other) = (abc.to_uppercase(), abc.replace('b', "c"));
        let long = format!("{}.password", "a".repeat(64));
        for (usage, files, expected) in [
            (uses::TOKEN, &[("r1.token", "abc\n")][..], None),
            (uses::TOKEN, &[("r1.token", "a\nbc")], Some("line end")),
            (uses::TOKEN, &[("r1.token", "a\u{1b}bc")], Some("control character")),
            (uses::TOKEN, &[("r1.token", "abc ")], Some("space or a tab")),
            (uses::TOKEN_CHECK, &[("r1.token", "abc")], None),
            (
                uses::TOKEN_CHECK,
                &[("r1.token", "a\u{1b}bc")],
                Some("control character"),
            ),
            (
                uses::TOKEN_CHECK,
                &[("r1.token-sha256", of_nothing)],
                Some("nothing at all"),
            ),
            (uses::TOKEN_CHECK, &[("r1.token-sha256", &upper)], None),
            (uses::TOKEN_CHECK, &[("r1.token-sha256", &upper[1..])], Some("64 hex")),
            (
                uses::TOKEN_CHECK,
                &[("r1.token-sha256", abc), ("r1.token", "abc\n")],
                None,
            ),
            (
                uses::TOKEN_CHECK,
                &[("r1.token-sha256", &other), ("r1.token", "abc")],
                Some("another SHA-256"),
            ),
            (uses::PASSWORD_LOGIN, &[("r1.password", "x")], None),
            (uses::PASSWORD_LOGIN, &[(&long, "x")], Some("63 bytes")),
            (
                uses::PASSWORD_CHECK,
                &[("r1.password-hash", "$scrypt$ln=16$aM15$QAjB")],
                None,
            ),
            (uses::PASSWORD_CHECK, &[("r1.password-hash", "plain")], Some("PHC")),
            (uses::SYMMETRIC, &[("r1.key", "0123456789abcdef")], None),
            (uses::SYMMETRIC, &[("r1.key", "0\u{2}0\u{0}")], Some("another kind")),
            (uses::SYMMETRIC, &[("r1.key", "x -----BEGIN y")], Some("another kind")),
            (uses::SIGNING, &[("r1.private", "x")], Some("no key in PEM")),
            (uses::VERIFYING, &[("r1.public", "x")], Some("no key in PEM")),
        ] {
            check(usage, files, expected);
        }
    }

    #[test]
    fn a_signing_key_and_its_public_half_must_agree() {
        let key = rcgen::KeyPair::generate().unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        let (private, public, wrong) = (key.serialize_pem(), key.public_key_pem(), other.public_key_pem());
        for usage in [uses::SIGNING, uses::VERIFYING] {
            check(usage, &[("r1.private", &private), ("r1.public", &public)], None);
            check(
                usage,
                &[("r1.private", &private), ("r1.public", &wrong)],
                Some("not that of the private key"),
            );
        }
        check(uses::VERIFYING, &[("r1.public", &public)], None);
        check(uses::VERIFYING, &[("r1.private", &private)], None);
    }
}
