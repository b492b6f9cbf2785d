//! Who is presented what: by signature schemes, by the names of CAs, by the name that is asked for.

use std::sync::Arc;

use keydir::Dir;
use keydir_rustls::{Identity, TrustAnchors, client_config, server_config};
use rcgen::{KeyPair, RsaKeySize};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, ServerConfig, ServerConnection, SignatureScheme, SupportedProtocolVersion,
};

use crate::provider::provider;
use crate::support::*;

/// The files of several revisions, of which one is marked.
pub(crate) fn revisions(of: &[(&str, &Leaf)], primary: &str) -> Vec<(String, String)> {
    let files = of.iter().flat_map(|(id, leaf)| {
        let mark = if *id == primary { ".primary" } else { "" };
        [
            (format!("{id}.crt{mark}"), leaf.crt.clone()),
            (format!("{id}.key"), leaf.key.clone()),
        ]
    });
    files.collect()
}

fn identity_of(of: &[(&str, &Leaf)], primary: &str) -> Identity {
    Identity::in_dir(&Dir::in_memory(revisions(of, primary))).unwrap()
}

/// How it ends, and the leaf that the server has shown.
fn shown_by_server(client: ClientConfig, server: &Arc<ServerConfig>) -> (End, Option<CertificateDer<'static>>) {
    let mut pair = pair(&Arc::new(client), server);
    let end = pair.finish();
    let leaf = pair
        .client
        .peer_certificates()
        .map(|chain| chain[0].clone().into_owned());
    (end, leaf)
}

#[test]
fn a_client_that_names_its_cas_is_shown_what_it_can_verify() {
    let cas = ["s1", "s2", "s3", "s4", "s5"].map(Ca::new);
    let hand = Hand::at(2030);
    let leaf = |ca: &Ca, from, to| {
        let mut params = leaf_params(NAME);
        years(&mut params, from, to);
        ca.leaf_with(params)
    };
    let runs: Vec<_> = cas[..3].iter().map(|ca| leaf(ca, 2020, 2040)).collect();
    let (expired, pending) = (leaf(&cas[3], 2020, 2025), leaf(&cas[4], 2035, 2040));
    let all = [
        ("r1", &runs[0]),
        ("r2", &runs[1]),
        ("r3", &runs[2]),
        ("r4", &expired),
        ("r5", &pending),
    ];
    let dir = Dir::in_memory_at(revisions(&all, "r2"), hand.clone());
    let server = server_config(&Identity::in_dir(&dir).unwrap()).no_client();
    let server = Arc::new(server.build().unwrap());
    let client = |cas: &[&Ca], hints: bool, version: &'static SupportedProtocolVersion| {
        let cas: Vec<_> = cas.iter().zip(["a", "b"]).map(|(ca, id)| (id, *ca)).collect();
        let anchors = anchors_in(&Dir::in_memory_at(ca_files(&cas), hand.clone()));
        let client = client_config(&anchors).versions(&[version]);
        let client = if hints { client } else { client.without_hints() };
        shown_by_server(client.build().unwrap(), &server)
    };
    let [s1, s2, s3, s4, s5] = cas.each_ref();
    for (trusted, expected) in [
        (&[s2][..], &runs[1]),
        (&[s1, s2], &runs[1]),
        (&[s1], &runs[0]),
        (&[s3], &runs[2]),
        // Both suit, the later one is taken.
        (&[s3, s1], &runs[2]),
        (&[s4, s1], &runs[0]),
        (&[s5, s1], &runs[0]),
    ] {
        let shown = client(trusted, true, &TLS13);
        assert_eq!(shown, (End::Full, Some(expected.der.clone())));
    }
    // Neither what has expired nor what is yet to come takes the primary's place.
    for trusted in [s4, s5] {
        assert!(client(&[trusted], true, &TLS13).0.is_refused());
    }
    // The controls: a client that names none, in one way or the other.
    for (hints, version) in [(false, &TLS13), (true, &TLS12)] {
        assert!(client(&[s1], hints, version).0.is_refused());
        assert_eq!(client(&[s2], hints, version).0, End::Full);
    }
    // And with the primary of the moment.
    dir.publish(revisions(&all, "r1")).unwrap();
    let shown = client(&[s1, s2], true, &TLS13);
    assert_eq!(shown, (End::Full, Some(runs[0].der.clone())));
}

#[test]
fn a_server_that_names_its_cas_is_shown_what_it_can_verify() {
    let (servers, c1, c2) = (Ca::new("servers"), Ca::new("c1"), Ca::new("c2"));
    let (first, second) = (c1.leaf("client"), c2.leaf("client"));
    let own = identity_of(&[("r1", &first), ("r2", &second)], "r2");
    let server_own = identity(&servers.leaf(NAME));
    for way in WAYS {
        let connects = |trusted: &[(&str, &Ca)], hints: bool| {
            let server = server_config(&server_own)
                .require_client(&anchors_in(&ca_dir(trusted)))
                .versions(way.versions);
            let server = if hints { server } else { server.without_hints() };
            let client = client_config(&anchors_in(&ca_dir(&[("s1", &servers)]))).identity(&own);
            let client = client.versions(way.versions).build().unwrap();
            let mut pair = pair(&Arc::new(client), &Arc::new(server.build().unwrap()));
            match pair.finish() {
                End::Full => Some(client_certificates(&pair)[0].clone()),
                _ => None,
            }
        };
        let (first, second) = (Some(first.der.clone()), Some(second.der.clone()));
        assert_eq!(connects(&[("c1", &c1)], true), first, "{way:?}");
        assert_eq!(connects(&[("c1", &c1), ("c2", &c2)], true), second, "{way:?}");
        assert_eq!(connects(&[("c2", &c2)], true), second, "{way:?}");
        assert_eq!(connects(&[("c2", &c2)], false), second, "{way:?}");
        assert_eq!(connects(&[("c1", &c1)], false), None, "{way:?}: the control");
    }
}

/// A provider whose peers may sign by these schemes only. Certificates may be signed by any.
fn only(schemes: &[SignatureScheme]) -> Arc<CryptoProvider> {
    let whole = provider();
    let all = whole.signature_verification_algorithms;
    let mapping = all.mapping.iter().filter(|(scheme, _)| schemes.contains(scheme));
    let mapping: Vec<_> = mapping.copied().collect();
    Arc::new(CryptoProvider {
        signature_verification_algorithms: WebPkiSupportedAlgorithms {
            mapping: mapping.leak(),
            ..all
        },
        ..whole
    })
}

#[test]
fn a_peer_is_shown_a_key_whose_signatures_it_can_verify() {
    use SignatureScheme as S;
    let root = Ca::new("root");
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let [p256, ed25519] = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519]
        .map(|algorithm| KeyPair::generate_for(algorithm).unwrap());
    let [rsa, p256, ed25519] = [&rsa, &p256, &ed25519].map(|key| root.leaf_for(leaf_params(NAME), key));
    let all = [("r1", &rsa), ("r2", &p256), ("r3", &ed25519)];
    let cas = ca_dir(&[("c1", &root)]);
    const RSA: &[S] = &[S::RSA_PSS_SHA256, S::RSA_PKCS1_SHA256];
    for (schemes, primary, expected) in [
        (RSA, "r2", &rsa),
        (RSA, "r3", &rsa),
        (&[S::ECDSA_NISTP256_SHA256], "r1", &p256),
        (&[S::ECDSA_NISTP256_SHA256], "r3", &p256),
        (&[S::ED25519], "r1", &ed25519),
        (&[S::ED25519], "r2", &ed25519),
        (&[S::ED25519, S::RSA_PSS_SHA256], "r2", &ed25519),
        (&[S::ED25519, S::RSA_PSS_SHA256], "r1", &rsa),
        // PKCS#1 in TLS 1.3 is for certificates only.
        (&[S::RSA_PKCS1_SHA256, S::ECDSA_NISTP256_SHA256], "r2", &p256),
    ] {
        let own = identity_of(&all, primary);
        let picky = TrustAnchors::builder(&cas)
            .with_provider(only(schemes))
            .build()
            .unwrap();
        for way in WAYS {
            let case = format!("{schemes:?}, {primary}, {way:?}");
            let server = server_config(&own).no_client().versions(way.versions).build().unwrap();
            let client = client_config(&picky).versions(way.versions).build().unwrap();
            let shown = shown_by_server(client, &Arc::new(server));
            assert_eq!(shown, (End::Full, Some(expected.der.clone())), "{case}");

            let server = server_config(&identity(&p256))
                .require_client(&picky)
                .versions(way.versions);
            let client = client_config(&anchors_in(&cas)).identity(&own).versions(way.versions);
            let mut pair = pair(&Arc::new(client.build().unwrap()), &Arc::new(server.build().unwrap()));
            assert_eq!(pair.finish(), End::Full, "{case}");
            assert_eq!(client_certificates(&pair)[0], expected.der, "{case}");
        }
    }
}

#[test]
fn pkcs1_is_no_reason_for_an_rsa_key_in_tls13() {
    use SignatureScheme as S;
    let root = Ca::new("root");
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let (rsa, p256) = (root.leaf_for(leaf_params(NAME), &rsa), root.leaf(NAME));
    let cas = ca_dir(&[("c1", &root)]);
    let picky = only(&[S::RSA_PKCS1_SHA256, S::ECDSA_NISTP256_SHA256]);
    // rustls offers the suites of TLS 1.3 also where only TLS 1.2 is wanted; others do not.
    let suites = picky.cipher_suites.iter().filter(|suite| suite.tls13().is_none());
    let plain12 = CryptoProvider {
        cipher_suites: suites.copied().collect(),
        ..(*picky).clone()
    };
    let [picky, plain12] =
        [picky, Arc::new(plain12)].map(|provider| TrustAnchors::builder(&cas).with_provider(provider).build().unwrap());
    let both = identity_of(&[("r1", &rsa), ("r2", &p256)], "r1");
    for (own, anchors, version, expected) in [
        (&both, &picky, &TLS13, Some(&p256)),
        (&both, &picky, &TLS12, Some(&p256)),
        (&both, &plain12, &TLS12, Some(&rsa)),
        (&identity(&rsa), &picky, &TLS12, Some(&rsa)),
        (&identity(&rsa), &picky, &TLS13, None),
    ] {
        let server = server_config(own).no_client().build().unwrap();
        let client = client_config(anchors).versions(&[version]).build().unwrap();
        let (end, shown) = shown_by_server(client, &Arc::new(server));
        assert_eq!(!end.is_refused(), expected.is_some(), "{end:?}");
        assert_eq!(shown, expected.map(|leaf| leaf.der.clone()), "{version:?}");
    }
}

#[test]
fn the_name_that_is_asked_for_decides_among_identities() {
    let (s1, s2) = (Ca::new("s1"), Ca::new("s2"));
    let named = |ca: &Ca, names: &[&str]| {
        let mut params = leaf_params(names[0]);
        params.subject_alt_names = names
            .iter()
            .map(|name| rcgen::SanType::DnsName((*name).try_into().unwrap()))
            .collect();
        ca.leaf_with(params)
    };
    let shop = named(&s1, &["shop.test", "*.shop.test", "both.test"]);
    let (blog, new_blog) = (named(&s1, &["blog.test", "both.test"]), named(&s2, &["blog.test"]));
    let api = named(&s1, &["*.api.test", "v1.shop.test"]);
    let blogs = Dir::in_memory(blog.files("r1"));
    let server = server_config(&identity(&shop))
        .no_client()
        .also_identity(&Identity::in_dir(&blogs).unwrap())
        .also_identity(&identity(&api));
    let server = Arc::new(server.build().unwrap());
    // A client that says which name it wants, and takes any.
    let shown = |name: &str, cas: &[(&str, &Ca)], sni: bool| {
        let mut config = client_config(&anchors_in(&ca_dir(cas))).build().unwrap();
        config.enable_sni = sni;
        let name = name.to_owned().try_into().unwrap();
        let mut pair = Pair {
            client: ClientConnection::new(Arc::new(config), name).unwrap().into(),
            server: ServerConnection::new(Arc::clone(&server)).unwrap().into(),
        };
        let flight = sent(&mut pair.client);
        receive(&mut pair.server, &flight).unwrap();
        let flight = sent(&mut pair.server);
        let refused = receive(&mut pair.client, &flight).is_err();
        let leaf = pair
            .client
            .peer_certificates()
            .map(|chain| chain[0].clone().into_owned());
        (leaf, refused)
    };
    let old = [("c1", &s1)];
    for (name, expected) in [
        ("shop.test", &shop),
        ("blog.test", &blog),
        ("BLOG.test", &blog),
        ("v2.api.test", &api),
        ("x.shop.test", &shop),
        ("v1.shop.test", &api),
        ("both.test", &shop),
    ] {
        assert_eq!(shown(name, &old, true), (Some(expected.der.clone()), false), "{name}");
    }
    // Where none fits it is the first one, which the client does not take.
    for name in ["other.test", "api.test", "a.b.api.test", "10.0.0.1"] {
        assert_eq!(shown(name, &old, true), (None, true), "{name}");
    }
    assert_eq!(shown("shop.test", &old, false), (Some(shop.der.clone()), false));
    assert_eq!(shown("blog.test", &old, false), (None, true), "the control");

    // Each rotates for itself, and among its revisions the peer's CAs decide.
    blogs
        .publish(revisions(&[("r1", &blog), ("r2", &new_blog)], "r2"))
        .unwrap();
    assert_eq!(shown("blog.test", &old, true).0, Some(blog.der.clone()));
    let both = [("c1", &s1), ("c2", &s2)];
    assert_eq!(shown("blog.test", &both, true).0, Some(new_blog.der.clone()));
    assert_eq!(shown("both.test", &both, true).0, Some(shop.der.clone()));
}
