//! R3: once a client's CA is removed, or a CRL that revokes its certificate is loaded, or that certificate has expired,
//! it does not get in: not by a full handshake, not by a session from before, not by the session of a handshake that
//! straddled the loss; and all others resume. Behind an acceptor, the straddling connection does not live either.
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

use keydir_rustls::{Acceptor, HandshakeError, Identity, client_config, server_config};
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::naive::Naive;
use crate::support::{
    Ca, End, Hand, NAME, Pair, Scene, WAYS, Way, boundaries, ca_files, connect, identity, leaf_params, pair, receive,
    sent, years,
};

/// Clients of each kind for each CA that comes and goes.
const AT_ONCE: usize = 10;

fn attempts() -> usize {
    if std::env::var("KEYDIR_PROVE").is_ok() {
        1000
    } else {
        50
    }
}

/// How a client loses the right to come in.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Removed,
    Revoked,
    Expired,
}

const LOSSES: [Loss; 3] = [Loss::Removed, Loss::Revoked, Loss::Expired];

/// How many were let in, of as many attempts of each kind.
#[derive(Debug, Default, PartialEq)]
struct LetIn {
    full: usize,
    resumed: usize,
    straddled: usize,
    /// Connections that straddled the removal and went on all the same.
    lived: usize,
    /// The same where the server's end is an acceptor's.
    lived_behind_acceptor: usize,
    /// A client of the CA that stays, after each of the attempts.
    others_resumed: usize,
}

/// A scene that judges by a clock of its own, which stands between the beginning and the end of its clients.
struct Stage {
    scene: Scene,
    clock: Hand,
}

impl Stage {
    fn new() -> Self {
        let clock = Hand::at(2030);
        Self {
            scene: Scene::at(&clock),
            clock,
        }
    }

    fn publish(&self, ca: Option<(&str, &Ca)>, crl: Option<String>) {
        self.clock.set(2030);
        let c2 = ("c2", &self.scene.c2);
        let mut files = ca_files(&ca.into_iter().chain([c2]).collect::<Vec<_>>());
        files.extend(crl.map(|crl| (format!("{}.crl", ca.unwrap().0), crl)));
        self.scene.cas.publish(files).unwrap();
    }
}

/// Each round brings a CA, lets its clients connect, takes the right to do so from them, and lets them try.
fn try_all(stage: &Stage, server: &Arc<ServerConfig>, way: Way, loss: Loss, after_loss: impl Fn()) -> LetIn {
    let scene = &stage.scene;
    let acceptor = acceptor(scene, way);
    let other = scene.client(&scene.c2, way);
    assert_eq!(connect(&other, server), End::Full);
    let mut let_in = LetIn::default();
    for round in 0..attempts() / AT_ONCE {
        let ca = Ca::new(&format!("lost {round}"));
        let id = format!("x{round}");
        stage.publish(Some((&id, &ca)), None);
        let mut params = leaf_params("client");
        years(&mut params, 2020, 2035);
        let leaf = ca.leaf_with(params);
        let identity = identity(&leaf);
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

        let lose = || match loss {
            Loss::Removed => stage.publish(None, None),
            Loss::Revoked => stage.publish(Some((&id, &ca)), Some(ca.crl(1, &[&leaf.der]))),
            Loss::Expired => stage.clock.set(2040),
        };
        let_in.lived_behind_acceptor += straddle_acceptor(&acceptor, clients(), lose);
        lose();
        after_loss();
        let mut is_let_in = |client| {
            let end = connect(client, server);
            let_in.others_resumed += usize::from(connect(&other, server) == End::Resumed);
            match end {
                End::Full => panic!("verified after the loss"),
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

fn acceptor(scene: &Scene, way: Way) -> Acceptor {
    let builder = server_config(&scene.server_identity).require_client(&scene.anchors);
    let builder = builder.versions(way.versions);
    let builder = if way.tickets { builder.tickets() } else { builder };
    builder.acceptor().unwrap()
}

/// How many connections live that an acceptor's handshakes had verified before the loss, and finished after it.
fn straddle_acceptor(acceptor: &Acceptor, clients: Vec<Arc<ClientConfig>>, lose: impl Fn()) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (mut finished, mut ends) = (Vec::new(), Vec::new());
        for client in clients {
            let mut config = (*client).clone();
            config.max_fragment_size = Some(64);
            let (mut near, far) = duplex(1 << 16);
            let acceptor = acceptor.clone();
            ends.push(tokio::spawn(async move { acceptor.accept(far).await }));
            let mut tls = client_side(&Arc::new(config));
            let mut buffer = [0; 1 << 14];
            let mut first = true;
            loop {
                let mut flight = sent(&mut tls);
                let last = if first {
                    Vec::new()
                } else {
                    flight.split_off(*boundaries(&flight).last().unwrap())
                };
                near.write_all(&flight).await.unwrap();
                if !first {
                    finished.push((near, last));
                    break;
                }
                first = false;
                while !tls.wants_write() {
                    let n = near.read(&mut buffer).await.unwrap();
                    receive(&mut tls, &buffer[..n]).unwrap();
                }
            }
        }
        // On one thread: when all tasks wait, the acceptor has verified what it was sent.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        lose();
        for (near, last) in &mut finished {
            near.write_all(last).await.unwrap();
        }
        let mut lived = 0;
        for end in ends {
            match end.await.unwrap() {
                Ok(_) => lived += 1,
                Err(HandshakeError::Ended(_)) => {}
                Err(other) => panic!("it was not verified before the loss: {other}"),
            }
        }
        lived
    })
}

fn client_side(config: &Arc<ClientConfig>) -> Connection {
    let name = NAME.try_into().unwrap();
    ClientConnection::new(Arc::clone(config), name).unwrap().into()
}

fn told(server: &str, way: Way, loss: Loss, let_in: &LetIn) {
    let version = way.versions[0].version;
    let sessions = if way.tickets { "tickets" } else { "cache" };
    let LetIn {
        full,
        resumed,
        straddled,
        lived,
        lived_behind_acceptor,
        others_resumed,
    } = let_in;
    let n = attempts();
    println!(
        "sessions: {loss:?}, {version:?} {sessions}, {server}: let in {full} of {n} full, {resumed} of {n} resumed, {straddled} of {n} \
         straddled ({lived} straddling connections lived on, {lived_behind_acceptor} behind an acceptor); the remaining CA resumed {others_resumed} of {}",
        3 * n
    );
}

#[test]
fn nobody_gets_in_after_the_loss_and_all_others_resume() {
    let n = attempts();
    for (way, loss) in WAYS.into_iter().flat_map(|way| LOSSES.map(|loss| (way, loss))) {
        let stage = Stage::new();
        let server = stage.scene.server(way);
        let let_in = try_all(&stage, &server, way, loss, || ());
        told("keydir", way, loss, &let_in);
        let expected = LetIn {
            // Documented: only its session is refused.
            lived: n,
            others_resumed: 3 * n,
            ..LetIn::default()
        };
        assert_eq!(let_in, expected, "{way:?} {loss:?}");

        let stage = Stage::new();
        let naive = Naive::new(&stage.scene, way);
        let let_in = try_all(&stage, &naive.config, way, loss, || ());
        told("control, verifier only", way, loss, &let_in);
        let expected = [0, n, n];
        assert_eq!(
            [let_in.full, let_in.resumed, let_in.straddled],
            expected,
            "{way:?} {loss:?}"
        );

        let stage = Stage::new();
        let naive = Naive::new(&stage.scene, way);
        let let_in = try_all(&stage, &naive.config, way, loss, || naive.flush_and_rotate());
        told("control, flush and rotate", way, loss, &let_in);
        let expected = [0, 0, n];
        assert_eq!(
            [let_in.full, let_in.resumed, let_in.straddled],
            expected,
            "{way:?} {loss:?}"
        );
    }
}
