//! Handshakes that straddle a removal: verified before it, finished after it, cut at every record.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::server::{NoServerSessionStorage, ProducesTickets, StoresServerSessions};
use rustls::{ClientConfig, ServerConfig};

use crate::naive::Naive;
use crate::support::*;

/// What became of a connection that straddled the removal, and of the next one by the same client.
#[derive(Debug)]
struct Outcome {
    straddling: End,
    next: End,
}

/// The server receives so many records of the client's second flight, then the CA is removed, then it gets the rest.
/// `None` if the flight has no more records than that.
fn straddle(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    records_before: usize,
    remove: impl FnOnce(),
) -> Option<Outcome> {
    let mut pair = pair(client, server);
    let straddling = match cross(&mut pair, records_before, remove)? {
        Ok(()) => pair.finish(),
        Err(error) => End::Refused("server", error.to_string()),
    };
    let next = connect(client, server);
    Some(Outcome { straddling, next })
}

fn cross(pair: &mut Pair, records_before: usize, remove: impl FnOnce()) -> Option<Result<(), rustls::Error>> {
    let withheld = pair.withhold(|records| records.get(records_before).copied())?;
    remove();
    Some(receive(&mut pair.server, &withheld))
}

/// A client whose flight comes in many small records, so that each handshake message has boundaries around it.
fn client(scene: &Scene, way: Way) -> Arc<ClientConfig> {
    let mut config = (*scene.client(&scene.c1, way)).clone();
    config.max_fragment_size = Some(64);
    Arc::new(config)
}

fn every_cut(way: Way, mut at: impl FnMut(usize) -> Option<Outcome>) -> Vec<Outcome> {
    let outcomes: Vec<_> = (0..).map_while(&mut at).collect();
    assert!(outcomes.len() > 8, "{way:?}: {outcomes:?}");
    outcomes
}

#[test]
fn no_session_of_a_straddling_handshake_resumes() {
    for way in WAYS {
        let outcomes = every_cut(way, |records| {
            let scene = Scene::new();
            let server = scene.server(way);
            straddle(&client(&scene, way), &server, records, || scene.remove_c1())
        });
        for outcome in &outcomes {
            assert!(outcome.next.is_refused(), "{way:?}: {outcome:?}");
        }
        // Before the certificate was verified, and before the signature was, the connection itself is refused.
        assert!(outcomes[0].straddling.is_refused(), "{way:?}");
        let lived = outcomes.iter().filter(|o| !o.straddling.is_refused()).count();
        // Only the withheld Finished is left; it comes last, and in TLS 1.2 with the change of ciphers before it.
        assert!((1..=2).contains(&lived), "{way:?}: {outcomes:?}");
        assert!(!outcomes.last().unwrap().straddling.is_refused(), "{way:?}");
    }
}

#[test]
fn to_flush_and_rotate_at_the_removal_lets_the_client_in() {
    for way in WAYS {
        let outcomes = every_cut(way, |records| {
            let scene = Scene::new();
            let naive = Naive::new(&scene, way);
            straddle(&client(&scene, way), &naive.config, records, || {
                scene.remove_c1();
                naive.flush_and_rotate();
            })
        });
        let finished_withheld = outcomes.last().unwrap();
        assert_eq!(finished_withheld.next, End::Resumed, "{way:?}: {outcomes:?}");
    }
}

#[test]
fn a_dynamic_verifier_alone_lets_the_client_in() {
    for way in WAYS {
        let outcomes = every_cut(way, |records| {
            let scene = Scene::new();
            let naive = Naive::new(&scene, way);
            straddle(&client(&scene, way), &naive.config, records, || scene.remove_c1())
        });
        let finished_withheld = outcomes.last().unwrap();
        assert_eq!(finished_withheld.next, End::Resumed, "{way:?}: {outcomes:?}");
    }
}

/// A store that counts what it is given.
#[derive(Debug, Default)]
struct Counting(AtomicUsize);

impl StoresServerSessions for Counting {
    fn put(&self, _: Vec<u8>, _: Vec<u8>) -> bool {
        self.0.fetch_add(1, Ordering::SeqCst);
        true
    }
    fn get(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
    fn take(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
    fn can_cache(&self) -> bool {
        true
    }
}

impl ProducesTickets for Counting {
    fn enabled(&self) -> bool {
        true
    }
    fn lifetime(&self) -> u32 {
        3600
    }
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Some(plain.to_vec())
    }
    fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

#[test]
fn a_session_that_would_not_resume_is_not_even_made() {
    for way in WAYS {
        for removed in [false, true] {
            let scene = Scene::new();
            let mut config = (*Naive::new(&scene, way).config).clone();
            let counting = Arc::new(Counting::default());
            if way.tickets {
                config.ticketer = Arc::clone(&counting) as _;
                config.session_storage = Arc::new(NoServerSessionStorage {});
            } else {
                config.session_storage = Arc::clone(&counting) as _;
            }
            scene.anchors.guard(&mut config);
            let server = Arc::new(config);
            let client = client(&scene, way);
            let last = (0..)
                .map_while(|records| straddle(&client, &server, records, || ()))
                .count();
            counting.0.store(0, Ordering::SeqCst);
            let remove = || {
                if removed {
                    scene.remove_c1();
                }
            };
            let mut straddling = pair(&client, &server);
            cross(&mut straddling, last - 1, remove).unwrap().unwrap();
            assert_eq!(straddling.finish(), End::Full);
            let made = counting.0.load(Ordering::SeqCst);
            assert_eq!(made > 0, !removed, "{way:?}: {made}");
        }
    }
}
