//! What nobody shall accept, what is not issued at all, and that the tests would see it.

use std::time::{Duration, SystemTime};

use keydir_rotate::generate::{Ca, CaProfile, Error, LeafUsage};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::support::root_and_issuing;
use crate::support::{ALGORITHMS, DAY, End, Host, accepted, bundle, ca, leaf, now, openssl, profile, refused};

const HOST: Host<'_> = Some("a.example");

fn ca_at(now: SystemTime) -> Ca {
    Ca::create(&CaProfile::new("mesh", 90 * DAY), &"r1".parse().unwrap(), now).unwrap()
}

#[test]
fn what_has_expired_or_has_not_begun() {
    let ca = ca_at(now() - 20 * DAY);
    let over = ca.issue(&profile(), now() - 10 * DAY).unwrap();
    refused(&bundle(&[&ca]), &over.crt, End::Server, HOST);
    let ahead = ca.issue(&profile(), now() + DAY).unwrap();
    refused(&bundle(&[&ca]), &ahead.crt, End::Server, HOST);
    accepted(&bundle(&[&ca]), &ca.issue(&profile(), now()).unwrap().crt, HOST);
}

#[test]
fn a_clock_that_is_slow_by_less_than_five_minutes_is_no_reason_to_refuse() {
    let soon = now() + Duration::from_secs(4 * 60);
    let ca = ca_at(soon);
    accepted(&bundle(&[&ca]), &ca.issue(&profile(), soon).unwrap().crt, HOST);
}

#[test]
fn the_wrong_end_and_the_wrong_host() {
    let ca = ca("r1");
    for (usage, other) in [(LeafUsage::Server, End::Client), (LeafUsage::Client, End::Server)] {
        let mut profile = profile();
        profile.usage = vec![usage];
        let leaf = ca.issue(&profile, now()).unwrap();
        refused(&bundle(&[&ca]), &leaf.crt, other, HOST);
    }
    refused(&bundle(&[&ca]), &leaf(&ca).crt, End::Server, Some("b.example"));
}

#[test]
fn a_leaf_cannot_issue() {
    let ca = ca("r1");
    let own = leaf(&ca);
    let loaded = Ca::load(own.crt.as_bytes(), &own.key);
    assert_eq!(
        loaded.unwrap_err(),
        Error::NotACa("its basicConstraints do not say CA:TRUE")
    );
}

#[test]
fn an_issuer_that_is_not_valid_issues_nothing() {
    let begin = now();
    let ca = ca_at(begin);
    let (not_before, not_after) = (ca.certificate().not_before(), ca.certificate().not_after());
    let too_early = not_before - Duration::from_secs(1);
    assert_eq!(
        ca.issue(&profile(), too_early).unwrap_err(),
        Error::NotYetValid { not_before }
    );
    let too_late = not_after + Duration::from_secs(1);
    assert_eq!(
        ca.issue(&profile(), too_late).unwrap_err(),
        Error::Expired { not_after }
    );
    let below = ca.issue_ca(&CaProfile::new("below", DAY), &"r1".parse().unwrap(), too_late);
    assert_eq!(below.unwrap_err(), Error::Expired { not_after });
    let mut other = ca_at(begin - DAY);
    assert_eq!(ca.cross_sign(&mut other, begin).unwrap_err(), Error::SameSubject);
    let mut other = Ca::create(&CaProfile::new("other", 365 * DAY), &"r1".parse().unwrap(), begin).unwrap();
    assert_eq!(
        ca.cross_sign(&mut other, too_late).unwrap_err(),
        Error::Expired { not_after }
    );
    assert_eq!(other.crt().matches("BEGIN").count(), 1);
}

#[test]
fn near_the_end_of_its_issuer_a_leaf_is_shorter_and_then_none() {
    let ca = ca_at(now());
    let not_after = ca.certificate().not_after();
    let shorter = ca.issue(&profile(), not_after - DAY / 4).unwrap();
    assert_eq!(shorter.certificate.not_after(), not_after);
    let error = ca.issue(&profile(), not_after - DAY / 11).unwrap_err();
    assert_eq!(error, Error::EndsTooSoon { not_after, life: DAY });
}

#[test]
fn a_path_len_that_leaves_no_room() {
    let (root, issuing) = root_and_issuing(ALGORITHMS[1]);
    let mut profile = CaProfile::new("more", DAY);
    let id = "r1".parse().unwrap();
    assert_eq!(issuing.issue_ca(&profile, &id, now()).unwrap_err(), Error::PathLen);
    profile.path_len = Some(1);
    assert_eq!(root.issue_ca(&profile, &id, now()).unwrap_err(), Error::PathLen);
    // webpki would accept what comes of it, the others would not.
    let mut other = ca("r2");
    assert_eq!(issuing.cross_sign(&mut other, now()).unwrap_err(), Error::PathLen);
    assert_eq!(
        other.cross_sign(&mut Ca::load(issuing.crt().as_bytes(), issuing.key()).unwrap(), now()),
        Err(Error::NotARoot)
    );
    root.cross_sign(&mut other, now()).unwrap();
    accepted(&bundle(&[&root]), &leaf(&other).crt, HOST);
}

#[test]
fn a_ca_below_needs_a_subject_of_its_own() {
    let root = ca("r1");
    let same = CaProfile::new("mesh", DAY);
    let error = |ca: &Ca, profile: &CaProfile, id: &str| ca.issue_ca(profile, &id.parse().unwrap(), now()).err();
    assert_eq!(error(&root, &same, "r1"), Some(Error::SameSubject));
    assert_eq!(error(&root, &same, "r2"), None);
    let issuing = root
        .issue_ca(&CaProfile::new("issuing", DAY), &"r1".parse().unwrap(), now())
        .unwrap();
    assert_eq!(error(&issuing, &same, "r1"), Some(Error::SameSubject));
}

/// The negative control: what rcgen makes by itself is refused, with the reasons that our options are for.
#[test]
fn the_defaults_of_rcgen_are_not_strict() {
    let verify = |usages: Vec<KeyUsagePurpose>, aki: bool| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "mesh r1");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = usages;
        let key = KeyPair::generate().unwrap();
        let anchor = params.self_signed(&key).unwrap().pem();
        let mut leaf = CertificateParams::new(["a.example".to_owned()]).unwrap();
        leaf.use_authority_key_identifier_extension = aki;
        let leaf = leaf
            .signed_by(&KeyPair::generate().unwrap(), &Issuer::new(params, key))
            .unwrap();
        openssl(&anchor, &leaf.pem(), End::Server, HOST)
    };
    let usages = || vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let reason = verify(usages(), false).unwrap_err();
    assert!(reason.contains("Missing Authority Key Identifier"), "{reason}");
    let reason = verify(Vec::new(), true).unwrap_err();
    assert!(
        reason.contains("CA cert does not include key usage extension"),
        "{reason}"
    );
    verify(usages(), true).unwrap();
}
