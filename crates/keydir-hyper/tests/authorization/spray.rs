//! Any sequence of publications, verdicts and requests: at most one other credential is sent for each request, never in
//! the clear, never to another origin, never one that is revoked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use keydir::Dir;
use keydir_hyper::{AuthorizationLayer, NoReplay, Token};
use proptest::prelude::*;
use tower::{Layer, ServiceExt};

use crate::support::{Accepted, Sent, Server, get, ok, status, token_of, unauthorized};

const IDS: [&str; 5] = ["r1", "r2", "r3", "r4", "r5"];
const ORIGINS: [&str; 5] = [
    "https://a.internal",
    "https://b.internal:8443",
    "http://a.internal",
    "https://evil.test",
    "http://evil.test",
];
const CHALLENGES: [Option<&str>; 4] = [
    Some("Bearer error=\"invalid_token\""),
    Some("Bearer error=\"insufficient_scope\""),
    Some("Basic realm=\"x\""),
    None,
];

#[derive(Clone, Debug)]
enum Step {
    Publish {
        present: [bool; 5],
        marked: usize,
        revoked: [bool; 5],
    },
    Accept([bool; 5]),
    Challenge(usize),
    Wait(u64),
    /// So many requests at once.
    Send {
        origin: usize,
        requests: usize,
        replayable: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let bools = || proptest::array::uniform5(any::<bool>());
    let rarely = || proptest::array::uniform5(proptest::bool::weighted(0.2));
    prop_oneof![
        (bools(), 0..6_usize, rarely()).prop_map(|(present, marked, revoked)| Step::Publish {
            present,
            marked,
            revoked
        }),
        bools().prop_map(Step::Accept),
        (0..CHALLENGES.len()).prop_map(Step::Challenge),
        (0..3_000_u64).prop_map(Step::Wait),
        (0..ORIGINS.len(), 1..5_usize, any::<bool>()).prop_map(|(origin, requests, replayable)| Step::Send {
            origin,
            requests,
            replayable
        }),
        (0..2_usize, 1..5_usize).prop_map(|(origin, requests)| Step::Send {
            origin,
            requests,
            replayable: true
        }),
    ]
}

fn chosen(mask: &[bool; 5]) -> impl Iterator<Item = &'static str> {
    IDS.into_iter()
        .zip(*mask)
        .filter_map(|(id, chosen)| chosen.then_some(id))
}

#[derive(Default)]
struct Tally {
    requests: usize,
    seconds: usize,
}

async fn play(steps: Vec<Step>) -> Result<Tally, TestCaseError> {
    let dir = Dir::in_memory([("r1.token.primary", token_of("r1"))]);
    let token = Token::in_dir(&dir).unwrap();
    let accepted = Accepted::default();
    let challenge = Arc::new(Mutex::new(CHALLENGES[0]));
    let server = {
        let (accepted, challenge) = (accepted.clone(), Arc::clone(&challenge));
        Server::new(move |sent: &Sent| -> Response<Full<Bytes>> {
            let token = sent
                .credentials
                .first()
                .map(|value| value.trim_start_matches("Bearer ").to_owned());
            match token.is_some_and(|token| accepted.has(&token)) {
                true => ok(),
                false => challenge.lock().unwrap().map_or_else(|| status(401), unauthorized),
            }
        })
    };
    let client = AuthorizationLayer::bearer(&token)
        .try_another()
        .also_plain_http()
        .only_for(["a.internal", "https://b.internal:8443"])
        .unwrap()
        .layer(server.clone());
    let mut revoked = [false; 5];
    let mut tally = Tally::default();
    for step in steps {
        match step {
            Step::Publish {
                present,
                marked,
                revoked: markers,
            } => {
                let mut files = Vec::new();
                for id in chosen(&present) {
                    let mark = if IDS.get(marked) == Some(&id) { ".primary" } else { "" };
                    files.push((format!("{id}.token{mark}"), token_of(id)));
                }
                files.extend(chosen(&markers).map(|id| (format!("{id}.revoked"), String::new())));
                dir.publish(files).unwrap();
                revoked = markers;
            }
            Step::Accept(mask) => {
                let tokens: Vec<_> = chosen(&mask).map(token_of).collect();
                accepted.set(tokens.iter().map(String::as_str));
            }
            Step::Challenge(index) => *challenge.lock().unwrap() = CHALLENGES[index],
            Step::Wait(millis) => tokio::time::advance(Duration::from_millis(millis)).await,
            Step::Send {
                origin,
                requests,
                replayable,
            } => {
                let sending: Vec<_> = (0..requests)
                    .map(|number| {
                        let request = get(&format!("{}/{number}", ORIGINS[origin]));
                        let client = client.clone();
                        tokio::spawn(async move {
                            match replayable {
                                true => client.oneshot(request).await.unwrap().status(),
                                false => client.oneshot(request.map(NoReplay)).await.unwrap().status(),
                            }
                        })
                    })
                    .collect();
                for sent in sending {
                    sent.await.unwrap();
                }
                tally.requests += requests;
                let set = token.live().snapshot();
                let primary = token_of(set.primary().unwrap().id().as_str());
                let in_force: Vec<_> = set.iter().map(|key| token_of(key.id().as_str())).collect();
                prop_assert!(chosen(&revoked).all(|id| !in_force.contains(&token_of(id))));
                let mut by_request = BTreeMap::<String, Vec<Option<String>>>::new();
                for sent in server.sent() {
                    prop_assert!(sent.uri.to_string().starts_with(ORIGINS[origin]), "to another origin");
                    prop_assert!(sent.credentials.len() <= 1, "two at once");
                    let token = sent
                        .credentials
                        .first()
                        .map(|value| value.trim_start_matches("Bearer ").to_owned());
                    by_request.entry(sent.uri.path().to_owned()).or_default().push(token);
                }
                prop_assert_eq!(by_request.len(), requests);
                let asks = *challenge.lock().unwrap() == CHALLENGES[0];
                for sent in by_request.values() {
                    let first = sent[0].as_ref();
                    match origin {
                        0 | 1 => {
                            let first = first.unwrap();
                            prop_assert!(*first == primary || in_force.contains(first), "what is gone");
                            if *first != primary {
                                prop_assert_eq!(sent.len(), 1, "a second other");
                            }
                        }
                        2 => prop_assert_eq!(first, Some(&primary), "another in the clear"),
                        _ => prop_assert_eq!(first, None, "to a stranger"),
                    }
                    if let Some(second) = sent.get(1) {
                        tally.seconds += 1;
                        let second = second.as_ref().unwrap();
                        prop_assert_eq!(sent.len(), 2);
                        prop_assert!(origin < 2 && replayable && asks, "not here");
                        prop_assert!(!accepted.has(first.unwrap()), "after no refusal");
                        prop_assert!(Some(second) != first && in_force.contains(second));
                    }
                }
            }
        }
    }
    Ok(tally)
}

#[test]
fn never_spray() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(100));
    let played = runner.run(&prop::collection::vec(step(), 1..40), |steps| {
        runtime.block_on(play(steps)).map(|_| ())
    });
    played.unwrap();
    // So that it is known to have tried: a fixed one of the kind that the sequences are made of.
    let fixed = vec![
        Step::Publish {
            present: [true, true, false, false, false],
            marked: 1,
            revoked: [false; 5],
        },
        Step::Accept([true, false, false, false, false]),
        Step::Send {
            origin: 0,
            requests: 3,
            replayable: true,
        },
    ];
    let tally = runtime.block_on(play(fixed)).unwrap();
    assert_eq!((tally.requests, tally.seconds), (3, 3));
}
