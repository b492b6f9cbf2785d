//! What the layer that asks for a token adds to a request, by the number of tokens; beside tower-http's layer for one
//! token that never changes.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Bytes;
use keydir::Dir;
use keydir_hyper::{AuthenticateLayer, Tokens};
use tokio::runtime::Builder;
use tower_http::validate_request::ValidateRequestHeaderLayer;
use tower_layer::Layer;
use tower_service::Service;

use super::counted;
use crate::Work;
use crate::callgrind::cost;
use crate::table::{Table, number};

const CALLS: usize = 1_000;
const TOKENS: [&str; 3] = ["1", "10", "1000"];
/// Flat, but for what a bigger map costs.
const FLAT: f64 = 1.02;

type Body = Empty<Bytes>;

pub(super) fn bench(work: Work, table: &mut Table) {
    let calls = work.of(CALLS);
    let cost = |what: &str| cost("http::counted", &["http", "layers", what], calls);
    let (none, fixed) = (cost("none"), cost("fixed"));
    let mut one = None;
    for tokens in TOKENS {
        let ours = cost(tokens);
        let added = |cost: crate::callgrind::Cost| cost.instructions - none.instructions;
        let measure = format!("a layer with {tokens} tokens: instructions added, beside tower-http's with a fixed one");
        let [ours_added, theirs] = [added(ours), added(fixed)];
        table.ratio(&measure, number(ours_added), number(theirs), ours_added / theirs, None);
        let first = *one.get_or_insert(ours);
        let measure = format!("a layer with {tokens} tokens: instructions of a call, beside 1 token");
        let ratio = ours.instructions / first.instructions;
        table.ratio(
            &measure,
            number(ours.instructions),
            number(first.instructions),
            ratio,
            Some(FLAT),
        );
        let measure = format!("a layer with {tokens} tokens: allocations added");
        table.count(&measure, ours.allocations - none.allocations, None, None);
    }
}

pub(super) fn inside(arguments: &[&str]) {
    let [what, calls] = arguments else {
        panic!("what, calls")
    };
    let calls: usize = calls.parse().unwrap();
    let runtime = Builder::new_current_thread().build().unwrap();
    match *what {
        "none" => counted(&runtime, call(Answers, calls)),
        "fixed" => {
            #[allow(deprecated, reason = "what people use all the same")]
            let layer = ValidateRequestHeaderLayer::bearer(&token(0));
            counted(&runtime, call(layer.layer(Answers), calls));
        }
        tokens => {
            let files = (0..tokens.parse().unwrap()).map(|n| (format!("t{n}.token"), token(n)));
            let tokens = Tokens::in_dir(&Dir::in_memory(files)).unwrap();
            let service = AuthenticateLayer::bearer(&tokens).layer(Answers);
            counted(&runtime, call(service, calls));
        }
    }
}

fn token(n: usize) -> String {
    format!("token-{n:06}-0123456789abcdef0123456789abcdef")
}

async fn call<S>(mut service: S, calls: usize)
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    let header = format!("Bearer {}", token(0));
    for _ in 0..calls {
        let request = Request::get("/").header("authorization", black_box(header.as_str()));
        let response = service.call(request.body(Body::new()).unwrap()).await;
        assert!(response.is_ok_and(|response| response.status() == 200));
    }
}

#[derive(Clone)]
struct Answers;

impl Service<Request<Body>> for Answers {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        black_box(request);
        ready(Ok(Response::new(Body::new())))
    }
}
