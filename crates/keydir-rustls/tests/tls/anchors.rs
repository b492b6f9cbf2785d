//! What may be an anchor, and what an anchor vouches for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keydir::{Dir, RevisionId};
use keydir_rustls::{Identity, TrustAnchors, client_config, server_config};
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;

use crate::provider::{counting, counting_looks};
use crate::support::*;

fn ders(leaf: &Leaf, above: &[&Ca]) -> Vec<CertificateDer<'static>> {
    let above = above.iter().map(|ca| ca.certificate.der().clone());
    std::iter::once(leaf.der.clone()).chain(above).collect()
}

fn client_of(anchors: &TrustAnchors, leaf: &Leaf, above: &[&Ca]) -> Option<String> {
    let revision = anchors.revision_of_client(&ders(leaf, above));
    revision.map(|revision: RevisionId| revision.to_string())
}

fn codes(anchors: &TrustAnchors) -> String {
    format!("{:?}", anchors.live().load().problems())
}

#[test]
fn a_certificate_minted_with_the_key_of_a_leaf_is_refused() {
    // The triple that cert-manager writes.
    let ca = Ca::new("ca");
    let tls = ca.leaf(NAME);
    let minted = Ca::of_leaf(&tls).leaf("anyone");
    let triple = [
        ("tls.crt", tls.crt.clone()),
        ("tls.key", tls.key.clone()),
        ("ca.crt", ca.pem()),
    ];
    let dir = Dir::in_memory(triple);
    assert!(Identity::in_dir(&dir).is_ok());
    let anchors = anchors_in(&dir);
    let above = Ca::of_leaf(&tls);
    assert_eq!(client_of(&anchors, &minted, &[]), None);
    assert_eq!(client_of(&anchors, &minted, &[&above]), None);
    assert_eq!(client_of(&anchors, &tls, &[]).unwrap(), "ca");

    // Without its key it could pass for an anchor.
    let dir = Dir::in_memory([("c1.crt", ca.pem()), ("r1.crt", tls.crt.clone())]);
    let anchors = anchors_in(&dir);
    assert!(codes(&anchors).contains("not a CA"), "{}", codes(&anchors));
    assert_eq!(client_of(&anchors, &minted, &[]), None);

    // And no whole revision counts that holds one.
    let error = TrustAnchors::in_dir(&Dir::in_memory([("r1.crt", ca.pem() + &tls.crt)]));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("not a CA"), "{error}");
}

#[test]
fn only_a_ca_is_an_anchor() {
    let mut no_ca = ca_params("no ca");
    no_ca.is_ca = IsCa::ExplicitNoCa;
    let mut no_sign = ca_params("may not sign");
    no_sign.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let mut silent = ca_params("says nothing");
    silent.is_ca = IsCa::NoCa;
    for params in [no_ca, no_sign, silent] {
        let dir = ca_dir(&[("r1", &Ca::with(params))]);
        let error = TrustAnchors::in_dir(&dir).unwrap_err().to_string();
        assert!(error.contains("not a CA"), "{error}");
    }
    let mut no_usage = ca_params("no keyUsage");
    no_usage.key_usages = Vec::new();
    assert!(TrustAnchors::in_dir(&ca_dir(&[("r1", &Ca::with(no_usage))])).is_ok());
}

#[test]
fn crt_and_pem_are_both_taken() {
    let (c1, c2, c3) = (Ca::new("c1"), Ca::new("c2"), Ca::new("c3"));
    let dir = Dir::in_memory([
        ("r1.crt", c1.pem()),
        ("r1.pem", format!("two of them\n{}{}", c2.pem(), c3.pem())),
    ]);
    let anchors = anchors_in(&dir);
    for ca in [&c1, &c2, &c3] {
        assert_eq!(client_of(&anchors, &ca.leaf("a"), &[]).unwrap(), "r1");
    }
    assert_eq!(anchors.live().load().whole().len(), 3);
}

#[test]
fn a_ca_with_a_new_key_under_its_old_name_works() {
    for key_ids in [true, false] {
        let [c1, c2] = [(), ()].map(|()| Ca::new("same"));
        let dir = ca_dir(&[("c1", &c1), ("c2", &c2)]);
        let anchors = anchors_in(&dir);
        let leaf = |ca: &Ca| {
            let mut params = leaf_params("a");
            params.use_authority_key_identifier_extension = key_ids;
            ca.leaf_with(params)
        };
        let (l1, l2) = (leaf(&c1), leaf(&c2));
        assert_eq!(client_of(&anchors, &l1, &[]).unwrap(), "c1");
        assert_eq!(client_of(&anchors, &l2, &[]).unwrap(), "c2");
        dir.publish(ca_files(&[("c2", &c2)])).unwrap();
        assert_eq!(client_of(&anchors, &l1, &[]), None);
        assert_eq!(client_of(&anchors, &l2, &[]).unwrap(), "c2");
    }
}

#[test]
fn a_hundred_and_fifty_cas_of_one_name_work_which_webpki_alone_refuses() {
    let cas: Vec<_> = (0..150).map(|_| Ca::new("same")).collect();
    let files = cas.iter().enumerate().map(|(n, ca)| (format!("c{n:03}.crt"), ca.pem()));
    let anchors = anchors_in(&Dir::in_memory(files));
    let mut params = leaf_params("a");
    params.use_authority_key_identifier_extension = false;
    let leaf = cas[149].leaf_with(params);
    assert_eq!(client_of(&anchors, &leaf, &[]).unwrap(), "c149");

    let mut roots = rustls::RootCertStore::empty();
    cas.iter()
        .for_each(|ca| roots.add(ca.certificate.der().clone()).unwrap());
    let provider = Arc::new(crate::provider::provider());
    let webpki = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
    let now = rustls::pki_types::UnixTime::now();
    let refused = webpki.build().unwrap().verify_client_cert(&leaf.der, &[], now);
    assert!(refused.is_err());
}

#[test]
fn an_anchor_counts_inside_its_validity() {
    let hand = Hand::at(2030);
    let [mut early, mut late] = ["early", "late"].map(ca_params);
    years(&mut early, 2020, 2032);
    years(&mut late, 2031, 2040);
    let (early, late) = (Ca::with(early), Ca::with(late));
    let both = [("r1.crt", early.pem() + &late.pem())];
    let dir = Dir::in_memory_at(both, hand.clone());
    let anchors = anchors_in(&dir);
    let seen = |year| {
        hand.set(year);
        [&early, &late].map(|ca| client_of(&anchors, &ca.leaf("a"), &[]).is_some())
    };
    assert_eq!(seen(2030), [true, false]);
    // The walk itself looks at the dates, whether or not the set was combined again.
    assert_eq!(seen(2032), [false, false]);
    for (year, expected, trusted) in [(2031, [true, true], 2), (2035, [false, true], 1)] {
        hand.set(year);
        dir.reload().unwrap();
        assert_eq!(seen(year), expected, "{year}");
        assert_eq!(anchors.live().load().whole().len(), trusted, "{year}");
    }
}

#[test]
fn what_an_anchor_allows_is_enforced() {
    let mut flat = ca_params("flat");
    flat.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let mut servers = ca_params("servers only");
    servers.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let (flat, servers, free) = (Ca::with(flat), Ca::with(servers), Ca::new("free"));
    let dir = ca_dir(&[("flat", &flat), ("servers", &servers), ("free", &free)]);
    let anchors = anchors_in(&dir);

    let below = |ca: &Ca| {
        let sub = ca.sub(ca_params("sub"));
        (sub.leaf("a"), sub)
    };
    let (leaf, sub) = below(&flat);
    assert_eq!(client_of(&anchors, &flat.leaf("a"), &[]).unwrap(), "flat");
    assert_eq!(client_of(&anchors, &leaf, &[&sub]), None);
    // Its own next key is no CA between (RFC 5280, section 4.2.1.9).
    let next_key = flat.sub(ca_params("flat"));
    assert_eq!(client_of(&anchors, &next_key.leaf("a"), &[&next_key]).unwrap(), "flat");
    let (leaf, sub) = below(&free);
    assert_eq!(client_of(&anchors, &leaf, &[&sub]).unwrap(), "free");
    assert_eq!(client_of(&anchors, &leaf, &[]), None);

    let leaf = servers.leaf(NAME);
    assert_eq!(client_of(&anchors, &leaf, &[]), None);
    let by = anchors.revision_of_server(std::slice::from_ref(&leaf.der));
    assert_eq!(by.unwrap(), "servers");
}

#[test]
fn a_chain_is_followed_through_whatever_else_was_sent() {
    let root = Ca::new("root");
    let sub = root.sub(ca_params("sub"));
    let leaf = sub.leaf("a");
    let anchors = anchors_in(&ca_dir(&[("c1", &root)]));
    let others: Vec<_> = (0..20).map(|n| Ca::new(&format!("other {n}"))).collect();
    let above: Vec<_> = others.iter().chain([&root, &sub]).collect();
    assert_eq!(client_of(&anchors, &leaf, &above).unwrap(), "c1");

    // Made-up certificates that all lead on are not followed without end.
    let loops: Vec<_> = (0..20).map(|_| Ca::new("sub")).collect();
    let above: Vec<_> = loops.iter().chain([&sub]).collect();
    let above = ders(&leaf, &above);
    let now = rustls::pki_types::UnixTime::now();
    let verified = anchors
        .client_verifier()
        .verify_client_cert(&leaf.der, &above[1..], now);
    let error = verified.unwrap_err().to_string();
    assert!(error.contains("ChainTooLong(9)"), "{error}");
}

#[test]
fn a_made_up_chain_costs_no_more_signatures_than_webpki_allows_it() {
    static CHECKS: AtomicUsize = AtomicUsize::new(0);
    let provider = counting(&CHECKS);
    let cas: Vec<_> = (0..20).map(|_| Ca::new("same")).collect();
    let files = cas.iter().enumerate().map(|(n, ca)| (format!("c{n}.crt"), ca.pem()));
    let anchors = TrustAnchors::builder(&Dir::in_memory(files))
        .with_provider(Arc::new(provider))
        .build()
        .unwrap();
    let impostor = Ca::new("same");
    let subs: Vec<_> = (0..8).map(|_| impostor.sub(ca_params("sub"))).collect();
    let above: Vec<_> = subs.iter().collect();
    assert_eq!(client_of(&anchors, &subs[0].leaf("a"), &above), None);
    assert_eq!(
        CHECKS.swap(0, Ordering::SeqCst),
        100 + 20,
        "8 ways to each of 20 anchors, were there no limit"
    );

    assert_eq!(client_of(&anchors, &cas[19].leaf("a"), &[]).unwrap(), "c19");
    assert_eq!(CHECKS.swap(0, Ordering::SeqCst), 1, "the key id leads to the right one");
}

#[test]
fn once_a_made_up_chain_has_cost_enough_no_further_anchor_is_looked_at() {
    static CHECKS: AtomicUsize = AtomicUsize::new(0);
    static LOOKS: AtomicUsize = AtomicUsize::new(0);
    let provider = counting_looks(&CHECKS, &LOOKS);
    let algorithms = provider.signature_verification_algorithms.all.len();
    let cas: Vec<_> = (0..150).map(|_| Ca::new("same")).collect();
    let files = cas.iter().enumerate().map(|(n, ca)| (format!("c{n}.crt"), ca.pem()));
    let anchors = TrustAnchors::builder(&Dir::in_memory(files))
        .with_provider(Arc::new(provider))
        .build()
        .unwrap();
    let impostor = Ca::new("same");
    // Each of them leads to each anchor, and to all others.
    let subs: Vec<_> = (0..8).map(|_| impostor.sub(ca_params("same"))).collect();
    let above: Vec<_> = subs.iter().collect();
    assert_eq!(client_of(&anchors, &subs[0].leaf("a"), &above), None);
    assert_eq!(CHECKS.load(Ordering::SeqCst), 100 + 150);
    // The anchor at which it is enough is followed to the end, up to webpki's own limit.
    let looks = LOOKS.load(Ordering::SeqCst) / algorithms;
    assert!(looks <= 100 + 150 + 100, "{looks}");
}

#[test]
fn an_intermediate_can_be_the_anchor() {
    let root = Ca::new("root");
    let sub = root.sub(ca_params("sub"));
    let anchors = anchors_in(&ca_dir(&[("c1", &sub)]));
    assert_eq!(client_of(&anchors, &sub.leaf("a"), &[&sub, &root]).unwrap(), "c1");
    assert_eq!(client_of(&anchors, &root.leaf("a"), &[&root]), None);
}

#[test]
fn a_pinned_certificate_is_accepted_by_itself_and_under_its_name() {
    let hand = Hand::at(2030);
    let mut params = leaf_params(NAME);
    // What `openssl req -x509` makes, and rustls refuses otherwise.
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    years(&mut params, 2020, 2031);
    let pinned = Ca::with(params.clone());
    let key = rcgen::KeyPair::generate().unwrap();
    let own = params.self_signed(&key).unwrap();
    let leaf = Leaf {
        crt: own.pem(),
        key: key.serialize_pem(),
        der: own.der().clone(),
    };
    let server = server_config(&identity(&leaf)).no_client().build().unwrap();
    let server = Arc::new(server);

    let dir = Dir::in_memory_at([("p1.pem", own.pem())], hand.clone());
    let pins = TrustAnchors::pinned_in_dir(&dir).unwrap();
    let client = Arc::new(client_config(&pins).build().unwrap());
    assert_eq!(connect(&client, &server), End::Full);
    let by = pins.revision_of_server(std::slice::from_ref(&leaf.der));
    assert_eq!(by.unwrap(), "p1");

    // Nothing that it signs is.
    let minted = Ca::of_leaf(&leaf).leaf(NAME);
    assert_eq!(pins.revision_of_server(&[minted.der, leaf.der.clone()]), None);

    hand.set(2031);
    let client = Arc::new(client_config(&pins).build().unwrap());
    let expired = connect(&client, &server);
    assert!(
        matches!(&expired, End::Refused("client", why) if why.contains("xpired")),
        "{expired:?}"
    );

    hand.set(2030);
    dir.publish([("p2.crt", pinned.pem())]).unwrap();
    let client = Arc::new(client_config(&pins).build().unwrap());
    assert!(connect(&client, &server).is_refused());

    let elsewhere = client_config(&TrustAnchors::pinned_in_dir(&Dir::in_memory([("p1.crt", own.pem())])).unwrap());
    let elsewhere = Arc::new(elsewhere.build().unwrap());
    let name = "elsewhere.test".try_into().unwrap();
    let mut pair = Pair {
        client: rustls::ClientConnection::new(elsewhere, name).unwrap().into(),
        server: rustls::ServerConnection::new(server).unwrap().into(),
    };
    assert!(matches!(pair.finish(), End::Refused("client", why) if why.contains("not valid for name")));
}

#[test]
fn a_pin_is_exactly_one_certificate() {
    let (a, b) = (Ca::new("a").pem(), Ca::new("b").pem());
    for files in [
        vec![("p1.crt", a.clone() + &b)],
        vec![("p1.crt", a.clone()), ("p1.pem", b.clone())],
    ] {
        let error = TrustAnchors::pinned_in_dir(&Dir::in_memory(files)).unwrap_err();
        assert!(error.to_string().contains("exactly one certificate"), "{error}");
    }
}

/// How many signatures it costs to ask for a client once more, after each of several publications.
#[test]
fn what_was_verified_stands_as_long_as_its_anchor_and_the_crls_do() {
    static CHECKS: AtomicUsize = AtomicUsize::new(0);
    let [c1, c2, c3] = ["c1", "c2", "c3"].map(Ca::new);
    let sub = c1.sub(ca_params("sub"));
    let dir = ca_dir(&[("c1", &c1), ("c2", &c2)]);
    let provider = Arc::new(counting(&CHECKS));
    let anchors = TrustAnchors::builder(&dir).with_provider(provider).build().unwrap();
    let (direct, below) = (c1.leaf("a"), sub.leaf("b"));
    let costs = || {
        [(&direct, &[][..]), (&below, &[&sub][..])].map(|(leaf, above)| {
            CHECKS.store(0, Ordering::SeqCst);
            let revision = client_of(&anchors, leaf, above);
            (revision.unwrap_or_default(), CHECKS.load(Ordering::SeqCst))
        })
    };
    let by = |revision: &str, direct, below| [(revision.to_owned(), direct), (revision.to_owned(), below)];
    assert_eq!(costs(), by("c1", 1, 2));
    assert_eq!(costs(), by("c1", 0, 0));

    dir.publish(ca_files(&[("c1", &c1), ("c2", &c2), ("c3", &c3)])).unwrap();
    assert_eq!(costs(), by("c1", 0, 0), "another CA has come");
    dir.publish(ca_files(&[("c1", &c1), ("c3", &c3)])).unwrap();
    assert_eq!(
        costs(),
        by("c1", 0, 2),
        "one has gone, and might come back by an intermediate"
    );
    assert_eq!(costs(), by("c1", 0, 0));

    let with_crl = |crl: String| {
        let mut files = ca_files(&[("c1", &c1), ("c3", &c3)]);
        files.push(("c1.crl".to_owned(), crl));
        files
    };
    let crl = c1.crl(1, &[]);
    dir.publish(with_crl(crl.clone())).unwrap();
    assert_eq!(costs(), by("c1", 1, 2), "there is a CRL");
    let mut files = with_crl(crl);
    files.push(("c2.crt".to_owned(), c2.pem()));
    dir.publish(files).unwrap();
    assert_eq!(
        costs(),
        by("c1", 0, 2),
        "the CRL is the same, one that was removed is back"
    );
    dir.publish(with_crl(c1.crl(2, &[&direct.der]))).unwrap();
    assert_eq!(costs()[0].0, "", "it is revoked");
    assert_eq!(costs()[1].0, "c1");

    // Under another id it is another revision that vouches.
    dir.publish(ca_files(&[("c4", &c1), ("c3", &c3)])).unwrap();
    assert_eq!(costs()[1].0, "c4");
    dir.publish(ca_files(&[("c3", &c3)])).unwrap();
    assert_eq!(costs(), by("", 0, 0));
}
