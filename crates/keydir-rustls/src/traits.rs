//! By what a handshake chooses among identities: found out when they are loaded, so that it costs no handshake anything.

use rustls::SignatureScheme;
use rustls::sign::{CertifiedKey, SigningKey};
use webpki::EndEntityCert;

use crate::certificate::Certificate;

/// What a handshake has to know of an identity.
#[derive(Debug)]
pub(crate) struct Traits {
    pub(crate) schemes: Vec<SignatureScheme>,
    /// The issuers of the certificates, encoded as the peer sends them.
    pub(crate) issuers: Vec<Box<[u8]>>,
    names: Vec<Box<str>>,
    /// What follows the `*` of names with a wildcard: `.example.com`.
    wildcards: Vec<Box<str>>,
}

/// How well an identity fits the name that a client has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Named {
    Not,
    ByWildcard,
    Exactly,
}

impl Traits {
    pub(crate) fn of(certified: &CertifiedKey) -> Self {
        let certificates = certified.cert.iter();
        let issuers = certificates.filter_map(|der| Some(Certificate::read(der).ok()?.issuer().into()));
        let leaf = certified.cert.first().and_then(|der| EndEntityCert::try_from(der).ok());
        // The client will verify the name. Here it only tells identities apart.
        let (wildcards, names): (Vec<_>, Vec<_>) = leaf
            .iter()
            .flat_map(|leaf| leaf.valid_dns_names())
            .map(str::to_ascii_lowercase)
            .partition(|name| name.starts_with('*'));
        Self {
            schemes: schemes(&*certified.key),
            issuers: issuers.collect(),
            names: names.into_iter().map(Into::into).collect(),
            wildcards: wildcards
                .iter()
                .filter_map(|name| Some(name.strip_prefix('*')?.into()))
                .collect(),
        }
    }

    /// Whether the leaf is for this name. A wildcard stands for one whole label, the left-most (RFC 6125, 6.4.3).
    pub(crate) fn named(&self, name: &str) -> Named {
        let name = name.strip_suffix('.').unwrap_or(name);
        let has = |names: &[Box<str>], name: &str| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        if has(&self.names, name) {
            return Named::Exactly;
        }
        match name.find('.').and_then(|at| name.split_at_checked(at)) {
            Some((label, rest)) if !label.is_empty() && has(&self.wildcards, rest) => Named::ByWildcard,
            _ => Named::Not,
        }
    }
}

/// Those that a key can sign by; rustls only tells whether it can sign by one of some. A key that signs by others
/// still is asked in the handshake itself.
fn schemes(key: &dyn SigningKey) -> Vec<SignatureScheme> {
    use SignatureScheme as S;
    const ALL: [S; 11] = [
        S::ECDSA_NISTP256_SHA256,
        S::ECDSA_NISTP384_SHA384,
        S::ECDSA_NISTP521_SHA512,
        S::ED25519,
        S::ED448,
        S::RSA_PSS_SHA256,
        S::RSA_PSS_SHA384,
        S::RSA_PSS_SHA512,
        S::RSA_PKCS1_SHA256,
        S::RSA_PKCS1_SHA384,
        S::RSA_PKCS1_SHA512,
    ];
    let can = |scheme: &S| key.choose_scheme(&[*scheme]).is_some();
    ALL.into_iter().filter(can).collect()
}
