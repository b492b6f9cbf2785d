//! Secrets that no output may hold: the run searches all that it printed for them, in many encodings.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// Puts a secret of at least 12 bytes on the list.
pub fn never_to_be_printed(secret: &str) {
    assert!(
        secret.len() >= 12 && !secret.contains('\n'),
        "too short to be searched for"
    );
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/canaries");
    let file = OpenOptions::new().append(true).create(true).open(list);
    // One write, so that lines of several tests do not mix.
    file.unwrap().write_all(format!("{secret}\n").as_bytes()).unwrap();
}
