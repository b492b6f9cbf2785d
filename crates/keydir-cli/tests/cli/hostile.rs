//! Bad input: whatever lies there, there is a finding or an error that says what to do, and never a panic or a hang.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;

use crate::support::{Tree, VALID, assert_no_secret, keydir, leaf, secret, unprivileged};

#[test]
fn nothing_that_is_no_file_is_read() {
    let good = secret("good");
    let tree = Tree::new(&[("r1.token.primary", &good)]);
    fs::create_dir(tree.path().join("r2.token")).unwrap();
    tree.link("r3.token", "r3.token");
    tree.link("r4.token", "r5.token");
    tree.link("r5.token", "r4.token");
    tree.link("r6.token", "/etc/passwd");
    tree.link("r7.token", "../nowhere");
    tree.link("r8.token", "gone");
    let _socket = UnixListener::bind(tree.path().join("r9.token")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        tree.path().join("r10.token"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let run = keydir(&["check", "--use", "token", tree.text()]);
    run.says(
        1,
        &[
            "r2.token: it is a directory",
            "r3.token: it is a link that loops",
            "r4.token: it is a link that loops",
            "r6.token: it is a link that leaves the directory",
            "r7.token: it is a link that leaves the directory",
            "r8.token: it is a link that leads nowhere",
            "r9.token: it is a socket",
            "r10.token: it is a FIFO",
            "put a regular file there, or remove it",
        ],
    );
    keydir(&["ls", tree.text()]).says(0, &["r1 marked token primary"]);
}

#[test]
fn what_may_not_be_read() {
    let tree = Tree::new(&[("r1.token.primary", &secret("1")), ("r2.token", &secret("2"))]);
    tree.mode("r1.token.primary", 0o644);
    tree.mode("r2.token", 0o000);
    let run = unprivileged(&["check", tree.text()]);
    run.says(
        1,
        &[
            "r2.token: it cannot be read: Permission denied",
            "check owner, mode and the storage",
        ],
    );
    tree.mode("", 0o700);
    if rustix::process::getuid().is_root() {
        for command in ["check", "ls", "watch"] {
            unprivileged(&[command, tree.text()]).says(2, &["Permission denied", "its owner and its mode"]);
        }
        let publish = unprivileged(&["publish", tree.text(), "r3.token=/dev/null"]);
        assert_eq!(publish.code, 1, "{publish:?}");
    }
}

#[test]
fn huge_and_binary() {
    let tree = Tree::new(&[("r1.token.primary", &secret("1"))]);
    fs::File::create(tree.path().join("r2.token"))
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    for name in [
        "r3.token",
        "r3.crt",
        "r3.key",
        "r4.private",
        "r5.public",
        "r6.pem",
        "r7.password-hash",
        "r8.token-sha256",
    ] {
        tree.write(name, &bytes);
    }
    let mut args = vec!["check"];
    for usage in keydir::uses::ALL.iter() {
        args.extend(["--use", usage.name()]);
    }
    args.push(tree.text());
    keydir(&args).says(
        1,
        &["r2.token: it has 1099511627776 bytes, more than the limit of 1048576"],
    );
    args[0] = "ls";
    keydir(&args).says(0, &["r3 - token unusable"]);
}

#[test]
fn damaged_certificates_and_keys() {
    let pair = leaf(VALID);
    let whole = [pair.crt.as_bytes(), pair.key.as_bytes()];
    let tree = Tree::new(&[]);
    for step in 1..12 {
        let [crt, key] = whole.map(|text| text[..text.len() * step / 12].to_vec());
        tree.write(&format!("cut{step}.crt"), crt);
        tree.write(&format!("cut{step}.key"), key);
        let [mut crt, mut key] = whole.map(<[u8]>::to_vec);
        let at = crt.len() * step / 12;
        crt[at] = crt[at].wrapping_add(1);
        let at = key.len() * step / 12;
        key[at] = b'A';
        tree.write(&format!("bit{step}.crt"), crt);
        tree.write(&format!("bit{step}.key"), key);
    }
    let run = keydir(&["check", "--use", "tls-identity", "--use", "pinned", tree.text()]);
    run.says(1, &["cut1: part crt", "bit1: part"]);
}

#[test]
fn names_that_move_the_cursor() {
    let tree = Tree::new(&[("r1.token.primary", &secret("names"))]);
    for name in [
        &b"a\x1b[2J"[..],
        b"b\nerror: all is well",
        b"\xff\xfe",
        "c\u{202e}yek".as_bytes(),
    ] {
        fs::write(tree.path().join(std::ffi::OsStr::from_bytes(name)), "").unwrap();
    }
    let run = keydir(&["check", "--use", "token", tree.text()]);
    run.says(0, &["a\\u{1b}[2J", "b\\u{a}error", "c\\u{202e}yek"]);
    assert!(!run.out.contains('\u{202e}'));
    assert_eq!(run.out.lines().count(), 6);
    assert_eq!(keydir(&["check", "--json", tree.text()]).json()["warnings"], 4);
}

#[test]
fn a_broken_layout() {
    let tree = Tree::new(&[]);
    tree.link("..data", "..gone");
    for command in ["check", "ls", "watch"] {
        keydir(&[command, tree.text()]).says(2, &["..data", "publish again"]);
    }
    let token = tree.write("..input", secret("mend"));
    let file = format!("r1.token.primary={}", token.display());
    keydir(&["publish", tree.text(), &file]).says(1, &["not published"]);
    // To replace all that is lost needs nothing of it.
    keydir(&["publish", tree.text(), "--replace", &file]).says(0, &["staged r1"]);
    keydir(&["check", tree.text()]).says(0, &["kubelet layout"]);
}

#[test]
fn links_to_the_directory_are_followed() {
    let tree = Tree::new(&[]);
    fs::create_dir(tree.path().join("real")).unwrap();
    tree.write("real/r1.token.primary", secret("link"));
    tree.link("link", "real");
    keydir(&["check", &tree.join("link")]).says(0, &["ok"]);
    tree.link("loop", "loop");
    keydir(&["check", &tree.join("loop")]).says(2, &["symbolic links"]);
}

#[test]
fn ids_of_any_length_fit() {
    let id = "x".repeat(239);
    let tree = Tree::new(&[(&format!("{id}.token.primary"), &secret("long"))]);
    keydir(&["ls", tree.text()]).says(0, &[&id]);
    assert_eq!(keydir(&["check", tree.text()]).code, 0);
}

/// The control of the search for secrets that every run here makes.
#[test]
fn a_secret_would_be_found() {
    let pem = leaf(VALID).key;
    for text in [secret("control"), pem] {
        let found = std::panic::catch_unwind(|| assert_no_secret(&format!("so: {text}")));
        assert!(found.is_err());
    }
}
