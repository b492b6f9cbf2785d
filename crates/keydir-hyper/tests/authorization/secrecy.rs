//! Nothing that is printed shows a token or a password.

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex};

use http::header::AUTHORIZATION;
use keydir::Dir;
use keydir_hyper::{AuthorizationLayer, Login, Token};
use tower::{Layer, Service, ServiceExt};
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{Server, get, ok, unauthorized};

const TOKENS: [&str; 2] = ["canary-4f9dQ7w2", "canary-8kLx03Vb"];
const PASSWORD: &str = "canary-p5Zr81Ty";
/// Of `ali:canary-p5Zr81Ty`, without what the user name and padding have to do with.
const BASIC: &str = "OmNhbmFyeS1wNVpyODFUe";

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Output {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Output {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

fn assert_silent(text: &str) {
    for secret in TOKENS.iter().chain([&PASSWORD, &BASIC, &"canary"]) {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

fn dirs() -> (Dir, Dir) {
    let tokens = [("r1.token", TOKENS[0]), ("r2.token.primary", TOKENS[1])];
    let login = [("ali.password.primary", PASSWORD), ("bob.password", PASSWORD)];
    (Dir::in_memory(tokens), Dir::in_memory(login))
}

#[tokio::test]
async fn neither_events_nor_debug_output_nor_errors_show_a_secret() {
    let output = Output::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(output.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (tokens, logins) = dirs();
    let (token, login) = (Token::in_dir(&tokens).unwrap(), Login::in_dir(&logins).unwrap());
    let server = Server::new(|sent| match sent.credentials.concat().ends_with(TOKENS[0]) {
        true => ok(),
        false => unauthorized("Bearer, Basic realm=\"x\""),
    });
    let mut shown = String::new();
    for builder in [AuthorizationLayer::bearer(&token), AuthorizationLayer::basic(&login)] {
        write!(shown, "{builder:?}").unwrap();
        let layer = builder.try_another().only_for(["api.internal"]).unwrap();
        let mut client = layer.layer(server.clone());
        for uri in ["https://api.internal/", "https://api.internal/", "https://evil.test/"] {
            let response = client.call(get(uri));
            write!(shown, "{response:?}").unwrap();
            let response = response.await;
            write!(shown, "{response:?}").unwrap();
        }
        write!(shown, "{layer:?}{:?}", layer.layer(())).unwrap();
    }
    write!(
        shown,
        "{token:?}{:?}{:?}",
        token.live().view(),
        token.primary().unwrap()
    )
    .unwrap();
    write!(shown, "{:?}{:?}", *token.primary().unwrap(), token.live().snapshot()).unwrap();
    write!(
        shown,
        "{login:?}{:?}{:?}",
        login.live().view(),
        *login.primary().unwrap()
    )
    .unwrap();
    let mut request = get("https://api.internal/");
    let values = request.headers_mut();
    values.append(AUTHORIZATION, token.primary().unwrap().bearer().clone());
    values.append(AUTHORIZATION, token.primary().unwrap().value().clone());
    values.append(AUTHORIZATION, login.primary().unwrap().basic().clone());
    write!(shown, "{request:?}").unwrap();
    write!(shown, "{:?}", keydir::report()).unwrap();
    assert_silent(&shown);

    let events = output.text();
    assert_silent(&events);
    for told in [
        "refuses the credential",
        "is sent again",
        "goes without a credential",
        "accepts the credential",
    ] {
        assert!(events.contains(told), "{told} in {events}");
    }
}

/// h2 and rustls tell much to whoever listens.
#[cfg(feature = "client")]
#[tokio::test]
async fn nor_do_the_events_of_http2() {
    let output = Output::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(output.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (tokens, _) = dirs();
    let token = Token::in_dir(&tokens).unwrap();
    let server = crate::https::Https::start("h2", |_| ok()).await;
    let client = AuthorizationLayer::bearer(&token).any_origin().layer(server.client());
    let request = get(&server.uri().to_string());
    assert_eq!(client.oneshot(request).await.unwrap().status(), 200);
    assert_eq!(server.credentials(), [format!("Bearer {}", TOKENS[1])]);
    let events = output.text();
    assert!(events.contains("h2::"), "they were listened to");
    assert_silent(&events);
}
