//! CAs and keys that other programs have made.

use std::process::Command;

use keydir::Secret;
use keydir_rotate::generate::{Ca, CaProfile, Error, Revoked};

use crate::support::{DAY, End, Folder, Host, accepted, bundle, ca, leaf, now, openssl_with, output, refused};

const HOST: Host<'_> = Some("a.example");

/// Made by OpenSSL: the key by these arguments, the certificate with these.
fn made_by_openssl(key: &[&str], certificate: &[&str]) -> (String, Secret) {
    let folder = Folder::new();
    let key = output(Command::new("openssl").args(key));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-days", "30", "-sha256", "-utf8", "-key"]);
    let crt = output(command.arg(folder.file("key", &key)).args(certificate));
    (crt, Secret::from(key))
}

const STRICT: [&str; 4] = [
    "-addext",
    "keyUsage=critical,keyCertSign,cRLSign",
    "-subj",
    "/C=CZ/O=J\u{e9}r\u{f4}me/emailAddress=a@b.example/CN=foreign",
];

#[test]
fn a_ca_that_openssl_made_issues_as_ours_do() {
    let keys: &[&[&str]] = &[
        &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        &["genpkey", "-algorithm", "ED25519"],
        &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        // EC PARAMETERS and SEC1, and PKCS#1.
        #[cfg(feature = "aws-lc-rs")]
        &["ecparam", "-name", "secp384r1", "-genkey"],
        #[cfg(feature = "aws-lc-rs")]
        &["genrsa", "-traditional", "2048"],
    ];
    for key in keys {
        let (crt, key) = made_by_openssl(key, &STRICT);
        let foreign = Ca::load(crt.as_bytes(), &key).unwrap();
        assert_eq!(foreign.key(), &key);
        let issued = leaf(&foreign);
        accepted(&crt, &issued.crt, HOST);
        assert!(foreign.certificate().is_issuer_of(&issued.certificate));

        // OpenSSL dates it from now on, and so the leaf does not go back five minutes.
        assert!(issued.certificate.not_before() >= foreign.certificate().not_before());

        // Its key identifier is a SHA-1, and the list has to name it.
        let revoked = Revoked {
            serial: issued.certificate.serial().clone(),
            since: now(),
        };
        let folder = Folder::new();
        let list = folder.file("crl", foreign.crl(&[revoked], 1, now(), now() + DAY).unwrap());
        let options = ["-crl_check", "-CRLfile", list.to_str().unwrap()];
        openssl_with(&options, &crt, &leaf(&foreign).crt, End::Client, None).unwrap();
        let reason = openssl_with(&options, &crt, &issued.crt, End::Client, None).unwrap_err();
        assert!(reason.contains("certificate revoked"), "{reason}");
    }
}

#[test]
fn it_can_vouch_and_be_vouched_for() {
    let (crt, key) = made_by_openssl(&["genpkey", "-algorithm", "ED25519"], &STRICT);
    let mut foreign = Ca::load(crt.as_bytes(), &key).unwrap();
    let below = foreign
        .issue_ca(&CaProfile::new("below", DAY), &"r1".parse().unwrap(), now())
        .unwrap();
    accepted(&crt, &leaf(&below).crt, HOST);

    let mut ours = ca("r2");
    foreign.cross_sign(&mut ours, now()).unwrap();
    accepted(&crt, &leaf(&ours).crt, HOST);

    let old = ca("r1");
    old.cross_sign(&mut foreign, now()).unwrap();
    accepted(&bundle(&[&old]), &leaf(&foreign).crt, HOST);
}

#[test]
fn subjects_that_cannot_be_written_again_are_an_error() {
    let twice = ["-subj", "/O=a/O=b/CN=c"];
    let (crt, key) = made_by_openssl(&["genpkey", "-algorithm", "ED25519"], &twice);
    let foreign = Ca::load(crt.as_bytes(), &key).unwrap();
    assert_eq!(
        foreign.issue(&crate::support::profile(), now()).unwrap_err(),
        Error::Subject
    );
    assert_eq!(foreign.crl(&[], 1, now(), now() + DAY).unwrap_err(), Error::Subject);
}

#[test]
fn what_cannot_issue_is_not_loaded() {
    let (one, other) = (ca("r1"), ca("r2"));
    let load = |crt: &str, key: &Secret| Ca::load(crt.as_bytes(), key).unwrap_err();
    let crt = one.crt();
    assert_eq!(load(&crt, other.key()), Error::KeyMismatch);
    assert_eq!(
        load("", one.key()),
        Error::Pem("it does not hold certificates and nothing else")
    );
    let joined = crt.clone() + &other.crt();
    assert_eq!(
        load(&joined, one.key()),
        Error::Certificate("it holds one that does not belong to the chain")
    );
    let with_leaf = crt.clone() + &leaf(&one).crt;
    assert_eq!(
        load(&with_leaf, one.key()),
        Error::NotACa("its basicConstraints do not say CA:TRUE")
    );
    for (key, error) in [
        (String::new(), Error::Pem("it does not hold exactly one private key")),
        (
            crt.clone(),
            Error::Pem("it holds something else than a private key without a passphrase"),
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_owned(),
            Error::Key,
        ),
    ] {
        assert_eq!(load(&crt, &Secret::from(key)), error);
    }
    for (extensions, reason) in [
        (
            ["basicConstraints=critical,CA:FALSE", "keyUsage=keyCertSign"],
            "its basicConstraints do not say CA:TRUE",
        ),
        (
            ["basicConstraints=critical,CA:TRUE", "keyUsage=digitalSignature"],
            "its keyUsage lacks keyCertSign",
        ),
        (
            ["basicConstraints=critical,CA:TRUE", "subjectKeyIdentifier=none"],
            "it has no subjectKeyIdentifier",
        ),
    ] {
        let arguments: Vec<_> = extensions.iter().flat_map(|extension| ["-addext", extension]).collect();
        let arguments = [&arguments[..], &["-subj", "/CN=a"]].concat();
        let (crt, key) = made_by_openssl(&["genpkey", "-algorithm", "ED25519"], &arguments);
        assert_eq!(load(&crt, &key), Error::NotACa(reason));
    }
}

#[test]
fn an_issuer_is_known_by_its_key_and_not_by_its_name() {
    // The same subject and another key.
    let (one, namesake, other) = (ca("r1"), ca("r1"), ca("r2"));
    let issued = leaf(&one).certificate;
    assert!(one.certificate().is_issuer_of(&issued));
    for not in [&namesake, &other] {
        assert!(!not.certificate().is_issuer_of(&issued));
        refused(&bundle(&[not]), &leaf(&one).crt, End::Server, HOST);
    }
    // Without any key identifier the signature decides.
    let bare = [
        "-subj",
        "/CN=a",
        "-addext",
        "subjectKeyIdentifier=none",
        "-addext",
        "authorityKeyIdentifier=none",
    ];
    let (crt, _) = made_by_openssl(&["genpkey", "-algorithm", "ED25519"], &bare);
    let bare = keydir_rotate::generate::Certificate::from_pem(crt.as_bytes()).unwrap();
    assert!(bare.is_issuer_of(&bare));
    assert!(!one.certificate().is_issuer_of(&bare));
}
