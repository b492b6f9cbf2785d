//! Directories in memory, requests, and a service that says who was let through.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use http::{Request, Response, StatusCode};
use keydir::Dir;
use keydir_hyper::{Authenticate, AuthenticateLayer, Authenticated, Tokens};
use tower::{Layer, Service, ServiceExt};

/// The code of the reason for which a revision is not usable, and the whole message.
pub(crate) fn unusable(problems: &[keydir::Problem], id: &str) -> Option<(&'static str, String)> {
    let mut found = problems
        .iter()
        .filter(|problem| problem.code == "unusable" && problem.subject == id);
    found
        .next()
        .map(|problem| (problem.cause.unwrap(), problem.to_string()))
}

pub(crate) fn tokens(files: &[(&str, &str)]) -> (Dir, Tokens) {
    let dir = Dir::in_memory(files.iter().copied());
    let tokens = Tokens::in_dir(&dir).unwrap();
    (dir, tokens)
}

/// Answers with who is let through and with what the header says in debug output. Panics if it is called on a clone that
/// was not asked whether it is ready.
#[derive(Debug, Default)]
pub(crate) struct Hello {
    ready: bool,
}

impl Clone for Hello {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<B> Service<Request<B>> for Hello {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        assert!(self.ready, "called without being ready");
        self.ready = false;
        let caller = request
            .extensions()
            .get::<Authenticated>()
            .expect("let through by nobody");
        let user = caller.user().unwrap_or("-");
        let headers = request.headers();
        let body = format!("{} {user} {headers:?}", caller.revision());
        ready(Ok(Response::new(body)))
    }
}

pub(crate) fn behind(layer: &AuthenticateLayer) -> Authenticate<Hello> {
    layer.layer(Hello::default())
}

pub(crate) fn request<V: AsRef<[u8]>>(headers: &[(&str, V)]) -> Request<String> {
    let mut request = Request::get("/");
    for (name, value) in headers {
        request = request.header(*name, value.as_ref());
    }
    request.body(String::new()).unwrap()
}

/// What a client sees of an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) challenges: Vec<String>,
    pub(crate) retry_after: Option<String>,
    pub(crate) body: String,
}

impl From<Response<String>> for Answer {
    fn from(response: Response<String>) -> Self {
        let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
        Self {
            status: response.status(),
            challenges: response
                .headers()
                .get_all("www-authenticate")
                .iter()
                .map(text)
                .collect(),
            retry_after: response.headers().get("retry-after").map(text),
            body: response.into_body(),
        }
    }
}

pub(crate) async fn ask<S>(service: S, headers: &[(&str, &str)]) -> Answer
where
    S: Service<Request<String>, Response = Response<String>, Error = Infallible>,
{
    service.oneshot(request(headers)).await.unwrap().into()
}

#[cfg(feature = "password-hash")]
pub(crate) mod passwords {
    use std::time::{Duration, Instant};

    use argon2::{Argon2, Params, PasswordHasher};
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use keydir::Dir;
    use keydir_hyper::Passwords;

    /// KiB that make a hash quick, and slow.
    pub(crate) const QUICK: u32 = 8;
    pub(crate) const SLOW: u32 = 16 * 1024;

    pub(crate) fn hash(password: &str, memory: u32) -> String {
        let argon2 = Argon2::from(Params::new(memory, 1, 1, None).unwrap());
        let hash = argon2.hash_password_with_salt(password.as_bytes(), b"16 bytes of salt");
        hash.unwrap().to_string()
    }

    /// Revisions `(id, user, password, memory)`.
    pub(crate) fn files(revisions: &[(&str, &str, &str, u32)]) -> Vec<(String, String)> {
        let of = |(id, user, password, memory): &(&str, &str, &str, u32)| {
            [
                (format!("{id}.username"), (*user).to_owned()),
                (format!("{id}.password-hash"), hash(password, *memory)),
            ]
        };
        revisions.iter().flat_map(of).collect()
    }

    pub(crate) fn passwords(revisions: &[(&str, &str, &str, u32)]) -> (Dir, Passwords) {
        let dir = Dir::in_memory(files(revisions));
        let passwords = Passwords::in_dir(&dir).unwrap();
        (dir, passwords)
    }

    pub(crate) fn basic(user: &str, password: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
    }

    /// Waits until something is the case, while other tasks go on; panics after 60 seconds.
    pub(crate) async fn eventually(what: &str, mut is_the_case: impl AsyncFnMut() -> bool) {
        let begun = Instant::now();
        while !is_the_case().await {
            assert!(begun.elapsed() < Duration::from_secs(60), "still not the case: {what}");
            tokio::task::yield_now().await;
        }
    }
}
