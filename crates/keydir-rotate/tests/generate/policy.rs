//! Profiles as a policy has them.

use std::time::Duration;

use keydir_rotate::generate::{Ca, CaProfile, Error, KeyAlgorithm, LeafProfile, LeafUsage};

use crate::support::{DAY, now};

fn refused<T: serde::de::DeserializeOwned + std::fmt::Debug>(text: &str, line: usize, reason: &str) {
    #[derive(Debug, serde::Deserialize)]
    struct Policy<T> {
        #[allow(dead_code, reason = "nothing gets there")]
        profile: T,
    }
    let policy = format!("# A policy.\n[profile]\n{text}\n");
    let error = toml::from_str::<Policy<T>>(&policy).unwrap_err();
    assert!(error.message().starts_with(reason), "{text}: {error}");
    assert!(
        error.to_string().contains(&format!("at line {line}")),
        "{text}: {error}"
    );
}

#[test]
fn what_is_given_and_what_is_left_out() {
    let ca: CaProfile = toml::from_str("name = 'mesh'\nlife = '90d'").unwrap();
    assert_eq!(ca, CaProfile::new("mesh", 90 * DAY));
    let ca: CaProfile =
        toml::from_str("name = 'mesh'\nlife = '1h 30m'\npath_len = 0\nalgorithm = 'ecdsa-p384'").unwrap();
    let mut expected = CaProfile::new("mesh", Duration::from_secs(5_400));
    expected.path_len = Some(0);
    expected.algorithm = KeyAlgorithm::EcdsaP384;
    assert_eq!(ca, expected);

    let leaf: LeafProfile = toml::from_str("dns = ['a']\nusage = ['client']\nlife = '1s'").unwrap();
    let mut expected = LeafProfile::new([LeafUsage::Client], Duration::from_secs(1));
    expected.dns = vec!["a".to_owned()];
    assert_eq!(leaf, expected);
    let leaf: LeafProfile = toml::from_str(
        "spiffe = 'spiffe://a/b'\nip = ['::1']\ncommon_name = 'app'\nusage = ['server', 'client']\nlife = '1d'\nalgorithm = 'rsa-4096'",
    )
    .unwrap();
    let mut expected = LeafProfile::new([LeafUsage::Server, LeafUsage::Client], DAY);
    expected.spiffe = Some("spiffe://a/b".to_owned());
    expected.ip = vec!["::1".parse().unwrap()];
    expected.common_name = Some("app".to_owned());
    expected.algorithm = KeyAlgorithm::Rsa { bits: 4096 };
    assert_eq!(leaf, expected);
}

#[test]
fn what_a_ca_cannot_be() {
    let check = |text: &str, line, reason: &str| refused::<CaProfile>(text, line, reason);
    check("name = 'a'\nlife = '1d'\nlive = '1d'", 5, "unknown field `live`");
    check("name = 'a'\nlife = 'x'", 4, "life: \"x\": expected number at 0");
    check(
        "name = 'a'\nlife = '1d'\nalgorithm = 'rsa-1024'",
        5,
        "algorithm: \"rsa-1024\" is none of ed25519, ",
    );
    check(
        "name = 'a'\nlife = '1d'\npath_len = -1",
        5,
        "invalid value: integer `-1`",
    );
    check("life = '1d'", 2, "missing field `name`");
    check("name = 'a'", 2, "missing field `life`");
    check("name = ''\nlife = '1d'", 2, "name: \"\" is empty");
    check(
        "name = 'a'\nlife = '999ms'",
        2,
        "life: 999ms is not between a second and 100 years",
    );
    check("name = 'a'\nlife = '101y'", 2, "life: ");
    let long = "a".repeat(63);
    check(
        &format!("name = '{long}'\nlife = '1d'"),
        2,
        "name: leaves no room for a revision id",
    );
}

#[test]
fn what_a_leaf_cannot_be() {
    let check = |names: &str, reason: &str| {
        refused::<LeafProfile>(&format!("{names}\nusage = ['server']\nlife = '1d'"), 2, reason);
    };
    check(
        "",
        "dns: a certificate needs a name: dns, ip, uri, spiffe or common_name",
    );
    check("dns = ['a b']", "dns: \"a b\" is no host name");
    check(
        "dns = ['10.0.0.1']",
        "dns: \"10.0.0.1\" is an address, which belongs in ip",
    );
    check("uri = ['spiffe://a/b']", "uri: \"spiffe://a/b\" belongs in spiffe");
    check(
        "spiffe = 'spiffe://a'",
        "spiffe: \"spiffe://a\" is not of the form spiffe://trust-domain/path",
    );
    check(
        "spiffe = 'spiffe://a/b'\nuri = ['urn:a']",
        "uri: a SPIFFE ID must be the only URI of a certificate",
    );
    check(
        "common_name = ' a'",
        "common_name: \" a\" is empty, or has space around it",
    );
    let check = |text: &str, line, reason: &str| refused::<LeafProfile>(text, line, reason);
    check(
        "dns = ['a']\nusage = []\nlife = '1d'",
        2,
        "usage: it is empty; server, client or both",
    );
    check(
        "dns = ['a']\nusage = ['server', 'server']\nlife = '1d'",
        2,
        "usage: it names one twice",
    );
    check(
        "dns = ['a']\nusage = ['email']\nlife = '1d'",
        4,
        "unknown variant `email`",
    );
    check(
        "ip = ['10.0.0.256']\nusage = ['server']\nlife = '1d'",
        3,
        "invalid IP address syntax",
    );
    check("dns = ['a']\nlife = '1d'", 2, "missing field `usage`");
}

#[test]
fn profiles_that_a_program_makes_are_checked_too() {
    let id = "r1".parse().unwrap();
    let error = Ca::create(&CaProfile::new("", DAY), &id, now()).unwrap_err();
    assert!(matches!(error, Error::Impossible { field: "name", .. }), "{error}");
    let ca = Ca::create(&CaProfile::new("mesh", DAY), &id, now()).unwrap();
    let error = ca
        .issue(&LeafProfile::new([LeafUsage::Server], DAY), now())
        .unwrap_err();
    assert!(matches!(error, Error::Impossible { field: "dns", .. }), "{error}");
    let error = ca
        .issue_ca(&CaProfile::new("a", Duration::ZERO), &id, now())
        .unwrap_err();
    assert!(matches!(error, Error::Impossible { field: "life", .. }), "{error}");
    let long = "r".repeat(62).parse().unwrap();
    let error = Ca::create(&CaProfile::new("mesh", DAY), &long, now()).unwrap_err();
    assert!(matches!(error, Error::Impossible { field: "name", .. }), "{error}");
    for far in [Duration::from_secs(253_402_300_799), Duration::from_secs(1 << 60)] {
        let error = Ca::create(&CaProfile::new("mesh", DAY), &id, std::time::UNIX_EPOCH + far).unwrap_err();
        assert!(matches!(error, Error::Impossible { .. }), "{error}");
    }
}

#[test]
fn what_the_other_errors_say() {
    let moment = std::time::UNIX_EPOCH + 20_000 * DAY;
    for (error, text) in [
        (Error::Randomness, "the system gives no randomness"),
        (
            Error::Unsupported(KeyAlgorithm::Rsa { bits: 2048 }),
            "this build of keydir-rotate makes no key of kind rsa-2048; one with the feature aws-lc-rs does",
        ),
        (Error::Pem("a block has no end"), "bad PEM: a block has no end"),
        (
            Error::Certificate("it cannot be read"),
            "bad certificate: it cannot be read",
        ),
        (Error::NotACa("why"), "the certificate cannot issue others: why"),
        (
            Error::Key,
            "the private key is not one of Ed25519, ECDSA P-256 or P-384, or RSA that can be read",
        ),
        (Error::KeyMismatch, "the private key is not that of the certificate"),
        (
            Error::NotYetValid { not_before: moment },
            "the issuer is not valid before 2024-10-04T00:00:00Z",
        ),
        (
            Error::Expired { not_after: moment },
            "the issuer has expired at 2024-10-04T00:00:00Z",
        ),
        (
            Error::EndsTooSoon {
                not_after: moment,
                life: DAY,
            },
            "the issuer expires at 2024-10-04T00:00:00Z, too soon for a life of 1day",
        ),
        (Error::PathLen, "the issuer's pathLen leaves no room for this CA"),
        (
            Error::SameSubject,
            "a CA above has the same subject; each needs one of its own",
        ),
        (
            Error::Subject,
            "the subject has a form that cannot be written again as it stands",
        ),
        (Error::Crypto("why".to_owned()), "cryptography: why"),
    ] {
        assert_eq!(error.to_string(), text);
    }
}
