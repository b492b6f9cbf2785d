//! User names and passwords in requests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use keydir_hyper::{AuthenticateLayer, Busy};

use crate::support::passwords::{QUICK, SLOW, basic, eventually, files, passwords};
use crate::support::{ask, behind, tokens};

const CHALLENGE: &str = "Basic realm=\"restricted\", charset=\"UTF-8\"";

#[tokio::test]
async fn a_login_is_let_through_and_garbage_is_not() {
    let (_dir, passwords) = passwords(&[
        ("r1", "ali", "open:sesame", QUICK),
        ("r2", "j\u{fc}rgen", "gr\u{fc}n", QUICK),
        ("r3", "empty", "", QUICK),
    ]);
    let service = behind(&AuthenticateLayer::basic(&passwords));
    for (header, by) in [
        (basic("ali", "open:sesame"), "r1 ali "),
        (basic("ali", "open:sesame").replace("Basic", "bASIC  "), "r1 ali "),
        (basic("j\u{fc}rgen", "gr\u{fc}n"), "r2 j\u{fc}rgen "),
        (basic("empty", ""), "r3 empty "),
    ] {
        for _ in 0..2 {
            let answer = ask(service.clone(), &[("authorization", &header)]).await;
            assert_eq!(answer.status, StatusCode::OK, "{header}");
            assert!(
                answer.body.starts_with(by) && answer.body.contains("Sensitive"),
                "{answer:?}"
            );
        }
    }
    let encoded = |bytes: &[u8]| format!("Basic {}", STANDARD.encode(bytes));
    for header in [
        basic("ali", "open"),
        basic("ali", ""),
        basic("Ali", "open:sesame"),
        basic("", "open:sesame"),
        basic("nobody", "open:sesame"),
        encoded(b"ali"),
        encoded(b""),
        encoded(b"\xff:open:sesame"),
        encoded(b"j\xfcrgen:gr\xfcn"),
        encoded(&[b'x'; 20_000]),
        "Basic".to_owned(),
        "Basic !".to_owned(),
        basic("ali", "open:sesame").trim_end_matches('=').to_owned() + "!",
        format!("{} {}", basic("ali", "open:sesame"), "x"),
        "Bearer ali".to_owned(),
        String::new(),
    ] {
        let answer = ask(service.clone(), &[("authorization", &header)]).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{header:.60}");
        assert_eq!(answer.challenges, [CHALLENGE]);
    }
    let login = basic("ali", "open:sesame");
    let twice = ask(service, &[("authorization", &login), ("authorization", &login)]).await;
    assert_eq!(
        (twice.status.as_u16(), twice.challenges),
        (400, vec![CHALLENGE.to_owned()])
    );
}

#[tokio::test]
async fn beside_tokens_and_other_passwords() {
    let (_dir, tokens) = tokens(&[("t1.token", "token")]);
    let (_dir2, users) = passwords(&[("u1", "ali", "sesame", QUICK)]);
    let (_dir3, admins) = passwords(&[("a1", "root", "barley", QUICK)]);
    let layer = AuthenticateLayer::bearer(&tokens)
        .or(AuthenticateLayer::basic(&users))
        .or(AuthenticateLayer::basic(&admins).realm("admins").unwrap())
        .or(AuthenticateLayer::header("x-api-key".parse().unwrap(), &tokens));
    let service = behind(&layer);
    let (ali, root, wrong) = (basic("ali", "sesame"), basic("root", "barley"), basic("ali", "barley"));
    for (headers, by) in [
        (&[("authorization", "Bearer token")][..], "t1 - "),
        (&[("authorization", &ali)], "u1 ali "),
        (&[("authorization", &root)], "a1 root "),
        (&[("authorization", &wrong), ("x-api-key", "token")], "t1 - "),
        (&[("authorization", &ali), ("x-api-key", "other")], "u1 ali "),
    ] {
        let answer = ask(service.clone(), headers).await;
        assert!(answer.body.starts_with(by), "{headers:?}: {answer:?}");
    }
    let key = "ApiKey header=\"x-api-key\"";
    let admins = "Basic realm=\"admins\", charset=\"UTF-8\"";
    for (headers, status, bearer) in [
        (&[][..], 401, "Bearer"),
        (
            &[("authorization", "Bearer other")],
            401,
            "Bearer error=\"invalid_token\"",
        ),
        (&[("authorization", &wrong)], 401, "Bearer"),
        (&[("authorization", &wrong), ("x-api-key", "other")], 401, "Bearer"),
        (
            &[("authorization", &ali), ("x-api-key", "token"), ("x-api-key", "token")],
            400,
            "Bearer",
        ),
        (
            &[
                ("authorization", &ali),
                ("authorization", "Bearer token"),
                ("x-api-key", "token"),
            ],
            400,
            "Bearer error=\"invalid_request\"",
        ),
    ] {
        let answer = ask(service.clone(), headers).await;
        assert_eq!(answer.status.as_u16(), status, "{headers:?}");
        assert_eq!(answer.challenges, [bearer, key, CHALLENGE, admins], "{headers:?}");
    }
}

#[tokio::test]
async fn a_revocation_counts_at_the_next_request_though_the_password_was_right_before() {
    let all = [("r1", "ali", "one", QUICK), ("r2", "ali", "two", QUICK)];
    let (dir, passwords) = passwords(&all);
    let service = behind(&AuthenticateLayer::basic(&passwords));
    let status = async |password| {
        ask(service.clone(), &[("authorization", &basic("ali", password))])
            .await
            .status
    };
    for password in ["one", "two", "one", "two"] {
        assert_eq!(status(password).await, StatusCode::OK);
    }
    dir.publish(files(&all[1..])).unwrap();
    assert_eq!(status("one").await, StatusCode::UNAUTHORIZED);
    assert_eq!(status("two").await, StatusCode::OK);

    // Other content under the same id.
    dir.publish(files(&[("r2", "ali", "three", QUICK)])).unwrap();
    assert_eq!(status("two").await, StatusCode::UNAUTHORIZED);
    assert_eq!(status("three").await, StatusCode::OK);
}

#[tokio::test]
async fn a_revocation_counts_also_if_it_comes_while_the_hash_is_computed() {
    let rest = ("r0", "eve", "quick", QUICK);
    let (dir, passwords) = passwords(&[rest]);
    let passwords = passwords.with_limits(1, 0);
    let is_busy = async || passwords.verify("eve", "wrong".as_bytes()).await.is_err();
    eventually("a revocation in the middle of it", async || {
        dir.publish(files(&[rest, ("r1", "ali", "slow", SLOW)])).unwrap();
        let clone = passwords.clone();
        let attempt = tokio::spawn(async move {
            loop {
                match clone.verify("ali", b"slow").await {
                    Ok(found) => return found,
                    Err(Busy) => tokio::task::yield_now().await,
                }
            }
        });
        while !is_busy().await {
            tokio::task::yield_now().await;
            if attempt.is_finished() {
                break;
            }
        }
        dir.publish(files(&[rest])).unwrap();
        let in_the_middle = is_busy().await;
        let outcome = attempt.await.unwrap();
        assert!(!in_the_middle || outcome.is_none(), "let through after its revocation");
        in_the_middle
    })
    .await;
}
