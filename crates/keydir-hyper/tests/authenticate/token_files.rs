//! What is accepted as a token, by the files of a directory alone.

use keydir::Dir;
use keydir_hyper::Tokens;

use crate::support::{tokens, unusable};

const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn accepted(tokens: &Tokens, token: &str) -> Option<String> {
    let key = tokens.verify(token.as_bytes())?;
    Some(key.id().as_str().to_owned())
}

#[test]
fn a_token_is_accepted_by_itself_or_by_its_digest() {
    let upper = ABC.to_uppercase();
    let mixed = format!("{}{}", &upper[..32], &ABC[32..]);
    for files in [
        &[("r1.token", "abc")][..],
        &[("r1.token", "abc\n")],
        &[("r1.token", "abc\r\n")],
        &[("r1.token-sha256", ABC)],
        &[("r1.token-sha256", &format!("{ABC}\n"))],
        &[("r1.token-sha256", &upper)],
        &[("r1.token-sha256", &mixed)],
        &[("r1.token-sha256", &upper), ("r1.token", "abc\n")],
    ] {
        let (_dir, tokens) = tokens(files);
        assert_eq!(accepted(&tokens, "abc").as_deref(), Some("r1"), "{files:?}");
        for other in ["", "ab", "abcd", "abd", "Abc", "abc\n", ABC, &upper] {
            assert_eq!(accepted(&tokens, other), None, "{files:?} {other:?}");
        }
    }
}

#[test]
fn what_could_never_be_presented_is_set_aside_with_its_reason() {
    let long = "x".repeat(15 * 1024 + 1);
    let of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    for (files, code, reason) in [
        (&[("bad.token", "a\nb")][..], "bad-text", "line end"),
        (&[("bad.token", "a\rb")], "bad-text", "line end"),
        (&[("bad.token", "abc\n\n")], "bad-text", "line end"),
        (&[("bad.token", "a\0b")], "bad-text", "NUL"),
        (&[("bad.token", " abc")], "bad-token", "space or a tab"),
        (&[("bad.token", "abc\t\n")], "bad-token", "space or a tab"),
        (&[("bad.token", "a\u{7f}b")], "bad-token", "control character"),
        (&[("bad.token", "a\u{1b}b")], "bad-token", "control character"),
        (&[("bad.token", &long)], "too-long", "15361 bytes"),
        (&[("bad.token-sha256", &ABC[1..])], "bad-digest", "64 hex"),
        (&[("bad.token-sha256", &format!("{ABC}0"))], "bad-digest", "64 hex"),
        (&[("bad.token-sha256", &format!("{ABC}00"))], "bad-digest", "64 hex"),
        (&[("bad.token-sha256", &ABC.replace('b', "g"))], "bad-digest", "64 hex"),
        (
            &[("bad.token-sha256", &format!(" {}", &ABC[1..]))],
            "bad-digest",
            "64 hex",
        ),
        (&[("bad.token-sha256", of_nothing)], "bad-digest", "nothing at all"),
        (
            &[("bad.token-sha256", ABC), ("bad.token", "abd")],
            "token-mismatch",
            "another SHA-256",
        ),
    ] {
        let (_dir, tokens) = tokens(&[files, &[("good.token", "good")]].concat());
        let (found, message) = unusable(tokens.live().load().problems(), "bad").unwrap();
        assert!(
            found == code && message.contains(reason),
            "{files:?}: {found} {message}"
        );
        assert_eq!(accepted(&tokens, "good").as_deref(), Some("good"));
        assert_eq!(tokens.live().load().len(), 1);
    }
}

#[test]
fn the_longest_token_and_unusual_characters_are_accepted() {
    let longest = "x".repeat(15 * 1024);
    for token in [&longest, "1|pipe", "a b", "\"quoted\"", "a\tb", "t\u{f6}ken", "a,b;c=d"] {
        let (_dir, tokens) = tokens(&[("r1.token", token)]);
        assert_eq!(accepted(&tokens, token).as_deref(), Some("r1"), "{token:?}");
    }
    // Of a digest nobody knows how long its token is: it is refused when it is presented.
    let digest = "f21cb18192dfdcbcd2c451d2432f0d0d84bd0565c1bf7db9e098b575fc0b2a0d";
    let dir = Dir::in_memory([("r1.token-sha256", digest)]);
    let tokens = Tokens::in_dir(&dir).unwrap();
    assert_eq!(accepted(&tokens, &"x".repeat(15 * 1024 + 1)), None);
}

#[test]
fn nothing_to_accept_is_an_error_that_names_the_reason() {
    let dir = Dir::in_memory([("r1.token", "a\u{1}b")]);
    let error = Tokens::in_dir(&dir).unwrap_err().to_string();
    assert!(
        error.contains("token-check") && error.contains("control character"),
        "{error}"
    );
    assert!(Tokens::open("/nonexistent").is_err());
}

#[test]
fn a_revoked_token_is_refused_from_that_moment_and_a_broken_one_is_held() {
    let both = [("r1.token", "one"), ("r2.token", "two")];
    let (dir, tokens) = tokens(&both);
    let key = tokens.verify(b"one").unwrap();

    dir.publish(both.into_iter().chain([("r1.revoked", "")])).unwrap();
    assert!(accepted(&tokens, "one").is_none() && !key.stands());
    assert_eq!(accepted(&tokens, "two").as_deref(), Some("r2"));

    dir.publish([("r2.token", "two"), ("r3.token", "three")]).unwrap();
    dir.publish([("r3.token", "three")]).unwrap();
    assert_eq!(accepted(&tokens, "two"), None);

    dir.publish([("r3.token", "thr\u{1}ee")]).unwrap();
    assert_eq!(accepted(&tokens, "three").as_deref(), Some("r3"));
    assert_eq!(accepted(&tokens, "thr\u{1}ee"), None);
}

#[test]
fn of_two_revisions_with_one_token_the_first_counts_and_either_is_enough() {
    let both = [("r10.token", "abc"), ("r2.token-sha256", ABC)];
    let (dir, tokens) = tokens(&both);
    assert_eq!(accepted(&tokens, "abc").as_deref(), Some("r2"));
    dir.publish(both.into_iter().chain([("r2.revoked", "")])).unwrap();
    assert_eq!(accepted(&tokens, "abc").as_deref(), Some("r10"));
}

#[test]
fn only_the_use_of_what_was_accepted_is_noted() {
    let (dir, tokens) = tokens(&[("r1.token", "one"), ("r2.token", "two")]);
    assert!(tokens.verify(b"two").is_some() && tokens.verify(b"three").is_none());
    let report = serde_json::to_value(dir.report()).unwrap();
    let revisions = &report["sets"][0]["revisions"];
    assert!(revisions["r1"]["last_use"].is_null(), "{report}");
    assert!(revisions["r2"]["last_use"].is_u64(), "{report}");
}

#[test]
fn any_of_thousands_is_found_and_nothing_else() {
    let files = (0..5000).map(|n| (format!("r{n}.token"), format!("token-{n}")));
    let dir = Dir::in_memory(files);
    let tokens = Tokens::in_dir(&dir).unwrap();
    for n in 0..5000 {
        assert_eq!(accepted(&tokens, &format!("token-{n}")), Some(format!("r{n}")));
    }
    assert_eq!(accepted(&tokens, "token-5000"), None);
}
