//! What is accepted as a password, by the files of a directory alone.

use keydir::Dir;
use keydir_hyper::Passwords;

use crate::support::passwords::{QUICK, files, hash, passwords};
use crate::support::unusable;

async fn accepted(passwords: &Passwords, user: &str, password: &str) -> Option<String> {
    let key = passwords.verify(user, password.as_bytes()).await.unwrap()?;
    assert_eq!(key.user(), user);
    Some(key.id().as_str().to_owned())
}

/// Made by the reference implementation (argon2-cffi) of `open sesame`.
const REFERENCE: [&str; 5] = [
    "$argon2id$v=19$m=32,t=2,p=2$YSBzYWx0IG9mIDE2IGIuLg$/ux0X4H7A1+s0aVObbkHu6Rrjd0mpUm4",
    "$argon2i$v=19$m=32,t=2,p=2$YSBzYWx0IG9mIDE2IGIuLg$8kGKbM4kyAmg6PQaisp8DJBHJn4/bNbC",
    "$argon2d$v=19$m=32,t=2,p=2$YSBzYWx0IG9mIDE2IGIuLg$Reevrm/rGW8qvH7yk2O17i9KTb24ZNJE",
    "$argon2id$v=16$m=32,t=2,p=2$YSBzYWx0IG9mIDE2IGIuLg$qgBwTpEGv9kYJ/6RYci/jL3sBHrcBvRR",
    "$argon2i$v=16$m=32,t=2,p=2$YSBzYWx0IG9mIDE2IGIuLg$o2os/Ko71SM0ftqeTP5HCqyNDvc1SEzP",
];

#[tokio::test]
async fn hashes_of_the_reference_implementation_are_verified() {
    let without_version = REFERENCE[4].replace("$v=16", "");
    for hash in REFERENCE.into_iter().chain([without_version.as_str()]) {
        for name in ["ali.password-hash", "ali.password-hash.primary"] {
            let dir = Dir::in_memory([(name, format!("{hash}\n"))]);
            let passwords = Passwords::in_dir(&dir).unwrap();
            assert_eq!(
                accepted(&passwords, "ali", "open sesame").await.as_deref(),
                Some("ali"),
                "{hash}"
            );
            for wrong in ["open sesam", "", hash] {
                assert_eq!(accepted(&passwords, "ali", wrong).await, None, "{hash}");
            }
            assert_eq!(accepted(&passwords, "bob", "open sesame").await, None);
        }
    }
}

#[test]
fn what_cannot_be_verified_or_costs_too_much_is_set_aside_with_its_reason() {
    let with = |from: &str, to: &str| REFERENCE[0].replace(from, to);
    let salt_and_hash = "$YSBzYWx0IG9mIDE2IGIuLg$/ux0X4H7A1+s0aVObbkHu6Rrjd0mpUm4";
    for (hash, code, reason) in [
        ("hunter2-in-the-clear".to_owned(), "bad-hash", "no PHC string"),
        ("$hunter2-in-the-clear".to_owned(), "bad-hash", "no PHC string"),
        (
            "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$RdescudvJCsgt3ub+b5dWRWJTmaaJObGRdescudvJCs".to_owned(),
            "unsupported-hash",
            "none of argon2id",
        ),
        (
            "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW".to_owned(),
            "bad-hash",
            "no PHC string",
        ),
        (with("$v=19", "$v=20"), "bad-hash", "neither 16 nor 19"),
        (with("m=32,", ""), "bad-hash", "lacks one"),
        (with("t=2", "x=2"), "bad-hash", "lacks one"),
        (with("p=2", "p=2,x=1"), "bad-hash", "PHC string"),
        (with("m=32", "m=8"), "bad-hash", "not those of Argon2"),
        (with("t=2", "t=0"), "bad-hash", "not those of Argon2"),
        (with("p=2", "p=4294967295"), "bad-hash", "not those of Argon2"),
        (with(salt_and_hash, ""), "bad-hash", "no salt, or no hash"),
        (with("/ux0X4H7A1+s0aVObbkHu6Rrjd0mpUm4", ""), "bad-hash", "PHC string"),
        (with("$YSBzYWx0IG9mIDE2IGIuLg", "$YSBz"), "bad-hash", "fewer than 8"),
        (with("m=32", "m=262145"), "too-costly", "262145 KiB of memory"),
        (with("m=32", "m=4294967295"), "too-costly", "at most 262144"),
        (with("m=32,t=2", "m=262144,t=5"), "too-costly", "262144 KiB 5 times"),
        (with("t=2", "t=4294967295"), "too-costly", "at most 1048576"),
        (format!("{}\nsecond line", REFERENCE[0]), "bad-text", "line end"),
    ] {
        let dir = Dir::in_memory([
            ("bad.password-hash", hash.as_str()),
            ("good.password-hash", REFERENCE[0]),
        ]);
        let passwords = Passwords::in_dir(&dir).unwrap();
        let found = unusable(passwords.live().load().problems(), "bad");
        let (found, message) = found.unwrap_or_else(|| panic!("{hash} is usable"));
        assert!(found == code && message.contains(reason), "{hash}: {found} {message}");
        assert!(!message.contains("hunter2"), "{message}");
        assert_eq!(passwords.live().load().len(), 1);
    }
    // What libsodium calls moderate, and the second choice of RFC 9106.
    for cost in ["m=262144,t=3,p=1", "m=65536,t=3,p=4"] {
        let dir = Dir::in_memory([("r1.password-hash", with("m=32,t=2,p=2", cost))]);
        assert!(Passwords::in_dir(&dir).is_ok(), "{cost}");
    }
}

#[tokio::test]
async fn the_user_is_the_username_or_the_id() {
    let hash = REFERENCE[0];
    let (longest, too_long) = ("u".repeat(63), "u".repeat(64));
    let dir = Dir::in_memory([
        (format!("{longest}.password-hash"), hash),
        (format!("{too_long}.password-hash"), hash),
        (format!("{too_long}-2.password-hash"), hash),
        (format!("{too_long}-2.username"), "ali@example.com\n"),
        ("colon.password-hash".to_owned(), hash),
        ("colon.username".to_owned(), "a:b"),
        ("control.password-hash".to_owned(), hash),
        ("control.username".to_owned(), "a\tb"),
        ("empty.password-hash".to_owned(), hash),
        ("empty.username".to_owned(), "\n"),
    ]);
    let passwords = Passwords::in_dir(&dir).unwrap();
    let set = passwords.live().snapshot();
    let code = |id: &str| unusable(set.problems(), id).map(|(code, _)| code);
    assert_eq!(code(&too_long), Some("no-user-name"));
    assert_eq!(
        (code("colon"), code("control")),
        (Some("bad-user-name"), Some("bad-user-name"))
    );
    assert!(code("empty").is_some() && set.len() == 2);
    for (user, known) in [
        (longest.as_str(), true),
        ("ali@example.com", true),
        (&too_long, false),
        ("colon", false),
        ("a:b", false),
    ] {
        assert_eq!(
            accepted(&passwords, user, "open sesame").await.is_some(),
            known,
            "{user}"
        );
    }
}

#[test]
fn the_flat_layout_needs_a_username() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password-hash"), REFERENCE[0]).unwrap();
    let open = || Passwords::in_dir(&Dir::builder(folder.path()).flat().open().unwrap());
    let error = open().unwrap_err().to_string();
    assert!(
        error.contains("no part \"username\"") && error.contains("password-check"),
        "{error}"
    );
    std::fs::write(folder.path().join("username"), "ali\n").unwrap();
    assert!(open().is_ok());
}

#[tokio::test]
async fn any_password_of_a_user_is_accepted() {
    let all: Vec<_> = (1..=16).map(|n| (format!("r{n}"), format!("password {n}"))).collect();
    let revisions: Vec<_> = all
        .iter()
        .map(|(id, password)| (id.as_str(), "ali", password.as_str(), QUICK))
        .collect();
    let (dir, passwords) = passwords(&revisions);
    for (id, password) in &all {
        assert_eq!(accepted(&passwords, "ali", password).await.as_ref(), Some(id));
    }
    assert_eq!(accepted(&passwords, "ali", "password 17").await, None);

    // One more is a fault of the publication: what was there goes on, less what it revokes.
    let mut more = files(&revisions[1..]);
    more.extend(files(&[
        ("r17", "ali", "password 17", QUICK),
        ("r18", "ali", "password 18", QUICK),
    ]));
    dir.publish(more).unwrap();
    let problems = passwords.live().load().problems().to_vec();
    let problem = problems.iter().find(|problem| problem.code == "not-combined").unwrap();
    assert!(problem.message.contains("r18"), "{problem}");
    assert!(!passwords.live().load().is_adopted());
    assert_eq!(accepted(&passwords, "ali", "password 16").await.as_deref(), Some("r16"));
    for gone in ["password 1", "password 17"] {
        assert_eq!(accepted(&passwords, "ali", gone).await, None);
    }
}

#[tokio::test]
async fn with_nobody_there_nobody_is_let_in() {
    let dir = Dir::builder(tempfile::tempdir().unwrap().path().join("absent"))
        .allow_empty()
        .open()
        .unwrap();
    let passwords = Passwords::in_dir(&dir).unwrap();
    assert_eq!(accepted(&passwords, "ali", "").await, None);
    assert!(hash("x", QUICK).starts_with("$argon2id$v=19$m=8,t=1,p=1$"));
}
