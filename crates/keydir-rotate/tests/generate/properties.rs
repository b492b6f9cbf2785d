//! What holds for any profile, at any time.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keydir_rotate::generate::{Ca, CaProfile, Certificate, LeafProfile, LeafUsage};
use proptest::prelude::*;

use crate::support::{DAY, ca, leaf};

/// Milliseconds from 1970 to 2200, so that both forms of dates are met.
fn moment() -> impl Strategy<Value = SystemTime> {
    (0..7_258_118_400_000_u64).prop_map(|millis| UNIX_EPOCH + Duration::from_millis(millis))
}

fn life() -> impl Strategy<Value = Duration> {
    prop_oneof![1_000..600_000_u64, 1_000..100_000_000_000_u64].prop_map(Duration::from_millis)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_leaf_is_inside_of_its_issuers_life_and_valid_when_it_is_issued(
        made in moment(), ca_life in life(), leaf_life in life(), after in 0.0..1.1_f64,
    ) {
        let ca = Ca::create(&CaProfile::new("mesh", ca_life), &"r1".parse().unwrap(), made).unwrap();
        let now = made + ca_life.mul_f64(after);
        let mut profile = LeafProfile::new([LeafUsage::Client], leaf_life);
        profile.common_name = Some("app".to_owned());
        let (begin, end) = (ca.certificate().not_before(), ca.certificate().not_after());
        match ca.issue(&profile, now) {
            Ok(leaf) => {
                let leaf = leaf.certificate;
                prop_assert!(begin <= leaf.not_before() && leaf.not_after() <= end);
                prop_assert!(leaf.not_before() <= now && now <= leaf.not_after() + Duration::from_secs(1));
                prop_assert!(leaf.not_after() <= now + leaf_life);
                // Five minutes back, or as far as the issuer goes.
                prop_assert!(leaf.not_before() == begin || leaf.not_before() + Duration::from_secs(300) <= now);
                // Not shorter than it need be.
                prop_assert!(leaf.not_after() == end || leaf.not_after() + leaf_life.min(Duration::from_secs(2)) > now + leaf_life);
            }
            Err(error) => prop_assert!(end < now + leaf_life / 10, "{}", error),
        }
    }

    #[test]
    fn cas_of_a_set_differ_in_their_subjects(ids in prop::collection::hash_set("[a-z0-9]{1,8}(-[0-9]{1,3})?", 2..4)) {
        let cas: Vec<_> = ids.iter().map(|id| ca(id)).collect();
        let subjects: HashSet<Vec<u8>> = cas.iter().map(|ca| subject(ca.certificate())).collect();
        prop_assert_eq!(subjects.len(), cas.len());
    }
}

fn subject(certificate: &Certificate) -> Vec<u8> {
    let (_, read) = x509_parser::parse_x509_certificate(certificate.der()).unwrap();
    read.subject().as_raw().to_vec()
}

#[test]
fn serial_numbers_never_repeat() {
    let cas = [ca("r1"), ca("r2")];
    let mut serials = HashSet::new();
    for ca in &cas {
        assert!(serials.insert(ca.certificate().serial().clone()));
        for _ in 0..200 {
            assert!(serials.insert(leaf(ca).certificate.serial().clone()));
        }
    }
    // One key with two certificates: the serial number does not come of the key.
    let [old, mut new] = cas;
    old.cross_sign(&mut new, crate::support::now()).unwrap();
    let chain = Certificate::all_from_pem(new.crt().as_bytes()).unwrap();
    assert!(serials.insert(chain[1].serial().clone()));
    // As OpenSSL counts them: positive, in 20 bytes.
    for certificate in &chain {
        let (_, read) = x509_parser::parse_x509_certificate(certificate.der()).unwrap();
        let raw = read.raw_serial();
        assert!(raw.len() <= 20 && raw[0] < 0x80, "{raw:?}");
    }
}

#[test]
fn a_ca_is_the_same_after_it_was_kept() {
    let (old, mut new) = (ca("r1"), ca("r2"));
    old.cross_sign(&mut new, crate::support::now()).unwrap();
    let again = Ca::load(new.crt().as_bytes(), new.key()).unwrap();
    assert_eq!(again.certificate(), new.certificate());
    assert_eq!(again.crt(), new.crt());
    assert_eq!(again.key(), new.key());
    let life = again
        .certificate()
        .not_after()
        .duration_since(again.certificate().not_before());
    assert_eq!(life.unwrap(), 90 * DAY + Duration::from_secs(300));
}
