//! Chains that everyone shall accept.

use std::process::Command;

use keydir_rotate::generate::{Ca, CaProfile, Certificate};

use crate::support::{ALGORITHMS, DAY, accepted, bundle, ca, leaf, now, profile, root_and_issuing};
use crate::support::{End, Folder, output, refused};

#[test]
fn a_leaf_below_a_root_with_keys_of_each_kind() {
    for algorithm in ALGORITHMS {
        let mut authority = CaProfile::new("mesh", 90 * DAY);
        authority.algorithm = *algorithm;
        let ca = Ca::create(&authority, &"r1".parse().unwrap(), now()).unwrap();
        let mut profile = profile();
        profile.algorithm = *algorithm;
        let leaf = ca.issue(&profile, now()).unwrap();
        assert_eq!(leaf.crt.matches("BEGIN").count(), 1);
        accepted(&bundle(&[&ca]), &leaf.crt, Some("a.example"));
    }
}

#[test]
fn a_leaf_below_an_issuing_ca_with_trust_in_the_root() {
    for algorithm in ALGORITHMS {
        let (root, issuing) = root_and_issuing(*algorithm);
        let leaf = leaf(&issuing);
        assert_eq!(leaf.crt.matches("BEGIN").count(), 2);
        accepted(&bundle(&[&root]), &leaf.crt, Some("a.example"));
    }
}

#[test]
fn three_cas_above_a_leaf() {
    let root = ca("r1");
    let regional = root
        .issue_ca(&CaProfile::new("regional", 80 * DAY), &"r1".parse().unwrap(), now())
        .unwrap();
    let issuing = regional
        .issue_ca(&CaProfile::new("issuing", 70 * DAY), &"r1".parse().unwrap(), now())
        .unwrap();
    let again = Ca::load(issuing.crt().as_bytes(), issuing.key()).unwrap();
    for issuing in [issuing, again] {
        let leaf = leaf(&issuing);
        assert_eq!(leaf.crt.matches("BEGIN").count(), 3);
        accepted(&bundle(&[&root]), &leaf.crt, Some("a.example"));
    }
}

#[test]
fn two_revisions_of_a_ca_in_one_bundle_in_either_order() {
    let (old, new) = (ca("r1"), ca("r2"));
    for leaf in [leaf(&old), leaf(&new)] {
        accepted(&bundle(&[&old, &new]), &leaf.crt, Some("a.example"));
        accepted(&bundle(&[&new, &old]), &leaf.crt, Some("a.example"));
    }
    refused(&bundle(&[&old]), &leaf(&new).crt, End::Server, None);
}

#[test]
fn two_roots_with_an_issuing_ca_each_in_one_bundle_in_either_order() {
    let profile = |name: &str| CaProfile::new(name, 90 * DAY);
    let generation = |id: &str| {
        let id = id.parse().unwrap();
        let root = Ca::create(&profile("root"), &id, now()).unwrap();
        let issuing = root.issue_ca(&profile("issuing"), &id, now()).unwrap();
        (root, issuing)
    };
    let (old, new) = (generation("r1"), generation("r2"));
    for leaf in [leaf(&old.1), leaf(&new.1)] {
        accepted(&bundle(&[&old.0, &new.0]), &leaf.crt, Some("a.example"));
        accepted(&bundle(&[&new.0, &old.0]), &leaf.crt, Some("a.example"));
    }
}

#[test]
fn a_leaf_with_a_cross_certificate_with_trust_in_the_old_root_only() {
    let (old, mut new) = (ca("r1"), ca("r2"));
    refused(&bundle(&[&old]), &leaf(&new).crt, End::Client, None);
    old.cross_sign(&mut new, now()).unwrap();
    let again = Ca::load(new.crt().as_bytes(), new.key()).unwrap();
    for new in [&new, &again] {
        let leaf = leaf(new);
        assert_eq!(leaf.crt.matches("BEGIN").count(), 2);
        for anchors in [&[&old][..], &[new], &[&old, new], &[new, &old]] {
            accepted(&bundle(anchors), &leaf.crt, Some("a.example"));
        }
    }
    // The cross-certificate is of the leaf's chain: one that was issued below another CA has none.
    assert_eq!(leaf(&old).crt.matches("BEGIN").count(), 1);
}

#[test]
fn an_issuing_ca_whose_root_is_vouched_for_by_the_old_one() {
    let profile = |name: &str| CaProfile::new(name, 90 * DAY);
    let id = "r2".parse().unwrap();
    let old = ca("r1");
    let mut new = Ca::create(&profile("root"), &id, now()).unwrap();
    let before = new.issue_ca(&profile("issuing"), &id, now()).unwrap();
    old.cross_sign(&mut new, now()).unwrap();
    let after = new.issue_ca(&profile("issuing"), &id, now()).unwrap();
    // One that was there already is given the cross-certificate, which its root holds after its own.
    let cross = Certificate::all_from_pem(new.crt().as_bytes()).unwrap().swap_remove(1);
    let before = Ca::load((before.crt() + &cross.pem()).as_bytes(), before.key()).unwrap();
    for issuing in [before, after] {
        let leaf = leaf(&issuing);
        assert_eq!(leaf.crt.matches("BEGIN").count(), 3);
        for anchors in [&[&old][..], &[&new], &[&old, &new], &[&new, &old]] {
            accepted(&bundle(anchors), &leaf.crt, Some("a.example"));
        }
    }
}

#[test]
fn a_root_that_a_ca_below_another_vouches_for() {
    let root = ca("r1");
    let middle = root
        .issue_ca(&CaProfile::new("middle", 80 * DAY), &"r1".parse().unwrap(), now())
        .unwrap();
    let mut new = ca("r2");
    middle.cross_sign(&mut new, now()).unwrap();
    let leaf = leaf(&new);
    assert_eq!(leaf.crt.matches("BEGIN").count(), 3);
    accepted(&bundle(&[&root]), &leaf.crt, Some("a.example"));
}

#[test]
fn a_root_that_is_kept_with_its_issuing_ca_is_not_sent() {
    let (root, issuing) = root_and_issuing(ALGORITHMS[1]);
    let again = Ca::load((issuing.crt() + &root.crt()).as_bytes(), issuing.key()).unwrap();
    let leaf = leaf(&again);
    assert_eq!(leaf.crt.matches("BEGIN").count(), 2);
    accepted(&bundle(&[&root]), &leaf.crt, Some("a.example"));
}

#[test]
fn names_of_each_kind() {
    let ca = ca("r1");
    let mut profile = profile();
    profile.dns.push("*.b.example".to_owned());
    profile.ip = vec!["10.1.2.3".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    profile.uri = vec!["https://a.example/x".to_owned(), "urn:uuid:0".to_owned()];
    profile.common_name = Some("J\u{e9}r\u{f4}me".to_owned());
    let leaf = ca.issue(&profile, now()).unwrap();
    for host in ["a.example", "x.b.example", "10.1.2.3", "2001:db8::1"] {
        accepted(&bundle(&[&ca]), &leaf.crt, Some(host));
    }
    for host in ["b.example", "x.y.b.example", "10.1.2.4", "2001:db8::2"] {
        refused(&bundle(&[&ca]), &leaf.crt, End::Server, Some(host));
    }
}

#[test]
fn a_spiffe_id_and_no_subject() {
    let (root, issuing) = root_and_issuing(ALGORITHMS[1]);
    let mut profile = profile();
    profile.dns.clear();
    profile.spiffe = Some("spiffe://example.org/ns/prod/sa/api".to_owned());
    let leaf = issuing.issue(&profile, now()).unwrap();
    accepted(&bundle(&[&root]), &leaf.crt, None);

    let text = extensions(&leaf.crt);
    assert!(text.starts_with("subject=\n"), "{text}");
    let names = "X509v3 Subject Alternative Name: critical\nURI:spiffe://example.org/ns/prod/sa/api";
    assert!(text.contains(names), "{text}");
}

#[test]
fn nothing_but_what_a_leaf_and_a_ca_need() {
    let (_, issuing) = root_and_issuing(ALGORITHMS[1]);
    let leaf = extensions(&leaf(&issuing).crt);
    let ca = extensions(&issuing.crt());
    let names = |text: &str| -> Vec<_> {
        let names = text.lines().filter_map(|line| line.strip_prefix("X509v3 "));
        names.map(str::to_owned).filter(|name| name != "extensions:").collect()
    };
    assert_eq!(
        names(&leaf),
        [
            "Authority Key Identifier:",
            "Subject Alternative Name: critical",
            "Key Usage: critical",
            "Extended Key Usage:",
            "Subject Key Identifier:",
            "Basic Constraints: critical"
        ]
    );
    assert!(
        leaf.contains("CA:FALSE") && leaf.contains("\nDigital Signature\n"),
        "{leaf}"
    );
    assert_eq!(
        names(&ca),
        [
            "Authority Key Identifier:",
            "Key Usage: critical",
            "Subject Key Identifier:",
            "Basic Constraints: critical"
        ]
    );
    assert!(ca.starts_with("subject=CN = issuing r1\n"), "{ca}");
    assert!(
        ca.contains("CA:TRUE, pathlen:0") && ca.contains("\nCertificate Sign, CRL Sign\n"),
        "{ca}"
    );
    // By key alone: by issuer and serial number it could not be cross-signed.
    for text in [leaf, ca] {
        assert!(!text.contains("DirName") && !text.contains("serial:"), "{text}");
    }
}

/// The subject, and all extensions as OpenSSL shows them, without space around the lines.
fn extensions(crt: &str) -> String {
    let folder = Folder::new();
    let mut command = Command::new("openssl");
    command.args([
        "x509",
        "-noout",
        "-subject",
        "-text",
        "-certopt",
        "ext_parse,no_header,no_version,no_serial",
    ]);
    command.args([
        "-certopt",
        "no_signame,no_validity,no_subject,no_issuer,no_pubkey,no_sigdump,no_aux",
    ]);
    let text = output(command.arg("-in").arg(folder.file("crt", crt)));
    text.lines().map(|line| line.trim().to_owned() + "\n").collect()
}
