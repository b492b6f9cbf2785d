//! The roots of the platform beside those of a directory. rustls-native-certs finds them by variables of the process, so
//! each test is a process of its own.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use keydir::Dir;
use keydir_rustls::{OpenError, TrustAnchors, client_config, server_config};
use rcgen::IsCa;

use crate::support::*;

const FOLDER: &str = "KEYDIR_TEST_FOLDER";

/// Runs one of the ignored tests below, with these certificates as the platform's.
fn with_roots(test: &str, folder: &Path, roots: &str) -> Output {
    let file = folder.join("roots.pem");
    fs::write(&file, roots).unwrap();
    let mut run = Command::new(std::env::current_exe().unwrap());
    run.args(["--exact", "--ignored", &format!("platform::{test}")]);
    run.env("SSL_CERT_FILE", file)
        .env_remove("SSL_CERT_DIR")
        .env(FOLDER, folder);
    let output = run.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
    output
}

fn folder() -> std::path::PathBuf {
    std::env::var_os(FOLDER).unwrap().into()
}

fn read(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap()
}

fn leaf_of(name: &str) -> Leaf {
    let crt = read(&format!("{name}.crt"));
    let der = rustls::pki_types::pem::PemObject::from_pem_slice(crt.as_bytes()).unwrap();
    Leaf {
        key: read(&format!("{name}.key")),
        crt,
        der,
    }
}

#[test]
fn they_count_on_request_and_inside_their_validity() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let mut expired = ca_params("an old root");
    years(&mut expired, 2010, 2020);
    let mut no_ca = ca_params("no ca");
    no_ca.is_ca = IsCa::ExplicitNoCa;
    let [public, own, old, no_ca] = [
        Ca::new("a public root"),
        Ca::new("our own"),
        Ca::with(expired),
        Ca::with(no_ca),
    ];
    write("own.pem", &own.pem());
    for (name, ca) in [("public", &public), ("own", &own), ("old", &old), ("minted", &no_ca)] {
        let leaf = ca.leaf(NAME);
        write(&format!("{name}.crt"), &leaf.crt);
        write(&format!("{name}.key"), &leaf.key);
    }
    with_roots(
        "inside",
        folder.path(),
        &[public.pem(), old.pem(), no_ca.pem()].concat(),
    );
}

#[test]
#[ignore = "run by they_count_on_request_and_inside_their_validity"]
fn inside() {
    let dir = Dir::in_memory([("c1.crt", read("own.pem"))]);
    let anchors = TrustAnchors::builder(&dir).platform_roots().build().unwrap();
    let alone = anchors_in(&dir);
    let connects = |anchors: &TrustAnchors, name: &str| {
        let server = server_config(&identity(&leaf_of(name))).no_client().build().unwrap();
        let client = client_config(anchors).build().unwrap();
        !connect(&Arc::new(client), &Arc::new(server)).is_refused()
    };
    let seen = |anchors: &TrustAnchors| ["own", "public", "old", "minted"].map(|name| connects(anchors, name));
    assert_eq!(seen(&anchors), [true, true, false, false]);
    assert_eq!(seen(&alone), [true, false, false, false]);

    // The directory's are told to peers, the platform's are not.
    let verifier = anchors.server_verifier();
    let hints = verifier.root_hint_subjects().unwrap();
    assert_eq!((hints.len(), anchors.live().load().whole().len()), (1, 2));

    // A peer of the platform has no revision.
    let asked = anchors.only(|peer| peer.ca().is_none());
    assert_eq!(["own", "public"].map(|name| connects(&asked, name)), [false, true]);
    let revision = |name| anchors.revision_of_server(&[leaf_of(name).der]);
    assert_eq!(revision("own").unwrap(), "c1");
    assert_eq!(revision("public"), None);

    // They stay when the directory changes, and do not stand in for what was removed from it.
    let other = Ca::new("our next");
    dir.publish(ca_files(&[("c2", &other)])).unwrap();
    assert_eq!(seen(&anchors), [false, true, false, false]);
}

#[cfg(feature = "tokio")]
#[test]
fn a_connection_to_their_peers_knows_that_no_revision_vouches() {
    let folder = tempfile::tempdir().unwrap();
    let public = Ca::new("a public root");
    let leaf = public.leaf(NAME);
    fs::write(folder.path().join("public.crt"), &leaf.crt).unwrap();
    fs::write(folder.path().join("public.key"), &leaf.key).unwrap();
    with_roots("connected", folder.path(), &public.pem());
}

#[cfg(feature = "tokio")]
#[tokio::test]
#[ignore = "run by a_connection_to_their_peers_knows_that_no_revision_vouches"]
async fn connected() {
    let dir = ca_dir(&[("c1", &Ca::new("our own"))]);
    let anchors = TrustAnchors::builder(&dir).platform_roots().build().unwrap();
    let acceptor = server_config(&identity(&leaf_of("public")))
        .no_client()
        .acceptor()
        .unwrap();
    let connector = client_config(&anchors).connector().unwrap();
    let (near, far) = tokio::io::duplex(1 << 16);
    let (client, server) = tokio::join!(connector.connect(NAME.try_into().unwrap(), near), acceptor.accept(far));
    let (client, _server) = (client.unwrap(), server.unwrap());
    let peer = client.connection().peer().unwrap();
    assert_eq!((peer.ca(), peer.dns_names()), (None, vec![NAME.to_owned()]));
    dir.publish(ca_files(&[("c2", &Ca::new("our next"))])).unwrap();
    assert!(client.connection().stands());
}

#[test]
fn where_there_are_none_it_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    with_roots("without", folder.path(), "nothing");
}

#[test]
#[ignore = "run by where_there_are_none_it_is_an_error"]
fn without() {
    let dir = ca_dir(&[("c1", &Ca::new("our own"))]);
    let error = TrustAnchors::builder(&dir).platform_roots().build().unwrap_err();
    assert!(matches!(error, OpenError::PlatformRoots(_)));
    assert!(error.to_string().contains("ca-certificates"), "{error}");
    assert!(TrustAnchors::builder(&dir).build().is_ok());
}
