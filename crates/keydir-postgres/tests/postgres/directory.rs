//! Key directories of logins, in memory.

use keydir::Dir;
use keydir_postgres::{Credentials, Login, SslMode};
use keydir_rustls::TrustAnchors;

use crate::pki::{Ca, Leaf};
use crate::server::Database;

pub(crate) type Files = Vec<(String, String)>;

/// A password of each revision that nothing may print.
pub(crate) fn password(revision: &str) -> String {
    format!("canary-{revision}-0123456789abcdef")
}

/// The files of one revision: its role in this database, and its password.
pub(crate) fn login(database: &Database, revision: &str) -> Files {
    login_with(database, revision, &password(revision))
}

pub(crate) fn login_with(database: &Database, revision: &str, password: &str) -> Files {
    vec![
        (format!("{revision}.username"), database.role(revision)),
        (format!("{revision}.password"), password.to_owned()),
    ]
}

/// A certificate and its key beside them.
pub(crate) fn certificate(revision: &str, leaf: &Leaf) -> Files {
    vec![
        (format!("{revision}.crt"), leaf.crt.clone()),
        (format!("{revision}.key"), leaf.key.clone()),
    ]
}

/// With the mark.
pub(crate) fn primary(mut files: Files) -> Files {
    files[0].0.push_str(".primary");
    files
}

/// Of these revisions, the last one marked, each with the password that [`password`] gives.
pub(crate) fn logins(database: &Database, revisions: &[&str]) -> Files {
    let (last, others) = revisions.split_last().unwrap();
    let others = others.iter().flat_map(|revision| login(database, revision));
    others.chain(primary(login(database, last))).collect()
}

pub(crate) fn credentials(files: Files) -> (Dir, Credentials) {
    let dir = Dir::in_memory(files);
    let credentials = Credentials::in_dir(&dir).unwrap();
    (dir, credentials)
}

pub(crate) fn anchors(ca: &Ca) -> TrustAnchors {
    TrustAnchors::in_dir(&Dir::in_memory([("c1.crt", ca.pem())])).unwrap()
}

/// Logins without TLS.
pub(crate) fn plain(database: &Database, files: Files) -> (Dir, Login) {
    let (dir, credentials) = credentials(files);
    (
        dir,
        Login::new(database.config(), &credentials, SslMode::Disable).unwrap(),
    )
}
