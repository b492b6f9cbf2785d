//! tower-http's own layers over the same checks.

use http::StatusCode;
use keydir_hyper::{AuthenticateLayer, Authorize, ValidateToken};
use tower::Layer;
use tower_http::auth::AsyncRequireAuthorizationLayer;
use tower_http::validate_request::ValidateRequestHeaderLayer;

use crate::support::{Hello, ask, tokens};

#[tokio::test]
async fn tokens_behind_validate_request() {
    let (dir, tokens) = tokens(&[("r1.token", "one"), ("r2.token", "two")]);
    let bearer = ValidateToken::<String>::bearer(&tokens).realm("api").unwrap();
    let service = ValidateRequestHeaderLayer::custom(bearer).layer(Hello::default());
    let one = [("authorization", "Bearer one")];
    let answer = ask(service.clone(), &one).await;
    assert!(
        answer.body.starts_with("r1 - ") && answer.body.contains("Sensitive"),
        "{answer:?}"
    );
    let answer = ask(service.clone(), &[]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.challenges),
        (401, vec!["Bearer realm=\"api\"".to_owned()])
    );
    assert_eq!(
        ask(service.clone(), &[one[0], one[0]]).await.status,
        StatusCode::BAD_REQUEST
    );

    let header = ValidateToken::<String>::header("x-api-key".parse().unwrap(), &tokens);
    let by_header = ValidateRequestHeaderLayer::custom(header).layer(Hello::default());
    assert!(ask(by_header, &[("x-api-key", "two")]).await.body.starts_with("r2 - "));

    dir.publish([("r2.token", "two")]).unwrap();
    assert_eq!(ask(service, &one).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_layer_behind_require_authorization() {
    let (_dir, tokens) = tokens(&[("r1.token", "one")]);
    let layer = AuthenticateLayer::bearer(&tokens);
    #[cfg(feature = "password-hash")]
    let (_dir2, passwords) = crate::support::passwords::passwords(&[("p1", "ali", "sesame", 8)]);
    #[cfg(feature = "password-hash")]
    let layer = layer.or(AuthenticateLayer::basic(&passwords));
    let authorize = Authorize::<String>::from(layer);
    let service = AsyncRequireAuthorizationLayer::new(authorize).layer(Hello::default());
    assert!(
        ask(service.clone(), &[("authorization", "Bearer one")])
            .await
            .body
            .starts_with("r1 - ")
    );
    let answer = ask(service.clone(), &[("authorization", "Bearer two")]).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer.challenges[0], "Bearer error=\"invalid_token\"");
    #[cfg(feature = "password-hash")]
    for (password, status) in [("sesame", StatusCode::OK), ("barley", StatusCode::UNAUTHORIZED)] {
        let login = crate::support::passwords::basic("ali", password);
        assert_eq!(ask(service.clone(), &[("authorization", &login)]).await.status, status);
    }
}
