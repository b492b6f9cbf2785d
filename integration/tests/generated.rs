//! What keydir-rotate generates is what keydir's uses take: each use, and mutual TLS while CAs rotate and leaves are
//! revoked.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use keydir::{Dir, Secret};
use keydir_integration::never_to_be_printed;
use keydir_integration::views::AnyUse;
use keydir_rotate::generate::{
    Ca, CaProfile, Issued, KeyAlgorithm, KeyPair, LeafProfile, LeafUsage, Revoked, password, symmetric, token,
    token_sha256,
};
use keydir_rustls::{Identity, RevocationPolicy, TrustAnchors, client_config, server_config};
use rustls::{ClientConnection, Connection, ServerConnection};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const ALGORITHMS: [KeyAlgorithm; 4] = [
    KeyAlgorithm::Ed25519,
    KeyAlgorithm::EcdsaP256,
    KeyAlgorithm::EcdsaP384,
    KeyAlgorithm::Rsa { bits: 2048 },
];

fn now() -> SystemTime {
    SystemTime::now()
}

fn ca(name: &str, id: &str) -> Ca {
    let ca = Ca::create(&CaProfile::new(name, 90 * DAY), &id.parse().unwrap(), now()).unwrap();
    watched(ca.key());
    ca
}

fn leaf(ca: &Ca, algorithm: KeyAlgorithm) -> Issued {
    let mut profile = LeafProfile::new([LeafUsage::Server, LeafUsage::Client], DAY);
    profile.dns = vec!["localhost".to_owned()];
    profile.algorithm = algorithm;
    let leaf = ca.issue(&profile, now()).unwrap();
    watched(&leaf.key);
    leaf
}

/// Puts a piece of a key on the list of what no output may hold.
fn watched(key: &Secret) {
    let text = std::str::from_utf8(key.expose()).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('-')).collect();
    // Of RSA the numbers in the middle are secret; of all others those right after the head.
    let line = if lines.len() > 6 {
        lines[lines.len() / 2]
    } else {
        lines[0]
    };
    never_to_be_printed(&line[48..64]);
}

fn files(id: &str, leaf: &Issued) -> [(String, Secret); 2] {
    [
        (format!("{id}.crt.primary"), Secret::from(leaf.crt.as_str())),
        (format!("{id}.key"), leaf.key.clone()),
    ]
}

/// A directory with these is opened for this use, presents where the use does, and finds no fault.
fn taken(name: &str, files: impl IntoIterator<Item = (String, Secret)>) {
    let dir = Dir::in_memory(files);
    let live = dir
        .view(AnyUse::named(name))
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let set = live.load();
    assert!(set.problems().is_empty(), "{name}: {:?}", set.problems());
    assert!(set.iter().next().is_some(), "{name}");
    let presents = keydir::uses::ALL
        .iter()
        .find(|usage| usage.name() == name)
        .unwrap()
        .has_primary();
    assert_eq!(set.primary().is_ok(), presents, "{name}");
}

#[test]
fn random_secrets_are_taken_by_their_uses() {
    for bytes in [16, 32, 64, 1024] {
        taken("symmetric", [("r1.key.primary".to_owned(), symmetric(bytes).unwrap())]);
    }
    let (token, password) = (token().unwrap(), password().unwrap());
    for secret in [&token, &password] {
        never_to_be_printed(std::str::from_utf8(secret.expose()).unwrap());
    }
    let digest = Secret::from(token_sha256(&token));
    taken("token-check", [("r1.token-sha256".to_owned(), digest.clone())]);
    // Together, they have to agree.
    let both = [
        ("r1.token".to_owned(), token.clone()),
        ("r1.token-sha256".to_owned(), digest),
    ];
    taken("token-check", both);
    taken("token", [("r1.token.primary".to_owned(), token)]);
    taken("password-login", [("app.password.primary".to_owned(), password)]);
}

#[test]
fn key_pairs_are_taken_by_who_signs_and_who_verifies() {
    for algorithm in ALGORITHMS {
        let pair = KeyPair::generate(algorithm).unwrap();
        watched(&pair.private);
        let public = ("r1.public".to_owned(), Secret::from(pair.public));
        taken(
            "signing",
            [("r1.private.primary".to_owned(), pair.private), public.clone()],
        );
        taken("verifying", [public]);
    }
}

#[test]
fn certificates_are_taken_by_each_use_that_has_them() {
    for algorithm in ALGORITHMS {
        let mut profile = CaProfile::new("mesh", 90 * DAY);
        profile.algorithm = algorithm;
        let root = Ca::create(&profile, &"r1".parse().unwrap(), now()).unwrap();
        let issuing = root
            .issue_ca(&CaProfile::new("issuing", 60 * DAY), &"r1".parse().unwrap(), now())
            .unwrap();
        for ca in [&root, &issuing] {
            watched(ca.key());
            let issued = leaf(ca, algorithm);
            taken("tls-identity", files("r7", &issued));
            taken("certificate-login", files("app", &issued));
            taken(
                "pinned",
                [("r7.crt".to_owned(), Secret::from(issued.certificate.pem()))],
            );
        }
        let anchor = Secret::from(root.certificate().pem());
        let list = root.crl(&[], 1, now(), now() + DAY).unwrap();
        taken(
            "anchors",
            [
                ("r1.crt".to_owned(), anchor.clone()),
                ("r1.crl".to_owned(), Secret::from(list)),
            ],
        );
        taken("anchors", [("r1.crt".to_owned(), anchor)]);
        // The directory of the CA is an identity's by its form, and a reader finds that it hangs together.
        taken(
            "tls-identity",
            [
                ("r1.crt.primary".to_owned(), Secret::from(issuing.crt())),
                ("r1.key".to_owned(), issuing.key().clone()),
            ],
        );
    }
}

/// Anchors as a trust directory has them: the certificate and, for those that have one, the list.
fn trust(cas: &[(&str, &Ca, Option<String>)]) -> TrustAnchors {
    let files = cas.iter().flat_map(|(id, ca, list)| {
        let list = list.clone().map(|list| (format!("{id}.crl"), list));
        [Some((format!("{id}.crt"), ca.certificate().pem())), list]
    });
    let dir = Dir::in_memory(files.flatten());
    let policy = RevocationPolicy::new().deny_unknown();
    let builder = TrustAnchors::builder(&dir);
    let with_lists = cas.iter().any(|(_, _, list)| list.is_some());
    let builder = if with_lists {
        builder.revocation(policy)
    } else {
        builder
    };
    builder.build().unwrap()
}

/// Mutual TLS, in memory: both ends show this leaf, and both trust these.
fn handshake(anchors: &TrustAnchors, leaf: &Issued) -> Result<(), rustls::Error> {
    let identity = Identity::in_dir(&Dir::in_memory(files("r7", leaf))).unwrap();
    let server = server_config(&identity).require_client(anchors).build().unwrap();
    let client = client_config(anchors).identity(&identity).build().unwrap();
    let name = "localhost".try_into().unwrap();
    let mut server = Connection::from(ServerConnection::new(Arc::new(server)).unwrap());
    let mut client = Connection::from(ClientConnection::new(Arc::new(client), name).unwrap());
    while server.is_handshaking() || client.is_handshaking() {
        send(&mut client, &mut server)?;
        send(&mut server, &mut client)?;
    }
    Ok(())
}

fn send(from: &mut Connection, to: &mut Connection) -> Result<(), rustls::Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut bytes = bytes.as_slice();
    while !bytes.is_empty() {
        to.read_tls(&mut bytes).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn leaves_of_either_revision_get_in_while_both_are_trusted() {
    for algorithm in ALGORITHMS {
        let (old, new) = (ca("mesh", "r1"), ca("mesh", "r2"));
        let (old_leaf, new_leaf) = (leaf(&old, algorithm), leaf(&new, algorithm));
        let trusted = |cas: &[(&str, &Ca, Option<String>)], leaf: &Issued| handshake(&trust(cas), leaf).is_ok();
        assert!(trusted(&[("r1", &old, None)], &old_leaf));
        assert!(!trusted(&[("r1", &old, None)], &new_leaf));
        for leaf in [&old_leaf, &new_leaf] {
            assert!(trusted(&[("r1", &old, None), ("r2", &new, None)], leaf));
        }
        assert!(!trusted(&[("r2", &new, None)], &old_leaf));
    }
}

#[test]
fn an_issuing_ca_and_a_cross_certificate_lead_to_the_root() {
    let (old, mut new) = (ca("mesh", "r1"), ca("mesh", "r2"));
    old.cross_sign(&mut new, now()).unwrap();
    let issuing = new
        .issue_ca(&CaProfile::new("issuing", 60 * DAY), &"r1".parse().unwrap(), now())
        .unwrap();
    for ca in [&new, &issuing] {
        let leaf = leaf(ca, KeyAlgorithm::EcdsaP256);
        handshake(&trust(&[("r1", &old, None)]), &leaf).unwrap();
        handshake(&trust(&[("r2", &new, None)]), &leaf).unwrap();
    }
}

#[test]
fn whom_a_list_names_stays_out_and_each_ca_has_a_list_of_its_own() {
    let (old, new) = (ca("mesh", "r1"), ca("mesh", "r2"));
    let leaves = [&old, &old, &new, &new].map(|ca| leaf(ca, KeyAlgorithm::EcdsaP256));
    let list = |ca: &Ca, revoked: &Issued, number| {
        let serial = revoked.certificate.serial().clone();
        let revoked = Revoked { serial, since: now() };
        Some(ca.crl(&[revoked], number, now(), now() + DAY).unwrap())
    };
    let anchors = trust(&[
        ("r1", &old, list(&old, &leaves[0], 1)),
        ("r2", &new, list(&new, &leaves[2], 9)),
    ]);
    let got_in = leaves.each_ref().map(|leaf| handshake(&anchors, leaf).is_ok());
    assert_eq!(got_in, [false, true, false, true]);
    // A CA without a list keeps its leaves out, where lists are asked for.
    let anchors = trust(&[("r1", &old, list(&old, &leaves[0], 1)), ("r2", &new, None)]);
    assert!(handshake(&anchors, &leaves[3]).is_err());
}
