//! Tokens in requests: what is let through, and how each refusal reads.

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::{Request, StatusCode};
use keydir_hyper::{AuthenticateLayer, Authenticated};
use proptest::prelude::*;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::support::{Answer, ask, behind, request, tokens};

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const BEARER: &str = "Bearer";
const UNKNOWN: &str = "Bearer error=\"invalid_token\"";
const MALFORMED: &str = "Bearer error=\"invalid_request\"";
const API_KEY_CHALLENGE: &str = "ApiKey header=\"x-api-key\"";

#[tokio::test]
async fn a_bearer_token_is_let_through_and_each_refusal_says_why() {
    let (_dir, tokens) = tokens(&[("r1.token", "tok en"), ("r2.token", "token")]);
    let service = behind(&AuthenticateLayer::bearer(&tokens));
    let long = format!("Bearer {}", "x".repeat(300 * 1024));
    for (header, by) in [
        ("Bearer token", "r2"),
        ("bearer token", "r2"),
        ("BEARER token", "r2"),
        ("Bearer   token", "r2"),
        ("  Bearer token ", "r2"),
        ("Bearer tok en", "r1"),
    ] {
        let answer = ask(service.clone(), &[("authorization", header)]).await;
        assert_eq!(answer.status, StatusCode::OK, "{header:?}");
        assert!(
            answer.body.starts_with(&format!("{by} - ")),
            "{header:?}: {}",
            answer.body
        );
    }
    for (headers, status, challenge) in [
        (&[][..], 401, BEARER),
        (&[("x-api-key", "token")], 401, BEARER),
        (&[("authorization", "Basic dG9rZW46")], 401, BEARER),
        (&[("authorization", "token")], 401, BEARER),
        (&[("authorization", "")], 401, BEARER),
        (&[("authorization", "Bearertoken")], 401, BEARER),
        (&[("authorization", "Bearer other")], 401, UNKNOWN),
        (&[("authorization", "Bearer Token")], 401, UNKNOWN),
        (&[("authorization", "Bearer token, Bearer token")], 401, UNKNOWN),
        (&[("authorization", &long)], 401, UNKNOWN),
        (&[("authorization", "Bearer")], 400, MALFORMED),
        (&[("authorization", "Bearer  ")], 400, MALFORMED),
        (
            &[("authorization", "Bearer token"), ("authorization", "Bearer token")],
            400,
            MALFORMED,
        ),
        (
            &[("authorization", "Bearer token"), ("authorization", "Basic dG9rZW46")],
            400,
            MALFORMED,
        ),
    ] {
        let answer = ask(service.clone(), headers).await;
        assert_eq!(answer.status.as_u16(), status, "{headers:.60?}");
        assert_eq!(answer.challenges, [challenge], "{headers:.60?}");
        assert_eq!((answer.body.as_str(), answer.retry_after), ("", None));
    }
}

#[tokio::test]
async fn a_token_in_a_header_of_its_own() {
    let (_dir, tokens) = tokens(&[("r1.token", "token")]);
    let service = behind(&AuthenticateLayer::header(API_KEY, &tokens));
    let answer = ask(service.clone(), &[("X-Api-Key", " token")]).await;
    assert!(answer.body.starts_with("r1 - "), "{answer:?}");
    for (headers, status) in [
        (&[][..], 401),
        (&[("authorization", "Bearer token")], 401),
        (&[("x-api-key", "")], 401),
        (&[("x-api-key", "Bearer token")], 401),
        (&[("x-api-key", "token"), ("x-api-key", "token")], 400),
    ] {
        let answer = ask(service.clone(), headers).await;
        assert_eq!(answer.status.as_u16(), status, "{headers:?}");
        assert_eq!(answer.challenges, [API_KEY_CHALLENGE], "{headers:?}");
    }
}

#[tokio::test]
async fn of_several_ways_one_is_enough_and_all_are_named() {
    let (_dir, users) = tokens(&[("r1.token", "token")]);
    let (_dir2, admins) = tokens(&[("a1.token", "admin")]);
    let bearer = |tokens| AuthenticateLayer::bearer(tokens);
    let layer = bearer(&users)
        .or(AuthenticateLayer::header(API_KEY, &users))
        .or(bearer(&admins));
    let service = behind(&layer);
    for (headers, by) in [
        (&[("authorization", "Bearer token")][..], "r1"),
        (&[("authorization", "Bearer admin")], "a1"),
        (&[("x-api-key", "token")], "r1"),
        (&[("x-api-key", "other"), ("authorization", "Bearer admin")], "a1"),
        (&[("x-api-key", "token"), ("authorization", "Bearer other")], "r1"),
    ] {
        let answer = ask(service.clone(), headers).await;
        assert!(answer.body.starts_with(&format!("{by} - ")), "{headers:?}: {answer:?}");
    }
    for (headers, status, challenges) in [
        (&[][..], 401, [BEARER, API_KEY_CHALLENGE]),
        (&[("authorization", "Bearer other")], 401, [UNKNOWN, API_KEY_CHALLENGE]),
        (&[("x-api-key", "admin")], 401, [BEARER, API_KEY_CHALLENGE]),
        // What is malformed counts, whatever else is presented.
        (
            &[("authorization", "Bearer"), ("x-api-key", "token")],
            400,
            [MALFORMED, API_KEY_CHALLENGE],
        ),
        (
            &[
                ("x-api-key", "token"),
                ("x-api-key", "token"),
                ("authorization", "Bearer token"),
            ],
            400,
            [BEARER, API_KEY_CHALLENGE],
        ),
    ] {
        let answer = ask(service.clone(), headers).await;
        assert_eq!(answer.status.as_u16(), status, "{headers:?}");
        assert_eq!(answer.challenges, challenges, "{headers:?}");
    }
}

#[tokio::test]
async fn a_realm_is_quoted() {
    let (_dir, tokens) = tokens(&[("r1.token", "token")]);
    let layer = || AuthenticateLayer::bearer(&tokens).or(AuthenticateLayer::header(API_KEY, &tokens));
    assert!(layer().realm("new\nline").is_err());
    let service = behind(&layer().realm(r#"the "inner" c:\ "#).unwrap());
    let answer = ask(service, &[("authorization", "Bearer other")]).await;
    let realm = r#"realm="the \"inner\" c:\\ ""#;
    let expected = [
        format!("Bearer {realm}, error=\"invalid_token\""),
        format!("ApiKey {realm}, header=\"x-api-key\""),
    ];
    assert_eq!(answer.challenges, expected);
}

#[tokio::test]
async fn a_revocation_counts_at_the_next_request() {
    let both = [("r1.token", "one"), ("r2.token", "two")];
    let (dir, tokens) = tokens(&both);
    let service = behind(&AuthenticateLayer::bearer(&tokens));
    let one = [("authorization", "Bearer one")];
    let two = [("authorization", "Bearer two")];
    assert_eq!(ask(service.clone(), &one).await.status, StatusCode::OK);

    dir.publish(both.into_iter().chain([("r1.revoked", "")])).unwrap();
    let answer = ask(service.clone(), &one).await;
    assert_eq!(
        (answer.status, answer.challenges),
        (StatusCode::UNAUTHORIZED, vec![UNKNOWN.to_owned()])
    );
    assert_eq!(ask(service.clone(), &two).await.status, StatusCode::OK);

    dir.publish([("r3.token", "three")]).unwrap();
    assert_eq!(ask(service.clone(), &two).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        ask(service, &[("authorization", "Bearer three")]).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn what_outlives_its_request_is_counted_and_told() {
    let (dir, tokens) = tokens(&[("r1.token", "one"), ("r2.token", "two")]);
    let uses = || {
        let report = serde_json::to_value(dir.report()).unwrap();
        report["sets"][0]["revisions"]["r1"]["uses"].as_u64().unwrap()
    };
    let keep = service_fn(async |mut request: Request<String>| {
        let caller = request.extensions_mut().remove::<Authenticated>();
        Ok::<_, std::convert::Infallible>(http::Response::new(caller))
    });
    let service = AuthenticateLayer::bearer(&tokens).layer(keep);
    let response = service
        .oneshot(request(&[("authorization", "Bearer one")]))
        .await
        .unwrap();
    let caller = response.into_body().unwrap();
    assert_eq!((caller.revision().as_str(), caller.user(), uses()), ("r1", None, 1));
    assert!(caller.stands());

    dir.publish([("r2.token", "two")]).unwrap();
    assert!(!caller.stands());
    caller.ended().await;
    let rest = caller.clone();
    drop(caller);
    assert_eq!(uses(), 1);
    drop(rest);
    assert!(serde_json::to_value(dir.report()).unwrap()["sets"][0]["revisions"]["r1"].is_null());
}

#[tokio::test]
async fn credentials_are_passed_on_and_marked_as_sensitive() {
    let (_dir, tokens) = tokens(&[("r1.token", "token-of-the-request")]);
    let seen = service_fn(async |request: Request<String>| {
        let header = request.headers()[AUTHORIZATION].clone();
        assert!(header.is_sensitive() && header == "Bearer token-of-the-request");
        Ok::<_, std::convert::Infallible>(http::Response::new(format!("{request:?}")))
    });
    let service = AuthenticateLayer::bearer(&tokens).layer(seen);
    let request = request(&[("authorization", "Bearer token-of-the-request")]);
    assert!(format!("{request:?}").contains("token-of-the-request"));
    let text = service.oneshot(request).await.unwrap().into_body();
    assert!(text.contains("authorization") && !text.contains("token-of"), "{text}");
}

#[tokio::test]
async fn the_future_of_a_refusal_may_be_polled_again() {
    let (_dir, tokens) = tokens(&[("r1.token", "token")]);
    let mut future = Box::pin(behind(&AuthenticateLayer::bearer(&tokens)).call(request::<&str>(&[])));
    assert_eq!((&mut future).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let again = std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending()));
    assert!(again.await);
}

fn any_value() -> impl Strategy<Value = Vec<u8>> {
    let scheme = prop::sample::select(vec![
        "",
        "Bearer ",
        "bearer\t",
        "Basic ",
        "BASIC  ",
        "Bearer token",
        "Negotiate ",
    ]);
    let bytes = prop::collection::vec(any::<u8>(), 0..40);
    let base64 = "[A-Za-z0-9+/]{0,16}={0,3}".prop_map(String::into_bytes);
    let rest = prop_oneof![bytes, base64, Just(b"token".to_vec())];
    (scheme, rest).prop_map(|(scheme, rest)| [scheme.as_bytes(), &rest].concat())
}

/// The rule, said in another way.
fn is_the_token(authorization: &[u8]) -> bool {
    let text = String::from_utf8_lossy(authorization);
    let blank = [' ', '\t'];
    let (scheme, token) = text.trim_matches(blank).split_once(' ').unwrap_or_default();
    scheme.to_lowercase() == "bearer" && token.trim_matches(blank) == "token"
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_header_panics_and_none_but_the_token_gets_in(
        values in prop::collection::vec(any_value(), 0..3),
        keys in prop::collection::vec(any_value(), 0..2),
    ) {
        let (_dir, tokens) = tokens(&[("r1.token", "token")]);
        let layer = AuthenticateLayer::bearer(&tokens).or(AuthenticateLayer::header(API_KEY, &tokens));
        #[cfg(feature = "password-hash")]
        let (_dir2, passwords) = crate::support::passwords::passwords(&[("p1", "ali", "sesame", 8)]);
        #[cfg(feature = "password-hash")]
        let layer = layer.or(AuthenticateLayer::basic(&passwords));

        let mut request = Request::new(String::new());
        for (name, values) in [(AUTHORIZATION, &values), (API_KEY, &keys)] {
            for value in values.iter().filter_map(|value| HeaderValue::from_bytes(value).ok()) {
                request.headers_mut().append(name.clone(), value);
            }
        }
        let sent = |name| request.headers().get_all(name).iter().map(|value| value.as_bytes().to_vec()).collect::<Vec<_>>();
        let (values, keys) = (sent(AUTHORIZATION), sent(API_KEY));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let answer: Answer = runtime.block_on(behind(&layer).oneshot(request)).unwrap().into();
        let expected = values.iter().any(|value| is_the_token(value)) || keys.iter().any(|key| key == b"token");
        match answer.status.as_u16() {
            200 => prop_assert!(expected && values.len() < 2),
            401 => prop_assert!(!expected && values.len() < 2 && !answer.challenges.is_empty()),
            400 => prop_assert!(!answer.challenges.is_empty()),
            status => prop_assert!(false, "{}", status),
        }
    }
}
