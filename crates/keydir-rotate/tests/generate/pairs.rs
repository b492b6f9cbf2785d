//! Key pairs, as OpenSSL reads them.

use std::process::Command;

use keydir_rotate::generate::{Error, KeyAlgorithm, KeyPair};

use crate::support::{ALGORITHMS, Folder, output, run};

#[test]
fn openssl_reads_both_halves_and_they_belong_together() {
    for algorithm in ALGORITHMS {
        let pair = KeyPair::generate(*algorithm).unwrap();
        let folder = Folder::new();
        let private = folder.file("private", pair.private.expose());
        let public = output(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&private));
        assert_eq!(public, pair.public, "{algorithm}");

        let message = folder.file("message", "canary");
        let signature = folder.path("signature");
        let mut sign = Command::new("openssl");
        sign.args(["pkeyutl", "-sign", "-rawin", "-inkey"])
            .arg(&private)
            .arg("-in")
            .arg(&message);
        run(sign.arg("-out").arg(&signature)).unwrap();
        let mut verify = Command::new("openssl");
        verify.args(["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey"]);
        verify.arg(folder.file("public", &pair.public)).arg("-in").arg(&message);
        run(verify.arg("-sigfile").arg(&signature)).unwrap();
    }
}

#[test]
fn they_are_what_they_are_called() {
    for (algorithm, name) in [
        (KeyAlgorithm::Ed25519, "ED25519 Private-Key"),
        (KeyAlgorithm::EcdsaP256, "ASN1 OID: prime256v1"),
        (KeyAlgorithm::EcdsaP384, "ASN1 OID: secp384r1"),
        #[cfg(feature = "aws-lc-rs")]
        (KeyAlgorithm::Rsa { bits: 3072 }, "Private-Key: (3072 bit"),
    ] {
        let pair = KeyPair::generate(algorithm).unwrap();
        let folder = Folder::new();
        let private = folder.file("private", pair.private.expose());
        let text = output(
            Command::new("openssl")
                .args(["pkey", "-noout", "-text", "-in"])
                .arg(private),
        );
        assert!(text.contains(name), "{algorithm}");
        assert!(pair.private.expose().starts_with(b"-----BEGIN PRIVATE KEY-----\n"));
    }
}

#[test]
fn two_are_never_the_same() {
    for algorithm in ALGORITHMS {
        let [one, other] = [(); 2].map(|()| KeyPair::generate(*algorithm).unwrap());
        assert_ne!(one.public, other.public);
        assert_ne!(one.private, other.private);
    }
}

#[test]
fn debug_shows_nothing_of_a_key() {
    let pair = KeyPair::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let text = String::from_utf8(pair.private.expose().to_vec()).unwrap();
    let ca = crate::support::ca("r1");
    let shown = format!("{pair:?} {ca:?} {:?}", crate::support::leaf(&ca));
    assert!(shown.contains("Secret("));
    assert!(
        !text
            .lines()
            .any(|line| shown.contains(line) && !line.is_empty() && !line.starts_with("-----"))
    );
    assert!(!shown.contains("PRIVATE"), "{shown}");
}

#[test]
fn sizes_of_rsa_that_are_not_in_use_are_refused() {
    for bits in [0, 1024, 2047, 8192] {
        let error = KeyPair::generate(KeyAlgorithm::Rsa { bits }).unwrap_err();
        assert!(matches!(error, Error::Impossible { field: "algorithm", .. }), "{error}");
    }
}

#[cfg(not(feature = "aws-lc-rs"))]
#[test]
fn ring_makes_no_rsa_keys() {
    let algorithm = KeyAlgorithm::Rsa { bits: 2048 };
    assert_eq!(KeyPair::generate(algorithm).unwrap_err(), Error::Unsupported(algorithm));
}
