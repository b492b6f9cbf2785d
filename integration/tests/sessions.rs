//! R3: once the removal of a CA is loaded, nobody of that CA gets in: not by a full handshake, not by a session from
//! before, not by the session of a handshake that straddled the removal; and all others resume.
//!
//! The handshakes are in memory, so that a client can hold back its Finished; the server's side judges. The full counts
//! are for `cargo xtask prove sessions`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

#[path = "../../crates/keydir-rustls/tests/tls/naive.rs"]
mod naive;
#[path = "../../crates/keydir-rustls/tests/tls/support.rs"]
#[allow(dead_code, reason = "the tests of keydir-rustls need more of it")]
mod support;

/// What the shared files take from their crate.
mod provider {
    use std::sync::Arc;

    use rustls::crypto::aws_lc_rs::Ticketer;
    pub(crate) use rustls::crypto::aws_lc_rs::default_provider as provider;
    use rustls::server::ProducesTickets;

    pub(crate) fn new_ticketer() -> Arc<dyn ProducesTickets> {
        Ticketer::new().unwrap()
    }
}

use std::sync::Arc;

use keydir_rustls::{Identity, client_config};
use rustls::{ClientConfig, ServerConfig};

use crate::naive::Naive;
use crate::support::{Ca, End, Pair, Scene, WAYS, Way, ca_files, connect, identity, pair, receive};

/// Clients of each kind for each CA that comes and goes.
const AT_ONCE: usize = 10;

fn attempts() -> usize {
    if std::env::var("KEYDIR_PROVE").is_ok() {
        1000
    } else {
        50
    }
}

/// How many were let in, of as many attempts of each kind.
#[derive(Debug, Default, PartialEq)]
struct LetIn {
    full: usize,
    resumed: usize,
    straddled: usize,
    /// Connections that straddled the removal and went on all the same.
    lived: usize,
    /// A client of the CA that stays, after each of the attempts.
    others_resumed: usize,
}

/// Each round brings a CA, lets its clients connect, removes it, and lets them try.
fn try_all(scene: &Scene, server: &Arc<ServerConfig>, way: Way, after_removal: impl Fn()) -> LetIn {
    let other = scene.client(&scene.c2, way);
    assert_eq!(connect(&other, server), End::Full);
    let mut let_in = LetIn::default();
    for round in 0..attempts() / AT_ONCE {
        let ca = Ca::new(&format!("removed {round}"));
        let id = format!("x{round}");
        scene.cas.publish(ca_files(&[("c2", &scene.c2), (&id, &ca)])).unwrap();
        let identity = identity(&ca.leaf("client"));
        let clients = || -> Vec<_> { (0..AT_ONCE).map(|_| client(scene, &identity, way)).collect() };
        let (newcomers, known, straddlers) = (clients(), clients(), clients());
        for client in &known {
            assert_eq!(connect(client, server), End::Full);
            assert_eq!(connect(client, server), End::Resumed);
        }
        let withheld: Vec<_> = straddlers
            .iter()
            .map(|client| withhold_finished(client, server))
            .collect();

        scene.cas.publish(ca_files(&[("c2", &scene.c2)])).unwrap();
        after_removal();
        let mut is_let_in = |client| {
            let end = connect(client, server);
            let_in.others_resumed += usize::from(connect(&other, server) == End::Resumed);
            match end {
                End::Full => panic!("verified after the removal"),
                End::Resumed => 1,
                End::Refused("server", _) => 0,
                End::Refused(..) => panic!("it was not the server that refused: {end:?}"),
            }
        };
        let_in.full += newcomers.iter().map(&mut is_let_in).sum::<usize>();
        let_in.resumed += known.iter().map(&mut is_let_in).sum::<usize>();
        let lived = withheld.into_iter().map(|(mut pair, finished)| {
            let accepted = receive(&mut pair.server, &finished).is_ok();
            usize::from(accepted && !pair.finish().is_refused())
        });
        let lived: usize = lived.sum();
        let_in.straddled += straddlers.iter().map(&mut is_let_in).sum::<usize>();
        let_in.lived += lived;
    }
    let_in
}

/// A client with its own sessions.
fn client(scene: &Scene, identity: &Identity, way: Way) -> Arc<ClientConfig> {
    let builder = client_config(&scene.server_ca).identity(identity);
    Arc::new(builder.versions(way.versions).build().unwrap())
}

/// The server has verified all and waits for the client's last record.
fn withhold_finished(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> (Pair, Vec<u8>) {
    let mut config = (**client).clone();
    // Small records, so that the Finished has one of its own.
    config.max_fragment_size = Some(64);
    let mut pair = pair(&Arc::new(config), server);
    let finished = pair.withhold(|records| records.last().copied()).unwrap();
    assert!(pair.server.is_handshaking());
    (pair, finished)
}

fn told(server: &str, way: Way, let_in: &LetIn) {
    let version = way.versions[0].version;
    let sessions = if way.tickets { "tickets" } else { "cache" };
    let LetIn {
        full,
        resumed,
        straddled,
        lived,
        others_resumed,
    } = let_in;
    let n = attempts();
    println!(
        "sessions: {version:?} {sessions}, {server}: let in {full} of {n} full, {resumed} of {n} resumed, {straddled} of {n} \
         straddled ({lived} straddling connections lived on); the remaining CA resumed {others_resumed} of {}",
        3 * n
    );
}

#[test]
fn nobody_of_a_removed_ca_gets_in_and_all_others_resume() {
    let n = attempts();
    for way in WAYS {
        let scene = Scene::new();
        let server = scene.server(way);
        let let_in = try_all(&scene, &server, way, || ());
        told("keydir", way, &let_in);
        let expected = LetIn {
            // Documented: only its session is refused.
            lived: n,
            others_resumed: 3 * n,
            ..LetIn::default()
        };
        assert_eq!(let_in, expected, "{way:?}");

        let scene = Scene::new();
        let naive = Naive::new(&scene, way);
        let let_in = try_all(&scene, &naive.config, way, || ());
        told("control, verifier only", way, &let_in);
        assert_eq!([let_in.full, let_in.resumed, let_in.straddled], [0, n, n], "{way:?}");

        let scene = Scene::new();
        let naive = Naive::new(&scene, way);
        let let_in = try_all(&scene, &naive.config, way, || naive.flush_and_rotate());
        told("control, flush and rotate", way, &let_in);
        assert_eq!([let_in.full, let_in.resumed, let_in.straddled], [0, 0, n], "{way:?}");
    }
}
