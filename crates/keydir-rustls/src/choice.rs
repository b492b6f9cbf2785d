//! Which revision to present to a peer: the primary, unless the peer has said that it cannot verify it and can verify
//! another one. So the ends of a rotation meet that have not moved at the same time.
//!
//! What a peer says are the signature schemes and the names of the CAs that it knows; neither is a promise. Whatever
//! suits as little as the primary does not take its place, and a peer that says nothing gets the primary.

use std::sync::Arc;

use keydir::{Key, KeySet};
use rustls::server::ClientHello;
use rustls::sign::SigningKey;
use rustls::{CipherSuite, SignatureScheme};

use crate::identity_view::{IdentityKey, IdentityView};
use crate::traits::Traits;

/// What a peer has said in its handshake. `A` is the name of a CA, as rustls gives it.
#[derive(Debug)]
pub(crate) struct Said<'a, A> {
    schemes: &'a [SignatureScheme],
    /// TLS 1.3 has no PKCS#1 signatures, though its peers offer them for the signatures of certificates.
    tls13: bool,
    /// Empty if the peer has named none.
    authorities: &'a [A],
}

impl<'a, A: AsRef<[u8]>> Said<'a, A> {
    /// By a server; rustls has left out what the version does not have.
    pub(crate) fn by_server(authorities: &'a [A], schemes: &'a [SignatureScheme]) -> Self {
        Self {
            schemes,
            tls13: false,
            authorities,
        }
    }

    fn suits(&self, key: &IdentityKey) -> Suits {
        let traits = key.traits();
        let named = |issuer: &[u8]| self.authorities.iter().any(|name| name.as_ref() == issuer);
        Suits {
            signs: self.signs(traits, &*key.certified().key),
            issued: self.authorities.is_empty() || traits.issuers.iter().any(|issuer| named(issuer)),
        }
    }

    fn signs(&self, traits: &Traits, key: &dyn SigningKey) -> Signs {
        let shared = |scheme: &SignatureScheme| self.schemes.contains(scheme);
        let in_any_version = |scheme: &SignatureScheme| !self.tls13 || !is_pkcs1(*scheme);
        if traits
            .schemes
            .iter()
            .filter(|scheme| in_any_version(scheme))
            .any(shared)
        {
            Signs::InAnyVersion
        } else if traits.schemes.iter().any(shared) {
            Signs::InTls12
        } else if key.choose_scheme(self.schemes).is_some() {
            // By a scheme that we do not know.
            Signs::InAnyVersion
        } else {
            Signs::Not
        }
    }
}

impl<'a> Said<'a, rustls::DistinguishedName> {
    pub(crate) fn by_client(hello: &'a ClientHello<'_>) -> Self {
        // Clients of TLS 1.3 offer its suites; which version it will be is not told.
        let of_tls13 = |suite: &CipherSuite| u16::from(*suite) >> 8 == 0x13;
        Self {
            schemes: hello.signature_schemes(),
            tls13: hello.cipher_suites().iter().any(of_tls13),
            authorities: hello.certificate_authorities().unwrap_or_default(),
        }
    }
}

fn is_pkcs1(scheme: SignatureScheme) -> bool {
    use SignatureScheme as S;
    matches!(scheme, S::RSA_PKCS1_SHA256 | S::RSA_PKCS1_SHA384 | S::RSA_PKCS1_SHA512)
}

/// What counts most comes first: without a common scheme there is no handshake, while names are a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Suits {
    signs: Signs,
    issued: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Signs {
    Not,
    InTls12,
    InAnyVersion,
}

const WELL: Suits = Suits {
    signs: Signs::InAnyVersion,
    issued: true,
};

/// The revision to present: the primary, if no other suits the peer better; of several that do, the one that suits
/// best, and of equals the last in natural order, which is the one to stay where ids count up. `None` without a
/// primary: no revision is presented before its time.
pub(crate) fn choose<'s, A: AsRef<[u8]>>(
    set: &'s KeySet<IdentityView>,
    said: &Said<'_, A>,
) -> Option<&'s Arc<Key<IdentityKey>>> {
    let primary = set.primary().ok()?;
    let as_primary = said.suits(primary);
    if as_primary == WELL {
        return Some(primary);
    }
    let others = set.iter().filter(|key| may_stand_in(set, key));
    let better = others
        .map(|key| (said.suits(key), key))
        .filter(|(suits, _)| *suits > as_primary)
        .max_by_key(|(suits, _)| *suits);
    Some(better.map_or(primary, |(_, key)| key))
}

/// Whether a revision may be presented in the primary's place: it is in force and inside its validity.
pub(crate) fn may_stand_in(set: &KeySet<IdentityView>, key: &Key<IdentityKey>) -> bool {
    let state = set.state(key);
    state.is_some_and(|state| !state.pending && !state.expired)
}

#[cfg(test)]
mod tests {
    use keydir::{Dir, Live};
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, RsaKeySize};
    use rustls::DistinguishedName;
    use rustls::pki_types::ServerName;
    use webpki::EndEntityCert;

    use super::*;
    use crate::provider::provider;
    use crate::traits::Named;

    type Ca = CertifiedIssuer<'static, KeyPair>;

    fn ca(name: &str) -> Ca {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ca::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn sub(name: &str, ca: &Ca) -> Ca {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ca::signed_by(params, KeyPair::generate().unwrap(), ca).unwrap()
    }

    fn files(id: &str, names: &[&str], key: &KeyPair, ca: &Ca) -> [(String, String); 2] {
        let names: Vec<String> = names.iter().copied().map(Into::into).collect();
        let leaf = CertificateParams::new(names).unwrap().signed_by(key, ca).unwrap();
        // A mark goes to the certificate.
        let (id, mark) = id.split_once('*').map_or((id, ""), |(id, _)| (id, ".primary"));
        [
            (format!("{id}.crt{mark}"), leaf.pem() + &ca.pem()),
            (format!("{id}.key"), key.serialize_pem()),
        ]
    }

    fn live(files: impl IntoIterator<Item = [(String, String); 2]>) -> Live<IdentityView> {
        let dir = Dir::in_memory(files.into_iter().flatten());
        dir.view(IdentityView::new(provider().unwrap())).unwrap()
    }

    fn ecdsa() -> KeyPair {
        KeyPair::generate().unwrap()
    }

    fn name_of(ca: &Ca) -> DistinguishedName {
        let anchor = webpki::anchor_from_trusted_cert(ca.der()).unwrap();
        DistinguishedName::in_sequence(anchor.subject.as_ref())
    }

    fn chosen(live: &Live<IdentityView>, said: &Said<'_, DistinguishedName>) -> String {
        let set = live.load();
        choose(&set, said).unwrap().id().to_string()
    }

    const ECDSA: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];

    fn said<'a>(schemes: &'a [SignatureScheme], authorities: &'a [DistinguishedName]) -> Said<'a, DistinguishedName> {
        Said::by_server(authorities, schemes)
    }

    #[test]
    fn the_primary_wins_wherever_it_suits_and_wherever_nothing_suits_better() {
        let cas = [ca("one"), ca("two"), ca("three")];
        let [one, two, three] = cas.each_ref().map(name_of);
        let (root, unknown) = (ca("root"), name_of(&ca("unknown")));
        let below = sub("below", &root);
        let live = live([
            files("r1", &["a.test"], &ecdsa(), &cas[0]),
            files("r2*", &["a.test"], &ecdsa(), &cas[1]),
            files("r3", &["a.test"], &ecdsa(), &cas[2]),
            files("r10", &["a.test"], &ecdsa(), &cas[2]),
            files("r4", &["a.test"], &ecdsa(), &below),
        ]);
        for (authorities, expected) in [
            (vec![], "r2"),
            (vec![two.clone(), one.clone(), three.clone()], "r2"),
            (vec![one.clone()], "r1"),
            (vec![unknown.clone(), one.clone()], "r1"),
            (vec![unknown], "r2"),
            // r10 is of the same CA, and later than r3 in natural order.
            (vec![three.clone(), one.clone()], "r10"),
            (vec![name_of(&below)], "r4"),
            (vec![name_of(&root)], "r4"),
        ] {
            assert_eq!(chosen(&live, &said(ECDSA, &authorities)), expected, "{authorities:?}");
        }
        // A name is compared in whole.
        let cut = DistinguishedName::in_sequence(&one.as_ref()[2..10]);
        assert_eq!(chosen(&live, &said(ECDSA, &[cut])), "r2");
    }

    #[test]
    fn schemes_count_before_names() {
        let (one, two) = (ca("one"), ca("two"));
        let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let live = live([
            files("r1", &["a.test"], &ed25519, &one),
            files("r2", &["a.test"], &rsa, &two),
            files("r3*", &["a.test"], &ecdsa(), &one),
        ]);
        use SignatureScheme as S;
        let one = [name_of(&one)];
        for (schemes, names, expected) in [
            (&[S::RSA_PSS_SHA256][..], &[][..], "r2"),
            (&[S::RSA_PSS_SHA256], &one, "r2"),
            (&[S::ED25519, S::RSA_PSS_SHA512], &one, "r1"),
            (&[S::ED25519, S::RSA_PSS_SHA512], &[], "r2"),
            (&[S::ED25519, S::ECDSA_NISTP256_SHA256], &[], "r3"),
            (&[S::ECDSA_NISTP384_SHA384], &one, "r3"),
            (&[], &[], "r3"),
        ] {
            assert_eq!(chosen(&live, &said(schemes, names)), expected, "{schemes:?}");
        }
    }

    #[test]
    fn what_only_tls12_has_does_not_count_where_there_may_be_more() {
        let (one, two) = (ca("one"), ca("two"));
        let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let live = live([
            files("r1*", &["a.test"], &rsa, &one),
            files("r2", &["a.test"], &ecdsa(), &two),
        ]);
        use SignatureScheme as S;
        let both = [S::RSA_PKCS1_SHA256, S::ECDSA_NISTP256_SHA256];
        for (schemes, tls13, expected) in [
            (&both[..], true, "r2"),
            (&both, false, "r1"),
            // For want of a better one.
            (&both[..1], true, "r1"),
            (
                &[S::RSA_PKCS1_SHA256, S::RSA_PSS_SHA256, S::ECDSA_NISTP256_SHA256],
                true,
                "r1",
            ),
        ] {
            let said = Said {
                tls13,
                ..said(schemes, &[])
            };
            assert_eq!(chosen(&live, &said), expected, "{schemes:?} {tls13}");
        }
    }

    #[test]
    fn names_fit_as_those_who_verify_them_see_it() {
        let one = ca("one");
        let key = ecdsa();
        let live = live([files(
            "r1*",
            &[
                "a.test",
                "B.test",
                "*.c.test",
                "x.c.test",
                "*.d.e.test",
                "*.test",
                "10.0.0.1",
                "f_g.test",
            ],
            &key,
            &one,
        )]);
        let key = live.primary().unwrap();
        let leaf = EndEntityCert::try_from(&key.certificates()[0]).unwrap();
        let mut fitting = Vec::new();
        for name in [
            "a.test",
            "A.TEST",
            "a.test.",
            "b.test",
            "x.a.test",
            "atest",
            "test",
            "c.test",
            "x.c.test",
            "y.c.test",
            "Y.C.Test.",
            "y.x.c.test",
            "xc.test",
            "d.e.test",
            "z.d.e.test",
            "other.test",
            "f_g.test",
            "localhost",
        ] {
            let fits = key.traits().named(name);
            let verified = leaf.verify_is_valid_for_subject_name(&ServerName::try_from(name).unwrap());
            assert_eq!(fits != Named::Not, verified.is_ok(), "{name}: {fits:?} {verified:?}");
            fitting.extend((fits != Named::Not).then_some((name, fits == Named::Exactly)));
        }
        assert!(
            fitting.contains(&("x.c.test", true)) && fitting.contains(&("y.c.test", false)),
            "{fitting:?}"
        );
        for name in ["", ".", ".c.test", "*.c.test", "\u{e9}.c.test", "10.0.0.1"] {
            let _ = key.traits().named(name);
        }
        assert_eq!(key.traits().named("10.0.0.1"), Named::Not);
        assert_eq!(key.traits().named(".c.test"), Named::Not);
    }
}
