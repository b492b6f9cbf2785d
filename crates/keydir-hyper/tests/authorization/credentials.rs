//! Which tokens and logins can be presented, and what is said of the others.

use keydir::Dir;
use keydir_hyper::{Login, Token};

fn token(text: &str) -> Result<String, String> {
    let token = Token::in_dir(&Dir::in_memory([("r1.token.primary", text)])).map_err(|error| error.to_string())?;
    Ok(token.primary().unwrap().bearer().to_str().unwrap().to_owned())
}

fn any_text(text: &str) -> Result<Vec<u8>, String> {
    let dir = Dir::in_memory([("r1.token.primary", text)]);
    let token = Token::of_any_text(&dir).map_err(|error| error.to_string())?;
    Ok(token.primary().unwrap().value().as_bytes().to_vec())
}

#[test]
fn a_bearer_token_is_what_the_rfc_says() {
    for text in ["abc", "abc\n", "abc\r\n", "aZ09-._~+/", "abc=="] {
        let expected = format!("Bearer {}", text.trim_end());
        assert_eq!(token(text), Ok(expected));
    }
    for text in [
        "Bearer canary-token",
        "canary token",
        " canary-token",
        "canary-token ",
        "canary=token",
        "====",
        "canary|token",
        "\"canary-token\"",
        "canary-tokén",
        "canary\u{7f}token",
        "canary\ttoken",
    ] {
        let error = token(text).unwrap_err();
        assert!(
            error.contains("part token: ") && error.contains("RFC 6750"),
            "{text:?}: {error}"
        );
        assert!(!error.contains("canary"), "{error}");
    }
}

#[test]
fn line_ends_inside_are_refused_by_the_core() {
    for text in ["abc\n\n", "a\nb", "a\rb", "a\0b", "\n"] {
        assert!(token(text).is_err() && any_text(text).is_err(), "{text:?}");
    }
}

#[test]
fn any_text_is_what_a_header_can_carry() {
    for text in ["abc", "Bearer abc", "token abc|def", "{\"a\":1}", "a\tb", "tokén"] {
        assert_eq!(any_text(text), Ok(text.as_bytes().to_vec()));
    }
    for (text, expected) in [
        (" sesame", "begins or ends"),
        ("sesame\t", "begins or ends"),
        ("sesame\u{1}", "control character"),
        ("\u{7f}sesame", "control character"),
    ] {
        let error = any_text(text).unwrap_err();
        assert!(
            error.contains(expected) && !error.contains("sesame"),
            "{text:?}: {error}"
        );
    }
}

#[test]
fn what_is_too_long_for_http2_is_set_aside_and_the_one_before_goes_on() {
    let dir = Dir::in_memory([("r1.token.primary", "good".to_owned())]);
    let token = Token::in_dir(&dir).unwrap();
    dir.publish([
        ("r1.token", "good".to_owned()),
        ("r2.token.primary", "x".repeat(15 * 1024 + 1)),
    ])
    .unwrap();
    assert_eq!(token.primary().unwrap().id().as_str(), "r1");
    let set = token.live().snapshot();
    let said = format!("{:?}", set.problems());
    assert!(
        said.contains("too-long") && said.contains("16 KiB") && said.contains("shorter"),
        "{said}"
    );

    dir.publish([("r3.token.primary", "x".repeat(15 * 1024))]).unwrap();
    assert_eq!(token.primary().unwrap().id().as_str(), "r3");
}

fn login<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<(String, String), String> {
    let login = Login::in_dir(&Dir::in_memory(files)).map_err(|error| error.to_string())?;
    let primary = login.primary().unwrap();
    Ok((primary.user().to_owned(), primary.basic().to_str().unwrap().to_owned()))
}

#[test]
fn a_login_is_encoded_as_the_rfc_says() {
    for (user, password, expected) in [
        ("Aladdin", "open sesame", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ("test", "123£", "Basic dGVzdDoxMjPCow=="),
        ("a", "b:c:d", "Basic YTpiOmM6ZA=="),
    ] {
        let files = [("r1.username.primary", user), ("r1.password", password)];
        assert_eq!(login(files), Ok((user.to_owned(), expected.to_owned())));
    }
    assert_eq!(
        login([("app_2026.password.primary", "b")]),
        Ok(("app_2026".to_owned(), "Basic YXBwXzIwMjY6Yg==".to_owned()))
    );
}

#[test]
fn a_login_that_basic_cannot_send_is_unusable() {
    let long = "x".repeat(64);
    let long_password = format!("canary{}", "x".repeat(12 * 1024));
    for (files, expected) in [
        (vec![("r1.username.primary", "can:ary"), ("r1.password", "p")], "colon"),
        (
            vec![("r1.username.primary", "can\u{7}ary"), ("r1.password", "p")],
            "control character",
        ),
        (
            vec![("r1.username.primary", "u"), ("r1.password", "canary\u{7}")],
            "control character",
        ),
        (
            vec![("r1.username.primary", "u"), ("r1.password", long_password.as_str())],
            "16 KiB",
        ),
        (vec![(&*format!("{long}.password.primary"), "canary")], "63 bytes"),
    ] {
        let error = login(files.iter().copied()).unwrap_err();
        assert!(error.contains(expected) && !error.contains("canary"), "{error}");
    }
}

#[test]
fn the_flat_layout_needs_the_user_name() {
    let path = tempfile::tempdir().unwrap();
    std::fs::write(path.path().join("password"), "open sesame\n").unwrap();
    let open = || Login::in_dir(&Dir::builder(path.path()).flat().open().unwrap());
    assert!(open().unwrap_err().to_string().contains("username"));
    std::fs::write(path.path().join("username"), "Aladdin\n").unwrap();
    let login = open().unwrap();
    assert_eq!(login.primary().unwrap().basic(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
}
