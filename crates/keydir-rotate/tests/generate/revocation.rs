//! CRLs, as OpenSSL checks them. What keydir-rustls makes of them: `integration/tests/generated.rs`.

use keydir_rotate::generate::{Ca, Error, Issued, Revoked};

use crate::support::{ALGORITHMS, DAY, End, Folder, bundle, ca, leaf, now, openssl_with, root_and_issuing};

fn revoke(ca: &Ca, revoked: &[&Issued], number: u64) -> String {
    let revoked: Vec<_> = revoked
        .iter()
        .map(|leaf| Revoked {
            serial: leaf.certificate.serial().clone(),
            since: now(),
        })
        .collect();
    ca.crl(&revoked, number, now(), now() + DAY).unwrap()
}

fn check(option: &str, anchors: &str, crls: &str, leaf: &Issued) -> Result<(), String> {
    let folder = Folder::new();
    let crls = folder.file("crls", crls);
    let options = [option, "-CRLfile", crls.to_str().unwrap()];
    openssl_with(&options, anchors, &leaf.crt, End::Server, Some("a.example"))
}

#[test]
fn openssl_takes_the_list_and_refuses_whom_it_names() {
    for algorithm in ALGORITHMS {
        let (root, issuing) = root_and_issuing(*algorithm);
        let (stays, goes) = (leaf(&issuing), leaf(&issuing));
        let lists = revoke(&issuing, &[&goes], 7) + &revoke(&root, &[], 1);
        check("-crl_check_all", &bundle(&[&root]), &lists, &stays).unwrap();
        let reason = check("-crl_check_all", &bundle(&[&root]), &lists, &goes).unwrap_err();
        assert!(reason.contains("certificate revoked"), "{reason}");
        // Where lists are checked, there has to be one: so an empty one is made as well.
        let reason = check("-crl_check_all", &bundle(&[&root]), &revoke(&issuing, &[], 1), &stays).unwrap_err();
        assert!(reason.contains("unable to get certificate CRL"), "{reason}");
    }
}

#[test]
fn each_revision_of_a_ca_has_its_own_list() {
    let (old, new) = (ca("r1"), ca("r2"));
    let (stays, goes) = (leaf(&new), leaf(&old));
    let lists = [revoke(&old, &[&goes], 1), revoke(&new, &[], 1)];
    for lists in [lists.concat(), lists.iter().rev().cloned().collect()] {
        check("-crl_check", &bundle(&[&old, &new]), &lists, &stays).unwrap();
        check("-crl_check", &bundle(&[&old, &new]), &lists, &goes).unwrap_err();
    }
}

#[test]
fn a_list_that_ends_before_it_begins_is_not_made() {
    let error = ca("r1").crl(&[], 1, now(), now()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Impossible {
                field: "next_update",
                ..
            }
        ),
        "{error}"
    );
}
