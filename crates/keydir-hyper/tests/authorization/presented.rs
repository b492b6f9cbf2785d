//! What stands in the header, request by request.

use http::HeaderName;
use http::header::AUTHORIZATION;
use keydir::Dir;
use keydir_hyper::{AuthorizationLayer, Login, NoCredential, Token};
use tower::{Layer, ServiceExt};

use crate::support::{Accepted, Server, bearer, files, get, ok, send, status, tokens, unauthorized};

const URI: &str = "https://api.internal/";

#[tokio::test]
async fn each_request_presents_the_primary_of_its_moment() {
    let (dir, token) = tokens("r1", &["r2"]);
    let server = Server::new(|_| ok());
    let client = AuthorizationLayer::bearer(&token)
        .only_for(["api.internal"])
        .unwrap()
        .layer(server.clone());
    send(&client, get(URI)).await;
    dir.publish(files("r2", &["r1"])).unwrap();
    send(&client, get(URI)).await;
    dir.publish(files("r3", &[])).unwrap();
    send(&client, get(URI)).await;
    assert_eq!(server.credentials(), [bearer("r1"), bearer("r2"), bearer("r3")]);
}

#[tokio::test]
async fn a_login_is_sent_in_base64_and_a_key_in_its_header() {
    let dir = Dir::in_memory([("r1.username.primary", "Aladdin"), ("r1.password", "open sesame")]);
    let login = Login::in_dir(&dir).unwrap();
    let server = Server::new(|_| ok());
    let client = AuthorizationLayer::basic(&login).any_origin().layer(server.clone());
    send(&client, get(URI)).await;
    assert_eq!(server.credentials(), [["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]]);

    let name = HeaderName::from_static("x-api-key");
    let (_, token) = tokens("r1", &[]);
    let server = Server::with_header(name.clone(), |_| ok());
    let client = AuthorizationLayer::header(name, &token)
        .any_origin()
        .layer(server.clone());
    send(&client, get(URI)).await;
    assert_eq!(server.credentials(), [["token-of-r1"]]);
}

#[tokio::test]
async fn what_the_caller_has_set_stays_alone() {
    let (_, token) = tokens("r1", &["r2"]);
    let server = Server::new(|_| unauthorized("Bearer"));
    let layer = AuthorizationLayer::bearer(&token).try_another().any_origin();
    let client = layer.layer(server.clone());
    let mut request = get(URI);
    request
        .headers_mut()
        .insert(AUTHORIZATION, "Bearer mine".parse().unwrap());
    assert_eq!(send(&client, request).await, 401);
    assert_eq!(server.credentials(), [["Bearer mine"]]);

    let twice = layer.layer(client);
    send(&twice, get(URI)).await;
    assert!(server.credentials().iter().all(|values| values.len() == 1));
}

#[tokio::test]
async fn without_a_credential_the_request_is_not_sent() {
    let dir = Dir::builder("/nonexistent").allow_empty().open().unwrap();
    let token = Token::in_dir(&dir).unwrap();
    let server = Server::new(|_| ok());
    let client = AuthorizationLayer::bearer(&token)
        .only_for(["api.internal"])
        .unwrap()
        .layer(server.clone());
    let error = client.clone().oneshot(get(URI)).await.unwrap_err();
    let error = error.downcast_ref::<NoCredential>().unwrap();
    assert_eq!(
        error.to_string(),
        "the request was not sent, since there is no credential in /nonexistent to present: no revision has all parts of \
         the use: publish one"
    );
    assert_eq!(server.sent(), []);
    assert_eq!(send(&client, get("https://elsewhere.test/")).await, 200);
}

#[tokio::test]
async fn a_revoked_primary_is_presented_until_there_is_another() {
    let (dir, token) = tokens("r1", &["r2"]);
    let accepted = Accepted::these(["token-of-r1"]);
    let server = Server::accepting(&accepted);
    let client = AuthorizationLayer::bearer(&token)
        .try_another()
        .any_origin()
        .layer(server.clone());
    send(&client, get(URI)).await;
    let mut revoked = files("r1", &["r2"]);
    revoked.push(("r1.revoked".to_owned(), String::new()));
    dir.publish(revoked).unwrap();
    assert_eq!(send(&client, get(URI)).await, 200);
    // The server hears of it too, and there is one that stands.
    accepted.set(["token-of-r2"]);
    assert_eq!(send(&client, get(URI)).await, 200);
    dir.publish(files("r2", &[])).unwrap();
    assert_eq!(send(&client, get(URI)).await, 200);
    let expected = ["r1", "r1", "r1", "r2", "r2"].map(bearer);
    assert_eq!(server.credentials(), expected);
}

fn report(dir: &Dir, id: &str) -> keydir::RevisionReport {
    let report = dir.report();
    let mut sets = report.sets.into_iter();
    sets.find_map(|mut set| set.revisions.remove(&id.parse().unwrap()))
        .unwrap()
}

#[tokio::test]
async fn a_use_is_noted_with_any_answer_but_refusals_and_failures() {
    for (code, noted) in [
        (200, true),
        (204, true),
        (302, true),
        (403, true),
        (404, true),
        (429, true),
        (401, false),
        (407, false),
        (408, false),
        (421, false),
        (500, false),
        (503, false),
    ] {
        let (dir, token) = tokens("r1", &[]);
        let client = AuthorizationLayer::bearer(&token)
            .any_origin()
            .layer(Server::new(move |_| status(code)));
        assert_eq!(report(&dir, "r1").last_use, None);
        send(&client, get(URI)).await;
        assert_eq!(report(&dir, "r1").last_use.is_some(), noted, "{code}");
    }
}

#[tokio::test]
async fn a_request_counts_as_a_use_while_it_waits() {
    let (dir, token) = tokens("r1", &["r2"]);
    let client = AuthorizationLayer::bearer(&token)
        .any_origin()
        .layer(Server::new(|_| ok()));
    let mut client = client;
    let waiting = tower::Service::call(&mut client, get(URI));
    assert_eq!((report(&dir, "r1").uses, report(&dir, "r2").uses), (1, 0));
    let response = waiting.await.unwrap();
    assert_eq!(report(&dir, "r1").uses, 0);
    drop(response);
    drop(tower::Service::call(&mut client, get(URI)));
    assert_eq!(report(&dir, "r1").uses, 0, "nobody waits any more");
}
