//! A CA that was removed, and comes back because one that stays has signed its key.

use std::sync::Arc;

use keydir::Dir;
use keydir_rustls::{RevocationPolicy, TrustAnchors, client_config, server_config};
use rustls::pki_types::{CertificateDer, UnixTime};

use crate::support::*;

const TOLD: &str = "comes back by a cross certificate";

struct Crossed {
    old: Ca,
    new: Ca,
    dir: Dir,
    leaf: Leaf,
    /// The old CA's key, signed by the new CA.
    cross: CertificateDer<'static>,
    name: String,
}

impl Crossed {
    fn new(name: &str) -> Self {
        let name = format!("crossed {name}");
        let (old, new) = (Ca::new(&name), Ca::new("new"));
        let cross = new.cross_sign(ca_params(&name), &old).der().clone();
        Self {
            dir: ca_dir(&[("c1", &old), ("c2", &new)]),
            leaf: old.leaf("client"),
            old,
            new,
            cross,
            name,
        }
    }

    fn is_in(&self, anchors: &TrustAnchors, leaf: &Leaf) -> bool {
        let verifier = anchors.client_verifier();
        let above = std::slice::from_ref(&self.cross);
        verifier.verify_client_cert(&leaf.der, above, UnixTime::now()).is_ok()
    }

    fn told(&self) -> usize {
        told(&[TOLD, &self.name])
    }
}

#[test]
fn a_removed_ca_that_comes_back_is_told_of_once_and_refused_on_request() {
    events();
    for refuse in [false, true] {
        let it = Crossed::new(&format!("refuse {refuse}"));
        let builder = TrustAnchors::builder(&it.dir);
        let builder = if refuse { builder.refuse_cross_signed() } else { builder };
        let anchors = builder.build().unwrap();
        // While it is an anchor, nobody minds the other way.
        assert!(it.is_in(&anchors, &it.leaf));
        assert_eq!(it.told(), 0);
        it.dir.publish(ca_files(&[("c2", &it.new)])).unwrap();
        for leaf in [&it.leaf, &it.old.leaf("another")] {
            for _ in 0..3 {
                assert_eq!(it.is_in(&anchors, leaf), !refuse);
            }
        }
        assert_eq!(it.told(), 1);
        assert_eq!(told(&[&it.name, &format!("refused={refuse}")]), 1);
        // Another certificate for the same key is other news.
        let again = Crossed {
            cross: it.new.cross_sign(ca_params(&it.name), &it.old).der().clone(),
            ..it
        };
        assert_eq!(again.is_in(&anchors, &again.old.leaf("a third")), !refuse);
        assert_eq!(again.told(), 2);
        // What the new CA itself has signed is not concerned.
        let below = again.new.leaf("client");
        assert!(again.is_in(&anchors, &below));
        let other = again.new.sub(ca_params("an intermediate"));
        let leaf = other.leaf("client");
        let above = [other.certificate.der().clone()];
        let verified = anchors
            .client_verifier()
            .verify_client_cert(&leaf.der, &above, UnixTime::now());
        assert!(verified.is_ok());
        assert_eq!(again.told(), 2);
        // It returns as an anchor.
        again
            .dir
            .publish(ca_files(&[("c1", &again.old), ("c2", &again.new)]))
            .unwrap();
        assert!(again.is_in(&anchors, &again.leaf));
    }
}

#[test]
fn a_ca_that_has_only_expired_is_not_removed() {
    events();
    let hand = Hand::at(2030);
    let name = "crossed, expired";
    let mut params = ca_params(name);
    years(&mut params, 2020, 2031);
    let (old, new) = (Ca::with(params), Ca::new("new"));
    let cross = new.cross_sign(ca_params(name), &old).der().clone();
    let files = [("c1.crt", old.pem()), ("c2.crt", new.pem())];
    let dir = Dir::in_memory_at(files, hand.clone());
    let anchors = TrustAnchors::builder(&dir).refuse_cross_signed().build().unwrap();
    hand.set(2032);
    dir.reload().unwrap();
    assert_eq!(anchors.live().load().whole().len(), 1);
    let leaf = old.leaf("client");
    assert_eq!(anchors.revision_of_client(&[leaf.der, cross]).unwrap(), "c2");
    assert_eq!(told(&[TOLD, name]), 0);
}

#[test]
fn the_sessions_of_a_removed_ca_that_was_signed_across_are_refused_on_request_too() {
    for way in WAYS {
        for refuse in [false, true] {
            let it = Crossed::new(&format!("sessions {way:?} {refuse}"));
            let root = Ca::new("servers");
            let builder = TrustAnchors::builder(&it.dir);
            let builder = if refuse { builder.refuse_cross_signed() } else { builder };
            let server = server_config(&identity(&root.leaf(NAME))).require_client(&builder.build().unwrap());
            let server = server.versions(way.versions);
            let server = if way.tickets { server.tickets() } else { server };
            let server = Arc::new(server.build().unwrap());
            let mut leaf = it.old.leaf("client");
            leaf.crt += &it.new.cross_sign(ca_params(&it.name), &it.old).pem();
            let client = client_config(&anchors_in(&ca_dir(&[("s1", &root)]))).identity(&identity(&leaf));
            let client = Arc::new(client.versions(way.versions).build().unwrap());
            assert_eq!(connect(&client, &server), End::Full);
            it.dir.publish(ca_files(&[("c2", &it.new)])).unwrap();
            let end = connect(&client, &server);
            match refuse {
                true => assert!(end.is_refused(), "{way:?}: {end:?}"),
                false => assert_eq!(end, End::Resumed, "{way:?}: what the chain says is true"),
            }
        }
    }
}

#[test]
fn a_crl_of_the_ca_that_has_signed_across_refuses_it_as_well() {
    let it = Crossed::new("revoked");
    let anchors = TrustAnchors::builder(&it.dir)
        .revocation(RevocationPolicy::new())
        .build()
        .unwrap();
    let mut files = ca_files(&[("c2", &it.new)]);
    files.push(("c2.crl".to_owned(), it.new.crl(1, &[&it.cross])));
    it.dir.publish(files).unwrap();
    assert!(!it.is_in(&anchors, &it.leaf));
}
