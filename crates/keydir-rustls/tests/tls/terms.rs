//! The terms of pools: what a revocation ends, held against a plain model; and what a connector's sessions rest on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use keydir::{Clock, Dir};
use keydir_rustls::{Connector, Ended, HandshakeError, Identity, Term, client_config};
use proptest::prelude::*;
use rcgen::date_time_ymd;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;

use crate::support::*;

const REVISIONS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    /// The mark goes there; what was removed comes back.
    Mark(usize),
    /// Unless it has the mark.
    Remove(usize),
    /// A full handshake of any pool.
    Show,
    Begin,
    /// The oldest pool is dropped.
    End,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..REVISIONS).prop_map(Step::Mark),
        2 => (0..REVISIONS).prop_map(Step::Remove),
        3 => Just(Step::Show),
        2 => Just(Step::Begin),
        1 => Just(Step::End),
    ];
    prop::collection::vec(step, 1..40)
}

struct Real {
    leaves: Vec<Leaf>,
    dir: Dir,
    connector: Connector,
    resolver: Arc<dyn ResolvesClientCert>,
}

impl Real {
    fn new() -> Self {
        let ca = Ca::new("the ca");
        let leaves: Vec<_> = (0..REVISIONS).map(|_| ca.leaf("client")).collect();
        let dir = Dir::in_memory(files(&leaves, &[true; REVISIONS], 0));
        let identity = Identity::in_dir(&dir).unwrap();
        let anchors = anchors_in(&ca_dir(&[("c1", &ca)]));
        Self {
            leaves,
            dir,
            connector: client_config(&anchors).identity(&identity).connector().unwrap(),
            resolver: identity.client_resolver(),
        }
    }
}

fn files(leaves: &[Leaf], there: &[bool; REVISIONS], marked: usize) -> Vec<(String, String)> {
    let there = leaves.iter().enumerate().filter(|(n, _)| there[*n]);
    there
        .flat_map(|(n, leaf)| {
            let mark = if n == marked { ".primary" } else { "" };
            [
                (format!("r{n}.crt{mark}"), leaf.crt.clone()),
                (format!("r{n}.key"), leaf.key.clone()),
            ]
        })
        .collect()
}

/// Everything is written down, with the time.
#[derive(Default)]
struct Model {
    time: usize,
    there: [bool; REVISIONS],
    marked: usize,
    /// When a life of a revision was last presented, or could be by a session.
    rested_on: Vec<(usize, usize)>,
    life: [usize; REVISIONS],
    lives: usize,
    dead: Vec<usize>,
    terms: Vec<(Term, usize)>,
}

impl Model {
    fn publish(&mut self, real: &Real) {
        real.dir.publish(files(&real.leaves, &self.there, self.marked)).unwrap();
    }

    fn step(&mut self, step: &Step, real: &Real) {
        self.time += 1;
        match *step {
            Step::Mark(n) => {
                if !self.there[n] {
                    self.lives += 1;
                    self.life[n] = self.lives;
                    self.there[n] = true;
                }
                if self.marked != n {
                    self.marked = n;
                }
                self.publish(real);
            }
            Step::Remove(n) if n != self.marked && self.there[n] => {
                self.there[n] = false;
                self.dead.push(self.life[n]);
                self.publish(real);
            }
            Step::Remove(_) => {}
            Step::Show => {
                let schemes = [SignatureScheme::ECDSA_NISTP256_SHA256];
                assert!(real.resolver.resolve(&[], &schemes).is_some());
                self.rested_on.push((self.life[self.marked], self.time));
            }
            Step::Begin => {
                self.terms.push((real.connector.begin(), self.time));
                // A session of it may be resumed.
                self.rested_on.push((self.life[self.marked], self.time));
            }
            Step::End if self.terms.is_empty() => {}
            Step::End => drop(self.terms.remove(0)),
        }
    }

    fn stands(&self, begun: usize) -> bool {
        !self
            .rested_on
            .iter()
            .any(|(life, time)| *time >= begun && self.dead.contains(life))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_term_ends_when_something_is_revoked_that_was_presented_in_it_or_after(steps in steps()) {
        let real = Real::new();
        let mut model = Model {
            there: [true; REVISIONS],
            life: [0, 1, 2],
            lives: 2,
            ..Model::default()
        };
        for step in &steps {
            model.step(step, &real);
            for (term, begun) in &model.terms {
                prop_assert_eq!(real.connector.stands(term), model.stands(*begun), "{:?} of {:?}", step, term);
            }
        }
    }
}

#[test]
fn a_config_that_was_taken_from_a_connector_resumes_nothing_that_was_revoked() {
    for way in WAYS {
        let scene = Scene::new();
        let servers = ca_dir(&[("s1", &scene.root), ("s2", &scene.c2)]);
        let identity = identity(&scene.c1.leaf("client"));
        let builder = client_config(&anchors_in(&servers)).identity(&identity);
        let connector = builder.versions(way.versions).connector().unwrap();
        let (server, kept) = (scene.server(way), connector.config());
        assert_eq!(connect(&kept, &server), End::Full, "{way:?}");
        assert_eq!(connect(&kept, &server), End::Resumed, "{way:?}");

        servers.publish(ca_files(&[("s2", &scene.c2)])).unwrap();
        let end = connect(&kept, &server);
        assert!(end.is_refused(), "{way:?}: {end:?}");
    }
}

/// Seconds since 1970.
#[derive(Clone, Default)]
struct Seconds(Arc<AtomicU64>);

impl Clock for Seconds {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

/// Sessions outlive the certificate that they rest on; a server that has got a new one is not held up by each of them.
#[tokio::test]
async fn sessions_of_an_expired_certificate_cost_one_handshake() {
    for way in WAYS {
        let clock = Seconds::default();
        let noon = date_time_ymd(2030, 1, 1);
        let set = |hours: u64| {
            let seconds = u64::try_from(noon.unix_timestamp()).unwrap() + hours * 3600;
            clock.0.store(seconds, Ordering::SeqCst);
        };
        set(0);
        let (root, clients) = (Ca::new("servers"), Ca::new("clients"));
        let leaf = |hours: u64| {
            let mut params = leaf_params(NAME);
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = noon + Duration::from_secs(hours * 3600);
            root.leaf_with(params)
        };
        let server_dir = Dir::in_memory_at(leaf(1).files("r1"), clock.clone());
        let cas = Dir::in_memory_at(ca_files(&[("s1", &root)]), clock.clone());
        let scene = Scene {
            server_identity: Identity::in_dir(&server_dir).unwrap(),
            ..Scene::new()
        };
        let builder = client_config(&anchors_in(&cas)).identity(&identity(&clients.leaf("client")));
        let connector = builder.versions(way.versions).connector().unwrap();
        let accepting = keydir_rustls::server_config(&scene.server_identity).no_client();
        let accepting = accepting.versions(way.versions);
        let accepting = if way.tickets { accepting.tickets() } else { accepting };
        let acceptor = accepting.acceptor().unwrap();
        let meet = || async {
            let (near, far) = tokio::io::duplex(1 << 16);
            let server = tokio::spawn({
                let acceptor = acceptor.clone();
                async move {
                    let mut tls = acceptor.accept(far).await?;
                    // The client may be gone.
                    let _ = tokio::io::AsyncWriteExt::write_all(&mut tls, b"!").await;
                    Ok::<_, HandshakeError>(tls)
                }
            });
            let tls = connector.connect(NAME.try_into().unwrap(), near).await;
            let tls = match tls {
                Ok(mut tls) => {
                    // Tickets come before it.
                    tokio::io::AsyncReadExt::read_u8(&mut tls).await.unwrap();
                    Ok(tls.connection().is_resumed())
                }
                Err(error) => Err(error),
            };
            let _ = server.await.unwrap();
            tls
        };
        // As many sessions as there may be.
        for n in 0..10 {
            assert_eq!(meet().await.unwrap(), n > 0, "{way:?}");
        }
        server_dir.publish(leaf(24).files("r2")).unwrap();
        set(2);
        let first = meet().await;
        assert!(
            matches!(&first, Err(HandshakeError::Ended(Ended::Peer { .. }))),
            "{way:?}: {first:?}"
        );
        assert!(!meet().await.unwrap(), "{way:?}");
        assert!(meet().await.unwrap(), "{way:?}: sessions are kept again");
    }
}
