//! When another credential is tried after a 401, and when not. Each rule has its test.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Request, Response};
use http_body_util::{BodyExt, Full};
use keydir::Dir;
use keydir_hyper::{Authorization, AuthorizationLayer, Login, NoReplay, Token};
use tower::{Layer, Service, ServiceExt};

use crate::support::{Accepted, Server, bearer, files, get, ok, send, status, token_of, tokens, unauthorized};

const URI: &str = "https://api.internal/";

fn client(token: &Token, server: &Server) -> Authorization<Server> {
    AuthorizationLayer::bearer(token)
        .try_another()
        .only_for(["api.internal"])
        .unwrap()
        .layer(server.clone())
}

#[tokio::test]
async fn by_default_a_refusal_is_the_callers() {
    let (_, token) = tokens("r2", &["r1"]);
    let server = Server::accepting(&Accepted::these(["token-of-r1"]));
    let client = AuthorizationLayer::bearer(&token).any_origin().layer(server.clone());
    assert_eq!(send(&client, get(URI)).await, 401);
    assert_eq!(send(&client, get(URI)).await, 401);
    assert_eq!(server.credentials(), [bearer("r2"), bearer("r2")]);
}

#[tokio::test(start_paused = true)]
async fn another_is_tried_and_then_presented_at_once_until_the_primary_is_accepted() {
    let (_, token) = tokens("r2", &["r1"]);
    let accepted = Accepted::these(["token-of-r1"]);
    let server = Server::accepting(&accepted);
    let client = client(&token, &server);
    let mut request = get(URI);
    *request.body_mut() = Full::new(Bytes::from("the same body"));
    let response = client.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let sent = server.sent();
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|sent| sent.body == "the same body"));
    assert_eq!(sent[0].credentials, bearer("r2"));
    assert_eq!(sent[1].credentials, bearer("r1"));

    assert_eq!(send(&client, get(URI)).await, 200);
    assert_eq!(server.credentials(), [bearer("r1")], "r2 is left alone");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(send(&client, get(URI)).await, 200);
    assert_eq!(send(&client, get(URI)).await, 200);
    assert_eq!(server.credentials(), ["r2", "r1", "r1"].map(bearer));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(send(&client, get(URI)).await, 200);
    assert_eq!(server.credentials(), [bearer("r1")], "the second pause is of 2 s");

    accepted.set(["token-of-r2"]);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(send(&client, get(URI)).await, 200);
    assert_eq!(send(&client, get(URI)).await, 200);
    assert_eq!(server.credentials(), ["r2", "r2"].map(bearer));
}

#[tokio::test]
async fn at_most_one_other_is_tried() {
    let (_, token) = tokens("r3", &["r1", "r2", "r4"]);
    let server = Server::new(|_| unauthorized("Bearer"));
    let client = client(&token, &server);
    let response = client.clone().oneshot(get(URI)).await.unwrap();
    assert_eq!(response.status(), 401);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "said the server", "it is the second answer, unread");
    assert_eq!(server.credentials(), ["r3", "r4"].map(bearer));
    // The primary is left alone, and what is presented in its place has no other beside it.
    assert_eq!(send(&client, get(URI)).await, 401);
    assert_eq!(server.credentials(), [bearer("r2")]);
    assert_eq!(send(&client, get(URI)).await, 401);
    assert_eq!(server.credentials(), [bearer("r1")]);
    assert_eq!(send(&client, get(URI)).await, 401);
    assert_eq!(
        server.credentials(),
        [bearer("r3")],
        "nothing else is left, so it is as without the option"
    );
}

#[tokio::test]
async fn the_one_that_was_accepted_comes_before_the_last_by_name() {
    let (dir, token) = tokens("r1", &["r3"]);
    let server = Server::accepting(&Accepted::these(["token-of-r1", "token-of-r3"]));
    let client = client(&token, &server);
    send(&client, get(URI)).await;
    dir.publish(files("r2", &["r1", "r3"])).unwrap();
    assert_eq!(send(&client, get(URI)).await, 200);
    assert_eq!(server.credentials(), ["r1", "r2", "r1"].map(bearer));
}

#[tokio::test]
async fn a_primary_that_has_just_changed_is_the_other() {
    let (dir, token) = tokens("r1", &["r2", "r3"]);
    let publish = {
        let dir = dir.clone();
        move || dir.publish(files("r2", &["r1", "r3"])).unwrap()
    };
    let server = Server::new(move |sent| match sent.credentials == bearer("r1") {
        true => {
            publish();
            unauthorized("Bearer")
        }
        false => ok(),
    });
    assert_eq!(send(&client(&token, &server), get(URI)).await, 200);
    assert_eq!(server.credentials(), ["r1", "r2"].map(bearer));
}

#[tokio::test]
async fn a_revoked_one_is_never_the_other() {
    let (dir, token) = tokens("r2", &["r1"]);
    let mut revoked = files("r2", &["r1"]);
    revoked.push(("r1.revoked".to_owned(), String::new()));
    dir.publish(revoked.clone()).unwrap();
    let server = Server::new(|_| unauthorized("Bearer"));
    assert_eq!(send(&client(&token, &server), get(URI)).await, 401);
    assert_eq!(server.credentials(), [bearer("r2")]);

    // It is revoked while its turn comes: the first answer's body is read then.
    dir.publish(files("r2", &["r1"])).unwrap();
    let (server, layer) = (
        Server::new(|_| unauthorized("Bearer")),
        AuthorizationLayer::bearer(&token),
    );
    let revoking = ServiceExt::<Request<Full<Bytes>>>::map_response(server.clone(), move |response: Response<_>| {
        let (dir, revoked) = (dir.clone(), revoked.clone());
        response.map(|body: Full<Bytes>| {
            body.map_frame(move |frame| {
                dir.publish(revoked.clone()).unwrap();
                frame
            })
        })
    });
    let client = layer.try_another().any_origin().layer(revoking);
    assert_eq!(send(&client, get(URI)).await, 401);
    assert_eq!(server.credentials(), [bearer("r2")]);
}

#[tokio::test]
async fn the_same_token_under_another_id_is_no_other() {
    let dir = Dir::in_memory([("r1.token", "the-same"), ("r2.token.primary", "the-same")]);
    let token = Token::in_dir(&dir).unwrap();
    let server = Server::new(|_| unauthorized("Bearer"));
    assert_eq!(send(&client(&token, &server), get(URI)).await, 401);
    assert_eq!(server.sent().len(), 1);
}

/// Also if the server has accepted the same one for another request meanwhile.
#[tokio::test]
async fn the_refused_one_is_never_the_other() {
    let (_, token) = tokens("r2", &["r1"]);
    let server = Server::new(
        |sent| match sent.uri.path() == "/b" && sent.credentials == bearer("r2") {
            true => unauthorized("Bearer"),
            false => ok(),
        },
    );
    let mut client = client(&token, &server);
    let [a, b] = ["a", "b"].map(|path| client.call(get(&format!("{URI}{path}"))));
    assert_eq!(a.await.unwrap().status(), 200);
    assert_eq!(b.await.unwrap().status(), 200);
    assert_eq!(server.credentials(), ["r2", "r2", "r1"].map(bearer));
}

#[tokio::test]
async fn only_where_our_scheme_is_asked_for() {
    for (challenge, expected) in [
        (Some("Bearer"), 2),
        (Some("Basic realm=\"x\", bearer error=\"invalid_token\""), 2),
        (Some("Basic realm=\"Bearer\""), 1),
        (Some("Bearer error=\"insufficient_scope\""), 1),
        (None, 1),
    ] {
        let (_, token) = tokens("r2", &["r1"]);
        let server = Server::new(move |_| challenge.map_or_else(|| status(401), unauthorized));
        send(&client(&token, &server), get(URI)).await;
        assert_eq!(server.sent().len(), expected, "{challenge:?}");
    }
}

#[tokio::test]
async fn for_a_header_of_its_own_any_401() {
    let (_, token) = tokens("r2", &["r1"]);
    let name = HeaderName::from_static("x-api-key");
    let server = Server::with_header(name.clone(), |sent| {
        if sent.credentials == ["token-of-r1"] {
            ok()
        } else {
            status(401)
        }
    });
    let layer = AuthorizationLayer::header(name, &token).try_another().any_origin();
    assert_eq!(send(&layer.layer(server.clone()), get(URI)).await, 200);
    assert_eq!(server.credentials(), [["token-of-r2"], ["token-of-r1"]]);
}

#[tokio::test]
async fn a_login_is_tried_the_same_way() {
    let dir = Dir::in_memory([("u1.password", "one"), ("u2.password.primary", "two")]);
    let login = Login::in_dir(&dir).unwrap();
    let server = Server::new(|sent| match sent.credentials == ["Basic dTE6b25l"] {
        true => ok(),
        false => unauthorized("Basic realm=\"x\""),
    });
    let layer = AuthorizationLayer::basic(&login).try_another().any_origin();
    assert_eq!(send(&layer.layer(server.clone()), get(URI)).await, 200);
    assert_eq!(server.credentials(), [["Basic dTI6dHdv"], ["Basic dTE6b25l"]]);
}

#[tokio::test]
async fn never_after_another_status() {
    for code in [400, 403, 407, 421, 429, 500, 503] {
        let (_, token) = tokens("r2", &["r1"]);
        let server = Server::new(move |_| {
            let mut response = unauthorized("Bearer");
            *response.status_mut() = status(code).status();
            response
        });
        assert_eq!(send(&client(&token, &server), get(URI)).await, code);
        assert_eq!(server.credentials(), [bearer("r2")], "{code}");
    }
}

#[tokio::test]
async fn never_by_plain_http() {
    let (_, token) = tokens("r2", &["r1"]);
    let server = Server::new(|_| unauthorized("Bearer"));
    let layer = AuthorizationLayer::bearer(&token)
        .try_another()
        .also_plain_http()
        .any_origin();
    let client = layer.layer(server.clone());
    for _ in 0..3 {
        assert_eq!(send(&client, get("http://api.internal/")).await, 401);
    }
    assert_eq!(server.credentials(), ["r2", "r2", "r2"].map(bearer));
}

#[tokio::test]
async fn a_body_that_cannot_be_replayed_is_sent_once() {
    let (_, token) = tokens("r2", &["r1"]);
    let server = Server::accepting(&Accepted::these(["token-of-r1"]));
    let client = client(&token, &server);
    let post = || {
        Request::post(URI)
            .body(NoReplay(Full::new(Bytes::from("once"))))
            .unwrap()
    };
    assert_eq!(send(&client, post()).await, 401);
    assert_eq!(send(&client, post()).await, 200, "but it was learned from");
    assert_eq!(server.credentials(), ["r2", "r1"].map(bearer));
}

#[tokio::test]
async fn each_server_has_its_own_say() {
    let (_, token) = tokens("r2", &["r1"]);
    let server = Server::new(|sent| match (sent.uri.host().unwrap(), &sent.credentials) {
        ("old.internal", credentials) if *credentials == bearer("r2") => unauthorized("Bearer"),
        _ => ok(),
    });
    let client = AuthorizationLayer::bearer(&token)
        .try_another()
        .any_origin()
        .layer(server.clone());
    for host in ["old", "new", "old", "new"] {
        send(&client, get(&format!("https://{host}.internal/"))).await;
    }
    assert_eq!(server.credentials(), ["r2", "r1", "r2", "r1", "r2"].map(bearer));
}

/// Many requests at once, and a new primary that is refused: one finds out.
#[tokio::test(start_paused = true)]
async fn a_bad_rotation_is_found_out_by_one_request() {
    let (dir, token) = tokens("r1", &[]);
    let server = Server::accepting(&Accepted::these(["token-of-r1"]));
    let client = client(&token, &server);
    send(&client, get(URI)).await;
    dir.publish(files("r2", &["r1"])).unwrap();
    server.sent();
    let requests: Vec<_> = (0..50)
        .map(|_| tokio::spawn(client.clone().oneshot(get(URI))))
        .collect();
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    let sent = server.credentials();
    let refused = sent.iter().filter(|credentials| **credentials == bearer("r2"));
    assert_eq!((refused.count(), sent.len()), (1, 51));

    // Put right: the next one is found to be good by one request, and then it is presented by all.
    dir.publish(files("r3", &["r1"])).unwrap();
    let server = Server::accepting(&Accepted::these([token_of("r1").as_str(), "token-of-r3"]));
    let client = self::client(&token, &server);
    send(&client, get(URI)).await;
    send(&client, get(URI)).await;
    assert_eq!(server.credentials(), ["r3", "r3"].map(bearer));
}

/// Who limits requests, or is no server of ours, has not looked at the credential.
#[tokio::test(start_paused = true)]
async fn what_says_nothing_of_a_refused_one_ends_no_pause() {
    for code in [408, 421, 429, 503] {
        let (_, token) = tokens("r2", &["r1"]);
        let answered = Arc::new(AtomicU16::new(401));
        let answers = Arc::clone(&answered);
        let server = Server::new(move |sent| match sent.credentials == bearer("r1") {
            true => ok(),
            false => match answers.load(Ordering::SeqCst) {
                401 => unauthorized("Bearer"),
                code => status(code),
            },
        });
        let client = client(&token, &server);
        assert_eq!(send(&client, get(URI)).await, 200);
        tokio::time::advance(Duration::from_secs(1)).await;
        answered.store(code, Ordering::SeqCst);
        assert_eq!(send(&client, get(URI)).await, code, "it is the caller's");
        assert_eq!(send(&client, get(URI)).await, 200);
        assert_eq!(server.credentials(), ["r2", "r1", "r2", "r1"].map(bearer), "{code}");
    }
}
