//! What may be an identity, and that each kind of key works.

use std::sync::Arc;

use keydir::Dir;
use keydir_rustls::{Identity, TrustAnchors, client_config, server_config};
use rcgen::{KeyPair, RsaKeySize};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivatePkcs8KeyDer;

use crate::support::*;

fn reason(crt: &str, key: &str) -> String {
    let dir = Dir::in_memory([("r1.crt", crt), ("r1.key", key)]);
    Identity::in_dir(&dir).unwrap_err().to_string()
}

#[test]
fn what_cannot_be_presented_is_refused_with_the_reason() {
    let root = Ca::new("root");
    let sub = root.sub(ca_params("sub"));
    let (leaf, other) = (sub.leaf(NAME), sub.leaf(NAME));
    let damaged = "-----BEGIN PRIVATE KEY-----\nAAEC\n-----END PRIVATE KEY-----\n".to_owned();
    for (crt, key, expected) in [
        (
            &leaf.crt,
            &other.key,
            "the private key is not the one of the first certificate",
        ),
        (
            &(leaf.crt.clone() + &root.pem()),
            &leaf.key,
            "certificate 1 was not issued by certificate 2",
        ),
        (
            &(sub.pem() + &leaf.crt),
            &leaf.key,
            "certificate 1 was not issued by certificate 2",
        ),
        (
            &(leaf.crt.clone() + &sub.pem() + &leaf.crt),
            &leaf.key,
            "certificate 2 was not issued by certificate 3",
        ),
        (&leaf.key, &leaf.crt, "PRIVATE KEY"),
        (&leaf.crt, &damaged, "the private key is damaged"),
        (&leaf.crt, &"nothing".to_owned(), "it has no PEM block PRIVATE KEY"),
    ] {
        let reason = reason(crt, key);
        assert!(reason.contains(expected), "{reason}");
    }
    let chained = leaf.chained(&sub).chained(&root);
    assert!(Identity::in_dir(&Dir::in_memory(chained.files("r1"))).is_ok());
}

#[test]
fn no_byte_of_a_key_is_told() {
    let leaf = Ca::new("root").leaf(NAME);
    let body = leaf.key.lines().nth(1).unwrap().to_owned();
    let broken = leaf.key.replace(&body, &format!("{body}!"));
    let told = reason(&leaf.crt, &broken);
    assert!(told.contains("not base64") && !told.contains(&body[..8]), "{told}");
    let identity = identity(&leaf);
    let shown = format!("{identity:?} {:?}", identity.primary());
    assert!(!shown.contains(&body[..8]), "{shown}");
}

#[test]
fn a_validity_that_ends_before_it_begins_is_no_identity() {
    let mut params = leaf_params(NAME);
    years(&mut params, 2031, 2030);
    let leaf = Ca::new("root").leaf_with(params);
    let reason = reason(&leaf.crt, &leaf.key);
    assert!(reason.contains("ends before it begins"), "{reason}");
}

/// The key in the old form: what PKCS#8 wraps.
fn old_form(key: &KeyPair, label: &str) -> String {
    pem(label, octet_string(&key.serialize_der()))
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", base64(der))
}

fn octet_string(pkcs8: &[u8]) -> &[u8] {
    let (_, mut rest) = tlv(pkcs8);
    loop {
        let (tag, content, after) = next(rest);
        if tag == 4 {
            return content;
        }
        rest = after;
    }
}

fn tlv(der: &[u8]) -> (u8, &[u8]) {
    let (tag, content, _) = next(der);
    (tag, content)
}

fn next(der: &[u8]) -> (u8, &[u8], &[u8]) {
    let (length, header) = match der[1] {
        short @ 0..0x80 => (usize::from(short), 2),
        long => {
            let bytes = usize::from(long & 0x7f);
            let length = der[2..2 + bytes].iter().fold(0, |n, b| n << 8 | usize::from(*b));
            (length, 2 + bytes)
        }
    };
    let (content, rest) = der[header..].split_at(length);
    (der[0], content, rest)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |n: u32| char::from(DIGITS[(n & 63) as usize]);
    bytes
        .chunks(3)
        .map(|chunk| {
            let n = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
            let digits: String = [18, 12, 6, 0].map(|shift| digit(n >> shift)).iter().collect();
            format!("{:=<4}", &digits[..=chunk.len()])
        })
        .collect()
}

#[test]
fn every_kind_of_key_works_in_every_version() {
    let root = Ca::new("root");
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let [p256, p384, ed25519] = [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
    ]
    .map(|algorithm| KeyPair::generate_for(algorithm).unwrap());
    let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    for (key, pem) in [
        (&rsa, rsa.serialize_pem()),
        (&rsa, old_form(&rsa, "RSA PRIVATE KEY")),
        (&p256, p256.serialize_pem()),
        (&p256, old_form(&p256, "EC PRIVATE KEY")),
        (&p256, parameters.to_owned() + &old_form(&p256, "EC PRIVATE KEY")),
        (&p384, p384.serialize_pem()),
        (&p384, old_form(&p384, "EC PRIVATE KEY")),
        (&ed25519, ed25519.serialize_pem()),
    ] {
        let leaf = Leaf {
            key: pem,
            ..root.leaf_for(leaf_params(NAME), key)
        };
        let (identity, anchors) = (identity(&leaf), anchors_in(&ca_dir(&[("c1", &root)])));
        for way in WAYS {
            let server = server_config(&identity).require_client(&anchors).versions(way.versions);
            let client = client_config(&anchors).identity(&identity).versions(way.versions);
            let (client, server) = (client.build().unwrap(), server.build().unwrap());
            let end = connect(&Arc::new(client), &Arc::new(server));
            assert_eq!(end, End::Full, "{:?} {way:?}", key.algorithm());
        }
    }
}

fn providers() -> Vec<Arc<CryptoProvider>> {
    vec![
        #[cfg(feature = "aws-lc-rs")]
        Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
        #[cfg(feature = "ring")]
        Arc::new(rustls::crypto::ring::default_provider()),
    ]
}

#[test]
fn a_key_of_a_curve_works_in_both_forms_with_each_provider() {
    let root = Ca::new("root");
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let leaf = root.leaf_for(leaf_params(NAME), &key);
        for pem in [key.serialize_pem(), old_form(&key, "EC PRIVATE KEY")] {
            for provider in providers() {
                let leaf = Leaf {
                    key: pem.clone(),
                    ..leaf.clone()
                };
                let dir = Dir::in_memory(leaf.files("r1"));
                let identity = Identity::with_provider(&dir, Arc::clone(&provider)).unwrap();
                let anchors = TrustAnchors::builder(&ca_dir(&[("c1", &root)]))
                    .with_provider(provider)
                    .build()
                    .unwrap();
                let server = server_config(&identity).require_client(&anchors).build();
                let client = client_config(&anchors).identity(&identity).build();
                let end = connect(&Arc::new(client.unwrap()), &Arc::new(server.unwrap()));
                assert_eq!(end, End::Full, "{algorithm:?}");
            }
        }
    }
}

#[test]
fn a_key_with_rubbish_behind_it_is_what_the_provider_takes_it_for() {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let leaf = Ca::new("root").leaf_for(leaf_params(NAME), &key);
    let der = [key.serialize_der(), b"rubbish".to_vec()].concat();
    let pem = pem("PRIVATE KEY", &der);
    for provider in providers() {
        let key = PrivatePkcs8KeyDer::from(der.clone());
        let taken = provider.key_provider.load_private_key(key.into()).is_ok();
        let dir = Dir::in_memory([("r1.crt", leaf.crt.as_str()), ("r1.key", &pem)]);
        let identity = Identity::with_provider(&dir, provider);
        assert_eq!(identity.is_ok(), taken, "{identity:?}");
    }
}

#[test]
fn the_primary_of_the_moment_is_presented() {
    let root = Ca::new("root");
    let (first, second) = (root.leaf(NAME), root.leaf(NAME));
    let dir = Dir::in_memory(first.files("r1"));
    let server = server_config(&Identity::in_dir(&dir).unwrap()).no_client().build();
    let server = Arc::new(server.unwrap());
    let anchors = anchors_in(&ca_dir(&[("c1", &root)]));
    let shown = || {
        let client = Arc::new(client_config(&anchors).build().unwrap());
        let mut pair = pair(&client, &server);
        assert_eq!(pair.finish(), End::Full);
        pair.client.peer_certificates().unwrap()[0].clone().into_owned()
    };
    assert_eq!(shown(), first.der);
    let both = |primary: &str| {
        let files = first.files("r1").into_iter().chain(second.files("r2"));
        files
            .map(|(name, content)| {
                let name = name.trim_end_matches(".primary").to_owned();
                let mark = if name == format!("{primary}.crt") {
                    ".primary"
                } else {
                    ""
                };
                (name + mark, content)
            })
            .collect::<Vec<_>>()
    };
    dir.publish(both("r1")).unwrap();
    assert_eq!(shown(), first.der);
    dir.publish(both("r2")).unwrap();
    assert_eq!(shown(), second.der);
}
