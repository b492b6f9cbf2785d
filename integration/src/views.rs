//! A view for each use of the convention that shows the bytes that are in force.
//!
//! TLS uses are parsed by keydir-rustls. The others will have adapters of their own; until then the rules of section 5
//! stand here.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair,
};
use keydir::{Broken, Candidates, Parsed, Revision, Unusable, Usage, View, uses};
use keydir_rustls::rustls::crypto::aws_lc_rs::default_provider;
use keydir_rustls::rustls::pki_types::pem::SectionKind;
use keydir_rustls::{AnchorsView, IdentityView};
use std::sync::Arc;
use x509_parser::prelude::FromDer;

/// Reads any use; its items are the bytes of the first naming part that is there.
#[allow(missing_debug_implementations, reason = "the views of keydir-rustls have none")]
pub struct AnyUse {
    usage: Usage,
    tls: Tls,
}

enum Tls {
    Identity(IdentityView),
    Anchors(Box<AnchorsView>),
    No,
}

impl AnyUse {
    /// The view of the use with this name.
    pub fn named(name: &str) -> Self {
        let usage = uses::ALL.into_iter().find(|usage| usage.name() == name);
        let usage = usage.unwrap_or_else(|| panic!("no use is named {name}"));
        let tls = match name {
            "tls-identity" | "certificate-login" => Tls::Identity(IdentityView::new(Arc::new(default_provider()))),
            "anchors" => Tls::Anchors(Box::new(AnchorsView::anchors())),
            "pinned" => Tls::Anchors(Box::new(AnchorsView::pinned())),
            _ => Tls::No,
        };
        Self { usage, tls }
    }
}

impl View for AnyUse {
    type Item = Vec<u8>;
    type Whole = ();

    fn usage(&self) -> &Usage {
        &self.usage
    }

    fn parse(&self, revision: &Revision<'_>) -> Result<Parsed<Vec<u8>>, Unusable> {
        let bytes = self
            .usage
            .parts()
            .find_map(|part| revision.part(part))
            .unwrap_or_default()
            .to_vec();
        match &self.tls {
            Tls::Identity(view) => return Ok(view.parse(revision)?.map(|_| bytes)),
            Tls::Anchors(view) => return Ok(view.parse(revision)?.map(|_| bytes)),
            Tls::No => {}
        }
        if ["password-login", "password-check"].contains(&self.usage.name()) {
            revision.user_name()?;
        }
        match self.usage.name() {
            "symmetric" => symmetric(&bytes)?,
            "signing" => {
                let spki = spki_of_private(revision.need("private")?)?;
                if let Some(public) = revision.part("public") {
                    agree(&spki, &spki_of_public(public)?)?;
                }
            }
            "verifying" => {
                let public = revision.part("public").map(spki_of_public).transpose()?;
                let private = revision.part("private").map(spki_of_private).transpose()?;
                if let (Some(public), Some(private)) = (public, private) {
                    agree(&public, &private)?;
                }
            }
            "password-check" if !is_phc(&bytes) => {
                return Err(Unusable::new("bad-hash", "it is no PHC string").part("password-hash"));
            }
            "token-check" => token_check(revision)?,
            _ => {}
        }
        Ok(Parsed::new(bytes))
    }

    fn combine(&self, _: &Candidates<'_, Vec<u8>>) -> Result<(), Broken> {
        Ok(())
    }
}

fn symmetric(key: &[u8]) -> Result<(), Unusable> {
    let is_pem = key.windows(11).any(|window| window == b"-----BEGIN ");
    if is_pem || key.windows(10).any(|window| window == b"-----BEGIN") || is_der(key) {
        return Err(Unusable::new("not-symmetric", "it is a key or a certificate of another kind").part("key"));
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

fn agree(a: &[u8], b: &[u8]) -> Result<(), Unusable> {
    if a == b {
        Ok(())
    } else {
        Err(Unusable::new(
            "key-mismatch",
            "the public key is not that of the private key",
        ))
    }
}

fn bad(reason: &str) -> Unusable {
    Unusable::new("bad-pem", reason)
}

/// The only block of a PEM text that is no EC PARAMETERS.
fn one_block(pem: &[u8]) -> Result<(SectionKind, Vec<u8>), Unusable> {
    let text = std::str::from_utf8(pem).map_err(|_| bad("it is no text"))?;
    let begins = text.matches("-----BEGIN").count();
    let mut reader = pem;
    let mut blocks = Vec::new();
    // Passed over before a private key, foreign anywhere else.
    let mut labels = text.lines().filter(|line| line.starts_with("-----BEGIN")).peekable();
    let mut parameters = 0;
    while labels.next_if(|line| line.contains("EC PARAMETERS")).is_some() {
        parameters += 1;
    }
    if parameters > 0 && !labels.next().is_some_and(|line| line.contains("PRIVATE KEY")) {
        return Err(bad("EC PARAMETERS stand before what is no private key"));
    }
    while let Some(block) = rustls::pki_types::pem::from_buf(&mut reader).map_err(|_| bad("it is no PEM"))? {
        blocks.push(block);
    }
    if blocks.len() + parameters != begins {
        return Err(bad("there is a foreign block"));
    }
    match blocks.len() {
        1 => Ok(blocks.remove(0)),
        _ => Err(bad("it does not hold exactly one key")),
    }
}

fn spki_of_public(pem: &[u8]) -> Result<Vec<u8>, Unusable> {
    let (SectionKind::PublicKey, der) = one_block(pem)? else {
        return Err(bad("it is no public key"));
    };
    let (rest, _) = x509_parser::x509::SubjectPublicKeyInfo::from_der(&der).map_err(|_| bad("it is no SPKI"))?;
    if rest.is_empty() {
        Ok(der)
    } else {
        Err(bad("bytes follow the key"))
    }
}

fn spki_of_private(pem: &[u8]) -> Result<Vec<u8>, Unusable> {
    fn spki<K: KeyPair>(pair: &K) -> Option<Vec<u8>>
    where
        K::PublicKey: AsDer<PublicKeyX509Der<'static>>,
    {
        Some(pair.public_key().as_der().ok()?.as_ref().to_vec())
    }
    let (kind, der) = one_block(pem)?;
    let found = match kind {
        SectionKind::PrivateKey | SectionKind::EcPrivateKey => None
            .or_else(|| spki(&EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, &der).ok()?))
            .or_else(|| spki(&EcdsaKeyPair::from_private_key_der(&ECDSA_P384_SHA384_ASN1_SIGNING, &der).ok()?))
            .or_else(|| spki(&Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).ok()?))
            .or_else(|| spki(&RsaKeyPair::from_pkcs8(&der).ok()?)),
        SectionKind::RsaPrivateKey => spki(&RsaKeyPair::from_der(&der).map_err(|_| bad("it is no RSA key"))?),
        _ => None,
    };
    found.ok_or_else(|| bad("it is no private key"))
}

/// `$id[$v=version][$params][$salt[$hash]]`, as far as its form goes.
fn is_phc(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let Some(rest) = text.strip_prefix('$') else {
        return false;
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || "-+/.=,".contains(c);
    let mut fields = rest.split('$');
    let name = fields.next().unwrap_or_default();
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=32).contains(&name.len())
        && name.chars().all(lower)
        && fields.all(|field| !field.is_empty() && field.chars().all(legal))
}

fn token_check(revision: &Revision<'_>) -> Result<(), Unusable> {
    let Some(hex) = revision.part("token-sha256") else {
        return Ok(());
    };
    let unhex = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let all_hex = hex.len() == 64 && hex.iter().all(u8::is_ascii_hexdigit);
    let digest: Option<Vec<u8>> = hex.chunks(2).map(unhex).collect();
    let Some(digest) = digest.filter(|_| all_hex) else {
        return Err(Unusable::new("bad-digest", "it is not 64 hex digits").part("token-sha256"));
    };
    match revision.part("token") {
        Some(token) if aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token).as_ref() != digest => {
            Err(Unusable::new("token-mismatch", "the token has another SHA-256"))
        }
        _ => Ok(()),
    }
}

/// Reads `token` parts as they are; parsing and combining can be made to fail, panic or hang.
#[derive(Debug, Default)]
pub struct Tokens {
    /// What happens to a token that begins with `!`.
    pub bad: Bad,
}

/// How a view misbehaves.
#[derive(Clone, Debug, Default)]
pub enum Bad {
    /// It refuses.
    #[default]
    Refuses,
    /// It panics while parsing.
    PanicsInParse,
    /// It fails to combine.
    FailsInCombine,
    /// It panics while combining.
    PanicsInCombine,
    /// It hangs while parsing, as long as this is locked.
    HangsInParse(Arc<std::sync::Mutex<()>>),
}

impl View for Tokens {
    type Item = String;
    type Whole = usize;

    fn usage(&self) -> &Usage {
        const USAGE: Usage = Usage::new("token")
            .naming(&[&["token"]])
            .text(&["token"])
            .private(&["token"])
            .presents()
            .accepts();
        &USAGE
    }

    fn parse(&self, revision: &Revision<'_>) -> Result<Parsed<String>, Unusable> {
        let token = revision.text("token")?;
        if token.starts_with('!') {
            match &self.bad {
                Bad::Refuses => return Err(Unusable::new("bad-token", "it begins with an exclamation mark")),
                Bad::PanicsInParse => panic!("the view panics on purpose"),
                Bad::HangsInParse(lock) => drop(lock.lock()),
                Bad::FailsInCombine | Bad::PanicsInCombine => {}
            }
        }
        Ok(Parsed::new(token.to_owned()))
    }

    fn combine(&self, keys: &Candidates<'_, String>) -> Result<usize, Broken> {
        if keys.iter().any(|(_, token)| token.starts_with('!')) {
            match &self.bad {
                Bad::FailsInCombine => return Err(Broken::new("a token begins with an exclamation mark")),
                Bad::PanicsInCombine => panic!("the view panics on purpose"),
                _ => {}
            }
        }
        Ok(keys.iter().count())
    }
}
