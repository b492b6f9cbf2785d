//! Certificate revocation lists: what they refuse, whose they are, and that none is lost by a fault.

use std::sync::Arc;

use keydir::{Dir, Hold};
use keydir_rustls::{RevocationPolicy, TrustAnchors, client_config, server_config};
use rcgen::{CrlDistributionPoint, CrlIssuingDistributionPoint, CrlScope, KeyIdMethod, KeyUsagePurpose, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;

use crate::support::*;

/// Whether today's trust lets a client in: "in", or why not.
fn verdict(anchors: &TrustAnchors, leaf: &Leaf, above: &[&CertificateDer<'static>]) -> String {
    let above: Vec<_> = above.iter().copied().cloned().collect();
    let now = UnixTime::since_unix_epoch(
        anchors
            .live()
            .dir()
            .clock()
            .now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap(),
    );
    let verified = anchors.client_verifier().verify_client_cert(&leaf.der, &above, now);
    verified.map_or_else(|error| error.to_string(), |_| "in".to_owned())
}

const REVOKED: &str = "invalid peer certificate: Revoked";
const UNKNOWN: &str = "invalid peer certificate: UnknownRevocationStatus";

/// What rustls alone says, with these CAs and CRLs.
fn plain(cas: &[&Ca], crls: &[&str], leaf: &Leaf, above: &[&CertificateDer<'static>], allow_unknown: bool) -> String {
    let mut roots = rustls::RootCertStore::empty();
    cas.iter()
        .for_each(|ca| roots.add(ca.certificate.der().clone()).unwrap());
    let provider = Arc::new(crate::provider::provider());
    let crls = crls
        .iter()
        .map(|pem| CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).unwrap());
    let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).with_crls(crls);
    let builder = if allow_unknown {
        builder.allow_unknown_revocation_status()
    } else {
        builder
    };
    let above: Vec<_> = above.iter().copied().cloned().collect();
    let verified = builder
        .build()
        .unwrap()
        .verify_client_cert(&leaf.der, &above, UnixTime::now());
    verified.map_or_else(|error| error.to_string(), |_| "in".to_owned())
}

fn anchors_with(files: Vec<(&str, String)>, policy: RevocationPolicy) -> TrustAnchors {
    TrustAnchors::builder(&Dir::in_memory(files))
        .revocation(policy)
        .build()
        .unwrap()
}

fn problems(anchors: &TrustAnchors) -> String {
    format!("{:?}", anchors.live().load().problems())
}

fn client(scene: &Scene, leaf: &Leaf, way: Way) -> Arc<rustls::ClientConfig> {
    let builder = client_config(&scene.server_ca).identity(&identity(leaf));
    Arc::new(builder.versions(way.versions).build().unwrap())
}

/// Both CAs, the first with a CRL.
fn with_crl(scene: &Scene, crl: &str) -> Vec<(String, String)> {
    let mut files = ca_files(&[("c1", &scene.c1), ("c2", &scene.c2)]);
    files.push(("c1.crl".to_owned(), crl.to_owned()));
    files
}

#[test]
fn whom_a_crl_revokes_gets_in_neither_by_a_handshake_nor_by_a_session_and_all_others_do() {
    for way in WAYS {
        let scene = Scene::new();
        let server = scene.server(way);
        let [bad, good] = ["bad", "good"].map(|name| scene.c1.leaf(name));
        let [a, b] = [&bad, &good].map(|leaf| client(&scene, leaf, way));
        let c = scene.client(&scene.c2, way);
        scene.cas.publish(with_crl(&scene, &scene.c1.crl(1, &[]))).unwrap();
        for client in [&a, &b, &c] {
            assert_eq!(connect(client, &server), End::Full, "{way:?}");
            assert_eq!(connect(client, &server), End::Resumed, "{way:?}");
        }
        scene
            .cas
            .publish(with_crl(&scene, &scene.c1.crl(2, &[&bad.der])))
            .unwrap();
        assert_eq!(problems(&scene.anchors), "[]");
        for _ in 0..5 {
            let end = connect(&a, &server);
            assert_eq!(end, End::Refused("server", REVOKED.to_owned()), "{way:?}");
            assert_eq!(connect(&b, &server), End::Resumed, "{way:?}");
            assert_eq!(connect(&c, &server), End::Resumed, "{way:?}");
        }
        let fresh = client(&scene, &bad, way);
        assert!(connect(&fresh, &server).is_refused(), "{way:?}");

        // A revocation that is taken back, as a certificate on hold may be.
        scene.cas.publish(with_crl(&scene, &scene.c1.crl(3, &[]))).unwrap();
        assert_eq!(connect(&fresh, &server), End::Full, "{way:?}");
    }
}

#[test]
fn a_broken_crl_is_a_fault_and_the_last_good_one_stays_in_force() {
    for way in WAYS {
        let scene = Scene::new();
        let server = scene.server(way);
        let [bad, good] = ["bad", "good"].map(|name| scene.c1.leaf(name));
        let (a, b) = (client(&scene, &bad, way), client(&scene, &good, way));
        let crl = scene.c1.crl(1, &[&bad.der]);
        scene.cas.publish(with_crl(&scene, &crl)).unwrap();
        for broken in [
            "broken",
            &crl[..crl.len() / 2],
            &scene.c1.pem(),
            &Ca::new("clients 1").crl(9, &[]),
        ] {
            scene.cas.publish(with_crl(&scene, broken)).unwrap();
            let set = scene.anchors.live().snapshot();
            let state = set.state(set.get("c1").unwrap()).unwrap();
            assert!(matches!(state.held, Some(Hold::Unusable(_))), "{state:?}");
            assert!(!set.is_adopted());
            assert!(connect(&a, &server).is_refused(), "{way:?}");
            assert!(!connect(&b, &server).is_refused(), "{way:?}");
        }
        // And where it is gone, the same.
        scene
            .cas
            .publish(ca_files(&[("c1", &scene.c1), ("c2", &scene.c2)]))
            .unwrap();
        assert!(
            problems(&scene.anchors).contains("crl-gone"),
            "{}",
            problems(&scene.anchors)
        );
        assert!(connect(&a, &server).is_refused(), "{way:?}");
        assert!(!connect(&b, &server).is_refused(), "{way:?}");
        // Also where the certificate stays in another revision.
        let bundle = vec![("c3.crt", scene.c1.pem() + &scene.c2.pem())];
        scene.cas.publish(bundle).unwrap();
        assert!(connect(&a, &server).is_refused(), "{way:?}");
        assert!(!connect(&b, &server).is_refused(), "{way:?}");
        // Until there is another.
        scene.cas.publish(with_crl(&scene, &scene.c1.crl(2, &[]))).unwrap();
        assert!(!problems(&scene.anchors).contains("crl-gone"));
        assert_eq!(connect(&a, &server), End::Full, "{way:?}");
    }
}

#[test]
fn a_crl_that_cannot_be_used_makes_its_revision_unusable_with_the_reason() {
    let (ca, other) = (Ca::new("same"), Ca::new("same"));
    let good = ca.crl(1, &[]);
    let block = |der: &[u8]| {
        let crl = CertificateRevocationListDer::from(der.to_vec());
        pem_of(&crl)
    };
    let der = CertificateRevocationListDer::from_pem_slice(good.as_bytes()).unwrap();
    for (crl, code, reason) in [
        ("nothing".to_owned(), "no-pem", "it has no PEM block"),
        (good.clone() + &ca.pem(), "foreign-pem", "does not belong there"),
        (good[..100].to_owned(), "bad-pem", "has no end"),
        (block(&[1, 2, 3]), "bad-crl", "cannot be used"),
        (block(&der[..der.len() - 1]), "bad-crl", "cannot be used"),
        (tampered(&good), "crl-of-another-key", "CN=same"),
        (other.crl(1, &[]), "crl-of-another-key", "not signed with the key"),
        (good.clone() + &other.crl(1, &[]), "crl-of-another-key", "CN=same"),
        // What a delta and an indirect CRL say of themselves, critically.
        (block(&with_extension(&der, DELTA)), "bad-crl", "Delta"),
        (block(&with_extension(&der, INDIRECT)), "bad-crl", "Indirect"),
    ] {
        let dir = Dir::in_memory([("c1.crt", ca.pem()), ("c1.crl", crl), ("c2.crt", other.pem())]);
        let anchors = anchors_in(&dir);
        let set = anchors.live().load();
        assert!(set.get("c1").is_none() && set.get("c2").is_some());
        let problem = set
            .problems()
            .iter()
            .find(|problem| problem.code == "unusable")
            .unwrap();
        assert_eq!((problem.cause, &*problem.subject), (Some(code), "c1"), "{problem}");
        assert!(
            problem.message.contains(reason) && problem.message.contains("part crl"),
            "{problem}"
        );
    }
    let fine = Dir::in_memory([("c1.crt", ca.pem()), ("c1.crl", format!("text\n{good}"))]);
    assert_eq!(problems(&anchors_in(&fine)), "[]");
}

/// The same with another signature.
fn tampered(crl: &str) -> String {
    let der = CertificateRevocationListDer::from_pem_slice(crl.as_bytes()).unwrap();
    let mut tampered = der.to_vec();
    *tampered.last_mut().unwrap() ^= 1;
    pem_of(&CertificateRevocationListDer::from(tampered))
}

const DELTA: &[u8] = &[
    0x30, 0x0d, 0x06, 0x03, 0x55, 0x1d, 0x1b, 0x01, 0x01, 0xff, 0x04, 0x03, 0x02, 0x01, 0x01,
];
const INDIRECT: &[u8] = &[
    0x30, 0x0f, 0x06, 0x03, 0x55, 0x1d, 0x1c, 0x01, 0x01, 0xff, 0x04, 0x05, 0x30, 0x03, 0x84, 0x01, 0xff,
];

fn pem_of(crl: &CertificateRevocationListDer<'_>) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN X509 CRL-----\n");
    for chunk in crl.chunks(48) {
        for three in chunk.chunks(3) {
            let mut bits = [0; 4];
            bits[1..=three.len()].copy_from_slice(three);
            let bits = u32::from_be_bytes(bits);
            for digit in 0..4 {
                text.push(match digit <= three.len() {
                    true => DIGITS[usize::try_from(bits >> (18 - 6 * digit) & 63).unwrap()].into(),
                    false => '=',
                });
            }
        }
        text.push('\n');
    }
    text + "-----END X509 CRL-----\n"
}

/// Puts an extension behind those of a CRL. The signature does not fit any more, but who reads on is wrong already.
fn with_extension(crl: &[u8], extension: &[u8]) -> Vec<u8> {
    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
        let header = match (high, low) {
            (0, 0..=0x7f) => vec![tag, low],
            (0, _) => vec![tag, 0x81, low],
            _ => vec![tag, 0x82, high, low],
        };
        [&*header, content].concat()
    }
    fn first(der: &[u8]) -> (&[u8], &[u8], &[u8]) {
        let (header, length) = match der[1] {
            0x81 => (3, usize::from(der[2])),
            0x82 => (4, usize::from(u16::from_be_bytes([der[2], der[3]]))),
            short => (2, usize::from(short)),
        };
        (
            &der[..header + length],
            &der[header..header + length],
            &der[header + length..],
        )
    }
    let (_, list, _) = first(crl);
    let (_, tbs, signature) = first(list);
    let mut parts = Vec::new();
    let mut rest = tbs;
    while !rest.is_empty() {
        let (raw, content, after) = first(rest);
        rest = after;
        parts.push(match raw[0] {
            0xa0 => element(0xa0, &element(0x30, &[first(content).1, extension].concat())),
            _ => raw.to_vec(),
        });
    }
    element(0x30, &[element(0x30, &parts.concat()), signature.to_vec()].concat())
}

#[test]
fn a_ca_with_a_new_key_under_its_old_name_has_a_crl_for_each_key() {
    let (old, new) = (Ca::new("same"), Ca::new("same"));
    let [bad_old, good_old] = ["a", "b"].map(|name| old.leaf(name));
    let [bad_new, good_new] = ["c", "d"].map(|name| new.leaf(name));
    let (of_old, of_new) = (old.crl(7, &[&bad_old.der]), new.crl(1, &[&bad_new.der]));

    // Plain rustls takes the first of the name, and refuses everybody of the other key.
    let cas = [&old, &new];
    let both = [&*of_old, &*of_new];
    assert_eq!(plain(&cas, &both, &good_old, &[], true), "in");
    assert!(plain(&cas, &both, &good_new, &[], true).contains("BadSignature"));
    assert!(plain(&cas, &both[..1], &good_new, &[], true).contains("BadSignature"));

    let two = vec![
        ("c1.crt", old.pem()),
        ("c1.crl", of_old.clone()),
        ("c2.crt", new.pem()),
        ("c2.crl", of_new.clone()),
    ];
    let one = vec![("c.crt", old.pem() + &new.pem()), ("c.crl", of_old.clone() + &of_new)];
    let other = vec![("c.crt", new.pem() + &old.pem()), ("c.crl", of_new + &of_old)];
    for files in [two, one, other] {
        let anchors = anchors_with(files, RevocationPolicy::new().deny_unknown());
        let verdicts = [&bad_old, &good_old, &bad_new, &good_new].map(|leaf| verdict(&anchors, leaf, &[]));
        assert_eq!(verdicts, [REVOKED, "in", REVOKED, "in"]);
    }

    // Only the old key has a CRL.
    let files = vec![("c.crt", old.pem() + &new.pem()), ("c.crl", of_old)];
    let anchors = anchors_with(files, RevocationPolicy::new());
    let verdicts = [&bad_old, &good_old, &bad_new, &good_new].map(|leaf| verdict(&anchors, leaf, &[]));
    assert_eq!(verdicts, [REVOKED, "in", "in", "in"]);
}

#[test]
fn of_two_crls_of_a_key_the_newest_counts_whatever_their_order() {
    let ca = Ca::new("ca");
    let leaf = ca.leaf("a");
    let (clean, revoking) = (ca.crl(255, &[]), ca.crl(256, &[&leaf.der]));
    assert_eq!(
        plain(&[&ca], &[&clean, &revoking], &leaf, &[], false),
        "in",
        "the first"
    );

    let later = ca.crl(300, &[]);
    for (crls, expected) in [
        (vec![&clean, &revoking], REVOKED),
        (vec![&revoking, &clean], REVOKED),
        (vec![&revoking, &later, &clean], "in"),
        (vec![&later, &clean, &revoking], "in"),
    ] {
        let crls: String = crls.into_iter().map(String::as_str).collect();
        let anchors = anchors_with(vec![("c.crt", ca.pem()), ("c.crl", crls)], RevocationPolicy::new());
        assert_eq!(verdict(&anchors, &leaf, &[]), expected);
    }
    // Also over two revisions with the same certificate, and by date if the numbers are the same.
    let mut dated = crl_params(256, &[]);
    dated.this_update = date_time_ymd(2021, 1, 1);
    for (second, expected) in [(clean, REVOKED), (ca.crl_with(dated), "in")] {
        let files = vec![
            ("c1.crt", ca.pem()),
            ("c1.crl", revoking.clone()),
            ("c2.crt", ca.pem()),
            ("c2.crl", second),
        ];
        let anchors = anchors_with(files, RevocationPolicy::new());
        assert_eq!(verdict(&anchors, &leaf, &[]), expected);
    }
    // By neither, if the CA has numbered them wrongly: then both count.
    let clean = ca.crl(256, &[]);
    for crls in [clean.clone() + &revoking, revoking + &clean] {
        let anchors = anchors_with(vec![("c.crt", ca.pem()), ("c.crl", crls)], RevocationPolicy::new());
        assert_eq!(verdict(&anchors, &leaf, &[]), REVOKED);
    }
}

#[test]
fn a_ca_without_a_crl_is_let_be_unless_the_unknown_is_denied() {
    let (c1, c2) = (Ca::new("c1"), Ca::new("c2"));
    let (l1, l2) = (c1.leaf("a"), c2.leaf("b"));
    let crl = c1.crl(1, &[]);
    assert!(plain(&[&c1, &c2], &[&crl], &l2, &[], false).contains("UnknownRevocationStatus"));

    let files = || vec![("c1.crt", c1.pem()), ("c1.crl", crl.clone()), ("c2.crt", c2.pem())];
    let lenient = anchors_with(files(), RevocationPolicy::new());
    assert_eq!([&l1, &l2].map(|leaf| verdict(&lenient, leaf, &[])), ["in", "in"]);
    let strict = anchors_with(files(), RevocationPolicy::new().deny_unknown());
    assert_eq!([&l1, &l2].map(|leaf| verdict(&strict, leaf, &[])), ["in", UNKNOWN]);
}

#[test]
fn an_intermediate_is_looked_up_and_looks_its_own_leaves_up() {
    let root = Ca::new("root");
    let sub = root.sub(ca_params("sub"));
    let other = root.sub(ca_params("other"));
    let [good, bad] = ["a", "b"].map(|name| sub.leaf(name));
    let below_other = other.leaf("c");
    let (above, above_other) = ([sub.certificate.der()], [other.certificate.der()]);
    let (of_root, of_sub) = (root.crl(1, &[other.certificate.der()]), sub.crl(1, &[&bad.der]));

    let files = |crl: &str| vec![("c.crt", root.pem()), ("c.crl", crl.to_owned())];
    let both = of_root.clone() + &of_sub;
    let seen = |crl: &str, policy| {
        let anchors = anchors_with(files(crl), policy);
        assert_eq!(problems(&anchors), "[]");
        [
            verdict(&anchors, &good, &above),
            verdict(&anchors, &bad, &above),
            verdict(&anchors, &below_other, &above_other),
        ]
    };
    let policy = RevocationPolicy::new();
    assert_eq!(seen(&both, policy), ["in", REVOKED, REVOKED]);
    assert_eq!(seen(&both, policy.only_end_entity()), ["in", REVOKED, "in"]);
    assert_eq!(seen(&both, policy.deny_unknown()), ["in", REVOKED, REVOKED]);
    assert_eq!(
        seen(&both, policy.only_end_entity().deny_unknown()),
        ["in", REVOKED, UNKNOWN]
    );
    assert_eq!(seen(&of_root, policy), ["in", "in", REVOKED]);
    assert_eq!(seen(&of_root, policy.deny_unknown()), [UNKNOWN, UNKNOWN, REVOKED]);
    assert_eq!(seen(&of_sub, policy), ["in", REVOKED, "in"]);

    // Of another key under the name of the intermediate, which is none that a peer has shown.
    let impostor = root.sub(ca_params("sub"));
    assert_eq!(seen(&impostor.crl(9, &[&good.der]), policy), ["in", "in", "in"]);
    assert_eq!(
        seen(&(impostor.crl(9, &[&good.der]) + &of_sub), policy),
        ["in", REVOKED, "in"]
    );

    // One that says that it is of that key, and is not.
    let verdicts = seen(&tampered(&of_sub), policy);
    assert!(verdicts[0].contains("InvalidCrlSignatureForPublicKey"), "{verdicts:?}");
    assert_eq!(verdicts[2], "in");
}

#[test]
fn an_intermediate_that_may_not_sign_crls_has_none() {
    let root = Ca::new("root");
    let mut params = ca_params("sub");
    params.key_usages = Vec::new();
    // rcgen signs with the one, peers show the other.
    let signing = root.sub(params);
    let mut params = ca_params("sub");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let shown = root.cross_sign(params, &signing).der().clone();
    let leaf = signing.leaf("a");
    let files = vec![("c.crt", root.pem()), ("c.crl", signing.crl(1, &[]))];
    let anchors = anchors_with(files, RevocationPolicy::new());
    assert_eq!(verdict(&anchors, &leaf, &[signing.certificate.der()]), "in");
    let refused = verdict(&anchors, &leaf, &[&shown]);
    assert!(refused.contains("IssuerNotCrlSigner"), "{refused}");
}

/// As a CA that makes it of its name has.
#[test]
fn two_keys_of_one_name_and_one_key_identifier_are_told_apart() {
    let same = || KeyIdMethod::PreSpecified(vec![7; 20]);
    let ca = || {
        let mut params = ca_params("same");
        params.key_identifier_method = same();
        Ca::with(params)
    };
    let crl = |ca: &Ca, revoked| {
        let mut params = crl_params(1, revoked);
        params.key_identifier_method = same();
        ca.crl_with(params)
    };
    let (old, new) = (ca(), ca());
    let (bad, good) = (old.leaf("a"), new.leaf("b"));
    let files = vec![
        ("c1.crt", old.pem()),
        ("c1.crl", crl(&old, &[&bad.der])),
        ("c2.crt", new.pem()),
        ("c2.crl", crl(&new, &[])),
    ];
    let anchors = anchors_with(files, RevocationPolicy::new().deny_unknown());
    assert_eq!([&bad, &good].map(|leaf| verdict(&anchors, leaf, &[])), [REVOKED, "in"]);
}

/// A CA that signs its own next key, so that two CRLs of one name belong to one path. webpki takes the first for both.
#[test]
fn a_path_with_two_keys_of_one_name_has_a_crl_for_each() {
    let root = Ca::new("same");
    let next = root.sub(ca_params("same"));
    let [good, bad] = ["a", "b"].map(|name| next.leaf(name));
    let above = [next.certificate.der()];
    let (of_root, of_next) = (root.crl(9, &[]), next.crl(1, &[&bad.der]));
    for crls in [[&*of_root, &*of_next], [&*of_next, &*of_root]] {
        assert!(plain(&[&root], &crls, &good, &above, true).contains("BadSignature"));
        let files = vec![("c.crt", root.pem()), ("c.crl", crls.concat())];
        let error = TrustAnchors::in_dir(&Dir::in_memory(files)).unwrap_err().to_string();
        assert!(error.contains("not signed with the key"), "{error}");
        // In two revisions it is clear whose they are.
        let files = vec![
            ("c1.crt", root.pem()),
            ("c1.crl", of_root.clone()),
            ("c2.crt", next.pem()),
            ("c2.crl", of_next.clone()),
        ];
        let anchors = anchors_with(files, RevocationPolicy::new().deny_unknown());
        assert_eq!(verdict(&anchors, &good, &[]), "in");
        assert_eq!(
            [&good, &bad].map(|leaf| verdict(&anchors, leaf, &above)),
            ["in", REVOKED]
        );
    }
}

#[test]
fn a_crl_counts_for_its_key_in_whatever_revision_that_stands() {
    let (root, other) = (Ca::new("root"), Ca::new("other"));
    let sub = root.sub(ca_params("sub"));
    let [good, bad] = ["a", "b"].map(|name| sub.leaf(name));
    let files = vec![
        ("c1.crt", root.pem()),
        ("c1.crl", sub.crl(1, &[&bad.der])),
        ("c2.crt", sub.pem()),
    ];
    let anchors = anchors_with(files, RevocationPolicy::new());
    assert_eq!(
        [&good, &bad].map(|leaf| verdict(&anchors, leaf, &[])),
        ["in", REVOKED],
        "by the anchor sub, whose own revision has no CRL"
    );

    // Nothing changes about the anchor that has vouched.
    let files = |crl: String| vec![("c1.crt", root.pem()), ("c2.crt", other.pem()), ("c2.crl", crl)];
    let dir = Dir::in_memory(files(other.crl(1, &[])));
    let anchors = anchors_in(&dir);
    let above = [sub.certificate.der()];
    let seen = || [&good, &bad].map(|leaf| verdict(&anchors, leaf, &above));
    assert_eq!(seen(), ["in", "in"]);
    dir.publish(files(other.crl(1, &[]) + &sub.crl(1, &[&bad.der])))
        .unwrap();
    assert_eq!(seen(), ["in", REVOKED]);
}

#[test]
fn a_broken_crl_in_the_revision_of_another_ca_lets_nobody_in() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let [good, bad] = ["a", "b"].map(|name| ca.leaf(name));
    let unaffected = other.leaf("c");
    let crl = ca.crl(1, &[&bad.der]);
    let seen = |crls: String| {
        let files = vec![("c1.crt", ca.pem()), ("c2.crt", other.pem()), ("c2.crl", crls)];
        let anchors = anchors_with(files, RevocationPolicy::new());
        [&good, &bad, &unaffected].map(|leaf| verdict(&anchors, leaf, &[]))
    };
    assert_eq!(seen(crl.clone()), ["in", REVOKED, "in"]);
    let broken = seen(tampered(&crl));
    for refused in &broken[..2] {
        assert!(refused.contains("InvalidCrlSignatureForPublicKey"), "{broken:?}");
    }
    assert_eq!(broken[2], "in");
    // One that is whole takes the place of an older one that is not.
    assert_eq!(seen(tampered(&crl) + &ca.crl(2, &[&bad.der])), ["in", REVOKED, "in"]);
    // Of another key of that name, by its own word, it is not of this CA.
    assert_eq!(seen(tampered(&Ca::new("ca").crl(2, &[]))), ["in", "in", "in"]);
}

#[test]
fn a_crl_in_parts_is_taken_as_a_whole() {
    let ca = Ca::new("ca");
    let [l1, l2] = ["a", "b"].map(|name| {
        let mut params = leaf_params(name);
        let uris = vec![format!("http://crl.test/{name}")];
        params.crl_distribution_points = vec![CrlDistributionPoint { uris }];
        ca.leaf_with(params)
    });
    let part = |number, name: &str, scope, revoked: &[&CertificateDer<'_>]| {
        let mut params = crl_params(number, revoked);
        params.issuing_distribution_point = Some(CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint {
                uris: vec![format!("http://crl.test/{name}")],
            },
            scope,
        });
        ca.crl_with(params)
    };
    let seen = |crl: String| {
        let files = vec![("c.crt", ca.pem()), ("c.crl", crl)];
        let anchors = anchors_with(files, RevocationPolicy::new().deny_unknown());
        [&l1, &l2].map(|leaf| verdict(&anchors, leaf, &[]))
    };
    let users = Some(CrlScope::UserCertsOnly);
    assert_eq!(seen(part(1, "a", users, &[])), ["in", UNKNOWN]);
    assert_eq!(seen(part(1, "a", Some(CrlScope::CaCertsOnly), &[])), [UNKNOWN, UNKNOWN]);
    assert_eq!(
        seen(part(1, "a", None, &[]) + &part(2, "b", None, &[&l2.der])),
        ["in", REVOKED]
    );
    // Newest by its own part only: the other's number says nothing of it.
    assert_eq!(
        seen(part(9, "a", None, &[]) + &part(2, "b", None, &[&l2.der])),
        ["in", REVOKED]
    );
    assert_eq!(
        seen(part(1, "b", users, &[&l2.der]) + &part(2, "b", users, &[])),
        [UNKNOWN, "in"]
    );
}

/// What is published is in force, also where it is less than before. But hardly anybody means it.
#[test]
fn an_older_crl_counts_and_is_told_of_and_so_is_one_that_is_missing() {
    const TOLD: &str = "is let in again";
    events();
    let (ca, other) = (Ca::new("lost ca"), Ca::new("lost other"));
    let sub = ca.sub(ca_params("lost sub"));
    let [leaf, below] = [ca.leaf("a"), sub.leaf("b")];
    let above = [sub.certificate.der()];
    let (old, new, newest) = (ca.crl(1, &[]), ca.crl(2, &[&leaf.der]), ca.crl(3, &[]));
    let of_sub = sub.crl(1, &[&below.der]);
    let files = |crls: &[&String]| {
        let crls = crls.iter().map(|crl| crl.as_str()).collect();
        vec![
            ("c1.crt", ca.pem()),
            ("c1.crl", crls),
            ("c2.crt", other.pem()),
            ("c2.crl", other.crl(1, &[&other.leaf("c").der])),
        ]
    };
    let dir = Dir::in_memory(files(&[&old, &of_sub]));
    let anchors = anchors_in(&dir);
    for (crls, verdicts, told_of) in [
        (&[&new, &of_sub][..], [REVOKED, REVOKED], [0, 0]),
        (&[&old, &new, &of_sub], [REVOKED, REVOKED], [0, 0]),
        (&[&old, &of_sub], ["in", REVOKED], [1, 0]),
        (&[&new, &of_sub], [REVOKED, REVOKED], [1, 0]),
        // Taken back by the CA itself.
        (&[&newest, &of_sub], ["in", REVOKED], [1, 0]),
        (&[&newest], ["in", "in"], [1, 1]),
        (&[&newest, &of_sub], ["in", REVOKED], [1, 1]),
    ] {
        dir.publish(files(crls)).unwrap();
        let seen = [verdict(&anchors, &leaf, &[]), verdict(&anchors, &below, &above)];
        assert_eq!(seen, verdicts);
        let told_now = ["lost ca", "lost sub"].map(|issuer| told(&[TOLD, issuer]));
        assert_eq!(told_now, told_of);
    }
    // With their CA they are gone for good.
    dir.publish(files(&[]).split_off(2)).unwrap();
    assert_eq!(anchors.live().load().whole().len(), 1);
    assert_eq!(told(&[TOLD, "lost"]), 2);
}

#[test]
fn a_crl_of_no_ca_in_the_directory_is_told_of() {
    const TOLD: &str = "of no CA in the directory";
    events();
    let (ca, stray) = (Ca::new("found"), Ca::new("stray"));
    let of_stray = stray.crl(1, &[]);
    let files = |number| [("c1.crt", ca.pem()), ("c1.crl", ca.crl(number, &[]) + &of_stray)];
    let dir = Dir::in_memory(files(1));
    let anchors = anchors_in(&dir);
    assert_eq!((told(&[TOLD, "CN=stray"]), told(&[TOLD, "CN=found"])), (1, 0));
    dir.publish(files(2)).unwrap();
    assert_eq!(problems(&anchors), "[]");
    assert_eq!(told(&[TOLD, "CN=stray"]), 1, "once");
}

#[test]
fn an_expired_crl_counts_on_and_is_told_of_or_is_enforced() {
    events();
    for (number, way) in WAYS.into_iter().enumerate() {
        for enforced in [false, true] {
            let hand = Hand::at(2030);
            let name = format!("expiring {number} {enforced}");
            let (root, clients) = (Ca::new("servers"), Ca::new(&name));
            let crl = |number, until, revoked: &[&CertificateDer<'_>]| {
                let mut params = crl_params(number, revoked);
                params.next_update = date_time_ymd(until, 1, 1);
                clients.crl_with(params)
            };
            let [good, bad] = ["good", "bad"].map(|name| clients.leaf(name));
            let files = |crl: String| [("c1.crt", clients.pem()), ("c1.crl", crl)];
            let cas = Dir::in_memory_at(files(crl(1, 2031, &[&bad.der])), hand.clone());
            let policy = match enforced {
                true => RevocationPolicy::new().enforce_expiry(),
                false => RevocationPolicy::new(),
            };
            let anchors = TrustAnchors::builder(&cas).revocation(policy).build().unwrap();
            let server = server_config(&identity(&root.leaf(NAME))).require_client(&anchors);
            let server = server.versions(way.versions);
            let server = if way.tickets { server.tickets() } else { server };
            let server = Arc::new(server.build().unwrap());
            let trusted = anchors_in(&ca_dir(&[("s1", &root)]));
            let [good, bad] = [&good, &bad].map(|leaf| {
                let client = client_config(&trusted).identity(&identity(leaf));
                Arc::new(client.versions(way.versions).build().unwrap())
            });
            assert_eq!(connect(&good, &server), End::Full);
            assert_eq!(connect(&good, &server), End::Resumed);
            let of_this = ["a CRL has expired", &name, &format!("enforced={enforced}")];
            assert_eq!(told(&of_this), 0);

            // Nothing was loaded since: the verdict itself ends.
            hand.set(2031);
            let end = connect(&good, &server);
            match enforced {
                true => assert!(
                    matches!(&end, End::Refused("server", why) if why.contains("revocation list")
                        || why.contains("ExpiredRevocationList")),
                    "{way:?}: {end:?}"
                ),
                false => assert_eq!(end, End::Resumed, "{way:?}"),
            }
            assert!(connect(&bad, &server).is_refused());
            let losses = |anchors: &TrustAnchors| format!("{:?}", anchors.live().load().whole());
            let before = losses(&anchors);
            cas.reload().unwrap();
            assert_ne!(before, losses(&anchors), "time alone has it looked at again");
            assert_eq!(told(&of_this), 1, "{way:?} {enforced}");
            cas.reload().unwrap();
            assert_eq!(told(&of_this), 1);

            cas.publish(files(crl(2, 2040, &[]))).unwrap();
            for client in [&good, &bad] {
                assert!(!connect(client, &server).is_refused(), "{way:?}");
            }
        }
    }
}

#[test]
fn a_client_config_resumes_no_more_once_a_server_may_be_revoked() {
    for way in WAYS {
        let scene = Scene::new();
        let trusted = Dir::in_memory(ca_files(&[("s1", &scene.root)]));
        let server = |leaf: &Leaf| {
            let server = server_config(&identity(leaf)).no_client().versions(way.versions);
            let server = if way.tickets { server.tickets() } else { server };
            Arc::new(server.build().unwrap())
        };
        let [bad, good] = [(), ()].map(|()| scene.root.leaf(NAME));
        let (bad_server, good_server) = (server(&bad), server(&good));
        let anchors = anchors_in(&trusted);
        let client = || {
            let client = client_config(&anchors).versions(way.versions);
            Arc::new(client.build().unwrap())
        };
        let files = |crl: String| [("s1.crt", scene.root.pem()), ("s1.crl", crl)];
        let (to_bad, to_good) = (client(), client());
        assert_eq!(connect(&to_bad, &bad_server), End::Full);
        assert_eq!(connect(&to_good, &good_server), End::Full);
        // One that revokes nothing, and its next issue: nothing is lost.
        trusted.publish(files(scene.root.crl(1, &[]))).unwrap();
        assert_eq!(connect(&to_bad, &bad_server), End::Resumed, "{way:?}");
        trusted.publish(files(scene.root.crl(2, &[]))).unwrap();
        assert_eq!(connect(&to_bad, &bad_server), End::Resumed, "{way:?}");
        trusted.publish(files(scene.root.crl(3, &[&bad.der]))).unwrap();
        let end = connect(&to_bad, &bad_server);
        assert_eq!(end, End::Refused("client", REVOKED.to_owned()), "{way:?}");
        assert_eq!(connect(&to_good, &good_server), End::Full, "{way:?}");
        let after = client();
        assert_eq!(connect(&after, &good_server), End::Full, "{way:?}");
        trusted.publish(files(scene.root.crl(4, &[&bad.der]))).unwrap();
        assert_eq!(connect(&after, &good_server), End::Resumed, "{way:?}: the same again");
    }
}

/// Lists that lie in the directory and were superseded count for nothing, so what they revoke was let in.
#[test]
fn a_client_config_resumes_no_more_once_what_was_superseded_is_in_force_again() {
    for way in WAYS {
        let root = Ca::new("servers");
        let leaf = root.leaf(NAME);
        let server = server_config(&identity(&leaf)).no_client().versions(way.versions);
        let server = Arc::new(server.build().unwrap());
        let on_hold = root.crl(1, &[&leaf.der]);
        let released = on_hold.clone() + &root.crl(2, &[]);
        let files = |crls: &str| [("s1.crt", root.pem()), ("s1.crl", crls.to_owned())];
        let again = [on_hold.clone(), released.clone() + &root.crl(3, &[&leaf.der])];
        for revoking in again {
            let dir = Dir::in_memory(files(&released));
            let anchors = anchors_in(&dir);
            let client = client_config(&anchors).versions(way.versions).build().unwrap();
            let client = Arc::new(client);
            assert_eq!(connect(&client, &server), End::Full, "{way:?}");
            dir.publish(files(&(released.clone() + &root.crl(3, &[])))).unwrap();
            assert_eq!(connect(&client, &server), End::Resumed, "{way:?}: the same again");
            dir.publish(files(&revoking)).unwrap();
            let end = connect(&client, &server);
            assert_eq!(end, End::Refused("client", REVOKED.to_owned()), "{way:?}");
        }
    }
}

#[test]
fn a_client_config_resumes_no_more_once_a_server_is_unknown_or_its_crl_outdated() {
    for way in WAYS {
        let root = Ca::new("servers");
        let server = server_config(&identity(&root.leaf(NAME))).no_client();
        let server = Arc::new(server.versions(way.versions).build().unwrap());
        let files = |crl: String| [("s1.crt", root.pem()), ("s1.crl", crl)];
        let mut ends = crl_params(1, &[]);
        ends.next_update = date_time_ymd(2031, 1, 1);
        let ends = root.crl_with(ends);
        let policy = RevocationPolicy::new();
        for (policy, expected) in [
            (policy.enforce_expiry(), "ExpiredRevocationList"),
            (policy.deny_unknown(), "UnknownRevocationStatus"),
        ] {
            let hand = Hand::at(2030);
            let dir = Dir::in_memory_at(files(ends.clone()), hand.clone());
            let anchors = TrustAnchors::builder(&dir).revocation(policy).build().unwrap();
            let client = client_config(&anchors).versions(way.versions);
            let client = Arc::new(client.build().unwrap());
            assert_eq!(connect(&client, &server), End::Full);
            assert_eq!(connect(&client, &server), End::Resumed);
            if policy == RevocationPolicy::new().deny_unknown() {
                // A list is there, but not of that CA.
                dir.publish(files(Ca::new("another").crl(1, &[]))).unwrap();
            } else {
                hand.set(2031);
                dir.reload().unwrap();
            }
            let end = connect(&client, &server);
            let says = |why: &str| why.contains(expected) || why.contains("revocation list");
            assert!(
                matches!(&end, End::Refused("client", why) if says(why)),
                "{way:?}: {end:?}"
            );
        }
    }
}

#[cfg(feature = "tokio")]
mod connections {
    use std::time::Duration;

    use keydir_rustls::{Acceptor, Connector, Ended, HandshakeError, TlsStream};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    type Ends = (TlsStream<DuplexStream>, TlsStream<DuplexStream>);

    async fn meet(connector: &Connector, acceptor: &Acceptor) -> Result<Ends, HandshakeError> {
        let (near, far) = duplex(1 << 16);
        let client = async {
            let mut tls = connector.connect(NAME.try_into().unwrap(), near).await?;
            tls.read_u8().await.map_err(HandshakeError::Tls)?;
            Ok(tls)
        };
        let server = async {
            let mut tls = acceptor.accept(far).await?;
            tls.write_u8(1).await.map_err(HandshakeError::Tls)?;
            tls.flush().await.map_err(HandshakeError::Tls)?;
            Ok(tls)
        };
        let (client, server) = timeout(PATIENCE, async { tokio::join!(client, server) }).await.unwrap();
        Ok((client?, server?))
    }

    #[tokio::test]
    async fn a_live_connection_of_whom_a_crl_revokes_ends() {
        for way in WAYS {
            let scene = Scene::new();
            let [bad, good] = ["bad", "good"].map(|name| scene.c1.leaf(name));
            let server_leaf = scene.root.leaf(NAME);
            let server_cas = Dir::in_memory(ca_files(&[("s1", &scene.root)]));
            let server_ca = anchors_in(&server_cas);
            let builder = server_config(&identity(&server_leaf)).require_client(&scene.anchors);
            let builder = builder.versions(way.versions);
            let builder = if way.tickets { builder.tickets() } else { builder };
            let acceptor = builder.acceptor().unwrap();
            let [to_bad, to_good] = [&bad, &good].map(|leaf| {
                let builder = client_config(&server_ca).identity(&identity(leaf));
                builder.versions(way.versions).connector().unwrap()
            });
            let (bad_client, bad_server) = meet(&to_bad, &acceptor).await.unwrap();
            let (good_client, good_server) = meet(&to_good, &acceptor).await.unwrap();
            let told = bad_server.connection().ended();
            scene
                .cas
                .publish(with_crl(&scene, &scene.c1.crl(1, &[&bad.der])))
                .unwrap();
            assert!(!bad_server.connection().stands() && good_server.connection().stands());
            let why = timeout(PATIENCE, told).await.unwrap();
            assert!(matches!(why, Ended::Peer { ca: Some(ca), .. } if ca == "c1"), "{way:?}");
            assert!(meet(&to_bad, &acceptor).await.is_err(), "{way:?}");
            let (again, _) = meet(&to_good, &acceptor).await.unwrap();
            assert!(again.connection().is_resumed(), "{way:?}");

            // And the other way round: the server is revoked.
            assert!(bad_client.connection().stands() && good_client.connection().stands());
            let crl = scene.root.crl(1, &[&server_leaf.der]);
            let files = [("s1.crt", scene.root.pem()), ("s1.crl", crl)];
            server_cas.publish(files).unwrap();
            assert!(!good_client.connection().stands(), "{way:?}");
            assert!(meet(&to_good, &acceptor).await.is_err(), "{way:?}");
        }
    }
}
