//! A server in memory that writes down what it is sent.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderName, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use keydir::Dir;
use keydir_hyper::{BoxError, Replay, Token};
use tower::{Service, ServiceExt};

/// A request as the server has got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) uri: Uri,
    /// All values of the header.
    pub(crate) credentials: Vec<String>,
    pub(crate) body: Bytes,
}

type Answers = dyn Fn(&Sent) -> Response<Full<Bytes>> + Send + Sync;

#[derive(Clone)]
pub(crate) struct Server {
    header: HeaderName,
    answers: Arc<Answers>,
    log: Arc<Mutex<Vec<Sent>>>,
}

impl Server {
    pub(crate) fn new(answers: impl Fn(&Sent) -> Response<Full<Bytes>> + Send + Sync + 'static) -> Self {
        Self::with_header(AUTHORIZATION, answers)
    }

    pub(crate) fn with_header(
        header: HeaderName,
        answers: impl Fn(&Sent) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            header,
            answers: Arc::new(answers),
            log: Arc::default(),
        }
    }

    /// Accepts these tokens, which can be changed, and asks for another where it gets none of them.
    pub(crate) fn accepting(tokens: &Accepted) -> Self {
        let tokens = tokens.clone();
        Self::new(move |sent| match sent.credentials.first() {
            Some(token) if tokens.has(token.trim_start_matches("Bearer ")) => ok(),
            _ => unauthorized("Bearer error=\"invalid_token\""),
        })
    }

    /// What it was sent since it was asked last.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    /// The credentials of these.
    pub(crate) fn credentials(&self) -> Vec<Vec<String>> {
        self.sent().into_iter().map(|sent| sent.credentials).collect()
    }
}

/// Tokens that a server accepts now.
#[derive(Clone, Default)]
pub(crate) struct Accepted(Arc<Mutex<BTreeSet<String>>>);

impl Accepted {
    pub(crate) fn these<'a>(tokens: impl IntoIterator<Item = &'a str>) -> Self {
        let accepted = Self::default();
        accepted.set(tokens);
        accepted
    }

    pub(crate) fn set<'a>(&self, tokens: impl IntoIterator<Item = &'a str>) {
        *self.0.lock().unwrap() = tokens.into_iter().map(str::to_owned).collect();
    }

    pub(crate) fn has(&self, token: &str) -> bool {
        self.0.lock().unwrap().contains(token)
    }
}

impl<B> Service<Request<B>> for Server
where
    B: Body<Data: Send, Error: std::fmt::Debug> + Send + 'static,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            tokio::task::yield_now().await;
            let (parts, body) = request.into_parts();
            let values = parts.headers.get_all(&server.header).iter();
            let sent = Sent {
                uri: parts.uri,
                credentials: values.map(|value| value.to_str().unwrap().to_owned()).collect(),
                body: body.collect().await.unwrap().to_bytes(),
            };
            let answer = (server.answers)(&sent);
            server.log.lock().unwrap().push(sent);
            Ok(answer)
        })
    }
}

pub(crate) fn status(status: u16) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from("said the server")));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

pub(crate) fn ok() -> Response<Full<Bytes>> {
    status(200)
}

pub(crate) fn unauthorized(challenge: &str) -> Response<Full<Bytes>> {
    let mut response = status(401);
    response
        .headers_mut()
        .insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
    response
}

/// Directories that hold a primary and others, as tokens that are called like their revisions.
pub(crate) fn files(primary: &str, others: &[&str]) -> Vec<(String, String)> {
    let mut files = vec![(format!("{primary}.token.primary"), token_of(primary))];
    files.extend(others.iter().map(|id| (format!("{id}.token"), token_of(id))));
    files
}

pub(crate) fn token_of(id: &str) -> String {
    format!("token-of-{id}")
}

pub(crate) fn bearer(id: &str) -> Vec<String> {
    vec![format!("Bearer {}", token_of(id))]
}

pub(crate) fn tokens(primary: &str, others: &[&str]) -> (Dir, Token) {
    let dir = Dir::in_memory(files(primary, others));
    let token = Token::in_dir(&dir).unwrap();
    (dir, token)
}

/// A GET without a body.
pub(crate) fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

/// Sends a request, for its status.
pub(crate) async fn send<S, B, T>(service: &S, request: Request<B>) -> u16
where
    B: Replay,
    S: Service<Request<B>, Response = Response<T>, Error = BoxError> + Clone,
{
    service.clone().oneshot(request).await.unwrap().status().as_u16()
}
