//! A soak: identities, CAs and CRLs rotate at random under load over TCP, between acceptors and connectors, with
//! resumption and without. Nothing fails, and memory does not grow (R6).
//!
//! For about a minute here; the full count is for `cargo xtask prove soak`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

use std::alloc::System;
use std::fmt::Display;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cap::Cap;
use keydir_integration::{
    Ca, Leaf, PlainClient, Version, Written, ca_file, eventually, folder_in_memory, free_port, leaf_files,
};
use keydir_rustls::rustls::client::Resumption;
use keydir_rustls::rustls::version::{TLS12, TLS13};
use keydir_rustls::{
    Acceptor, Connector, HandshakeError, Identity, TlsStream, TrustAnchors, client_config, server_config,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The name of clients that are revoked by a CRL.
const STRAY: &str = "stray";
const SIDES: [&str; 2] = ["server", "client"];
/// What is in flight when something is revoked may go on so long; nothing should need it.
const GRACE: Duration = Duration::from_secs(20);
const SECONDS: Duration = Duration::from_secs(60);
/// Rotations of the proof; memory is compared with what it was after a tenth of them.
const PROOF: u64 = 10_000;
/// How much memory may grow, in percent of what it was.
const GROWTH: u64 = 5;
/// In a minute, the stores of sessions are not yet full.
const GROWTH_HERE: u64 = 30;
/// After so many full handshakes, these stores have most of what they will have.
const WARM: u64 = 25_000;
/// For the proof, of which these are handshakes before the first rotation.
const WARM_PROOF: u64 = 200_000;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The server's and the client's side, as two processes would have them.
struct Side {
    identity: Identity,
    anchors: TrustAnchors,
}

#[derive(Default)]
struct Counts {
    full: AtomicU64,
    resumed: AtomicU64,
    requests: AtomicU64,
    /// Connections that their client gave up in time.
    renewed: AtomicU64,
    /// Handshakes that the servers refused, and connections that they ended.
    refused: AtomicU64,
    ended: AtomicU64,
    failures: Mutex<Vec<String>>,
    over: AtomicBool,
}

impl Counts {
    fn fail(&self, who: &str, why: impl Display) {
        let mut failures = self.failures.lock().unwrap();
        if failures.len() < 5 {
            failures.push(format!("{who}: {why:#}"));
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(SeqCst)
    }
}

/// Serves one byte for each byte, until the client leaves.
async fn serve(acceptor: Acceptor, listener: TcpListener, counts: Arc<Counts>) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let (acceptor, counts) = (acceptor.clone(), Arc::clone(&counts));
        tokio::spawn(async move {
            let served = async {
                let mut tls = match acceptor.accept(tcp).await {
                    Err(HandshakeError::Tls(error)) if error.to_string().contains("Revoked") => {
                        counts.refused.fetch_add(1, SeqCst);
                        return Ok(());
                    }
                    accepted => accepted?,
                };
                while let Ok(request) = tls.read_u8().await {
                    let connection = tls.connection();
                    // A request that comes over what was revoked shall not be served.
                    if let (false, Some(why)) = (connection.stands(), connection.why()) {
                        if connection.peer().is_some_and(|peer| peer.subject().contains(STRAY)) {
                            counts.ended.fetch_add(1, SeqCst);
                            return Ok(());
                        }
                        return Err(why.clone().into());
                    }
                    tls.write_u8(request).await?;
                    tls.flush().await?;
                }
                Ok::<_, Failure>(())
            };
            if let Err(why) = served.await {
                counts.fail("server", causes(&*why));
            }
        });
    }
}

/// Connects, sends some requests, and renews what it keeps as soon as there is something newer.
async fn call(connector: Connector, port: u16, keeps: u32, counts: Arc<Counts>) {
    while !counts.is_over() {
        let called = async {
            let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
            tcp.set_nodelay(true)?;
            let mut tls = connector.connect("localhost".try_into()?, tcp).await?;
            request(&mut tls, &counts).await?;
            let connection = tls.connection().clone();
            let kind = if connection.is_resumed() {
                &counts.resumed
            } else {
                &counts.full
            };
            kind.fetch_add(1, SeqCst);
            for _ in 1..keeps {
                // The server's leaf is renewed too: nobody tells a client so by these few bytes, so look oneself.
                if counts.is_over() || connection.is_superseded() || !connection.stands() {
                    counts.renewed.fetch_add(1, SeqCst);
                    break;
                }
                request(&mut tls, &counts).await?;
            }
            tls.shutdown().await?;
            Ok::<_, Failure>(())
        };
        if let Err(why) = called.await {
            counts.fail("client", causes(&*why));
        }
    }
}

async fn request(tls: &mut TlsStream<TcpStream>, counts: &Counts) -> Result<(), Failure> {
    tls.write_u8(b'?').await?;
    tls.flush().await?;
    tls.read_u8().await?;
    counts.requests.fetch_add(1, SeqCst);
    Ok(())
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text += &format!(": {next}");
        cause = next.source();
    }
    text
}

/// A seeded choice: the same again for the same number.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // Xorshift, by Marsaglia.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// The directories, and whoever rotates them.
struct Mesh {
    ca: Ca,
    /// Leaves of this CA that its CRL revokes.
    revoked: Vec<Leaf>,
    revocations: u64,
    ports: Vec<u16>,
    cas: Written,
    leaves: [Written; 2],
    sides: [Arc<Side>; 2],
    rotations: u64,
    _folder: tempfile::TempDir,
}

/// Names of one length: where a longer one makes rustls take twice the memory for a session, the whole store grows.
fn new_ca(number: u64) -> Ca {
    Ca::new(&format!("soak {number:08}"))
}

impl Mesh {
    fn new() -> Self {
        let folder = folder_in_memory();
        let path = |name: &str| folder.path().join(name);
        let ca = new_ca(0);
        let mut cas = Written::new(&path("cas"), ca_file(0, &ca));
        let mut leaves = SIDES.map(|side| Written::new(&path(side), leaf_files(0, ca.leaf(side), ".primary")));
        let sides = SIDES.map(|side| {
            Arc::new(Side {
                identity: Identity::open(path(side)).unwrap(),
                anchors: TrustAnchors::open(path("cas")).unwrap(),
            })
        });
        for (written, side) in leaves.iter_mut().zip(&sides) {
            written.consumer(side.identity.live());
            cas.consumer(side.anchors.live());
        }
        Self {
            ca,
            revoked: Vec::new(),
            revocations: 0,
            ports: Vec::new(),
            cas,
            leaves,
            sides,
            rotations: 0,
            _folder: folder,
        }
    }

    fn mark(&mut self, side: usize, from: u64, to: u64) {
        self.leaves[side].promote(from, to);
        self.leaves[side].publish();
    }

    fn stage(&mut self, side: usize) -> [u64; 2] {
        let leaf = self.ca.leaf(SIDES[side]);
        let numbers = self.leaves[side].stage(leaf);
        self.leaves[side].publish();
        numbers
    }

    /// When nothing rests on it any more.
    fn retire(&mut self, side: usize, revision: u64) {
        let id = format!("r{revision}");
        let dir = self.sides[side].identity.live().dir();
        eventually(&format!("{} {id} is unused", SIDES[side]), || {
            dir.report().sets.iter().all(|set| set.uses(&id) == 0)
        });
        self.leaves[side].remove(&id);
        self.leaves[side].publish();
        self.rotations += 1;
    }

    fn rotate_leaf(&mut self, side: usize) {
        let [old, new] = self.stage(side);
        self.mark(side, old, new);
        self.retire(side, old);
    }

    /// The new leaf is taken back, and comes again under another number.
    fn roll_back(&mut self, side: usize) {
        let [old, new] = self.stage(side);
        self.mark(side, old, new);
        self.mark(side, new, old);
        self.retire(side, new);
        // Ids are never used again.
        let [_, next] = self.stage(side);
        self.mark(side, old, next);
        self.retire(side, old);
    }

    fn rotate_ca(&mut self) {
        let old = self.cas.revision;
        self.cas.revision += 1;
        self.ca = new_ca(self.cas.revision);
        self.revoked.clear();
        self.cas.add(ca_file(self.cas.revision, &self.ca));
        self.cas.publish();
        self.rotate_leaf(0);
        self.rotate_leaf(1);
        self.cas.remove(&format!("c{old}"));
        self.cas.publish();
        self.rotations += 1;
    }

    /// A client gets in, is revoked by a CRL, and does not get in any more; nor does its connection live.
    fn revoke(&mut self, dice: &mut Dice) {
        let leaf = self.ca.leaf(STRAY);
        let server = usize::try_from(dice.roll(4)).unwrap();
        // In the order in which they are started.
        let version = if server < 2 { Version::Tls13 } else { Version::Tls12 };
        let client = PlainClient::new(self.ports[server], &[&self.ca], Some(&leaf), version);
        let open = || {
            let mut connection = client.connect().ok()?;
            connection.send(b"?").ok()?;
            connection.answers().then_some(connection)
        };
        let mut connection = open().expect("not revoked yet");
        self.revoked.push(leaf);
        self.revocations += 1;
        let revoked: Vec<_> = self.revoked.iter().collect();
        let crl = self.ca.crl(self.revocations, &revoked);
        let file = format!("c{}.crl", self.cas.revision);
        self.cas.add([(file, crl)]);
        self.cas.publish();
        assert!(open().is_none(), "a revoked client gets in");
        assert!(connection.send(b"?").is_err() || !connection.answers());
    }

    fn step(&mut self, dice: &mut Dice) {
        match dice.roll(7) {
            0 => self.rotate_leaf(0),
            1 => self.rotate_leaf(1),
            2 => self.roll_back(0),
            3 => self.roll_back(1),
            4 => self.revoke(dice),
            _ => self.rotate_ca(),
        }
    }
}

/// What the process has allocated in Rust, so that growth can be told from an allocator that does not give back.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// Memory in KiB.
#[derive(Clone, Copy, Debug)]
struct Memory {
    resident: u64,
    heap: u64,
}

impl Memory {
    /// The least of a while, since connections come and go.
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let heap = (0..50).map(|_| {
            std::thread::sleep(Duration::from_millis(1));
            HEAP.allocated()
        });
        Self {
            resident: line.trim().trim_end_matches(" kB").parse().unwrap(),
            heap: u64::try_from(heap.min().unwrap() / 1024).unwrap(),
        }
    }
}

impl Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} KiB resident, {} KiB of them allocated", self.resident, self.heap)
    }
}

#[test]
fn nothing_fails_and_memory_does_not_grow_while_everything_rotates_at_random() {
    let proving = std::env::var("KEYDIR_PROVE").is_ok();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut mesh = Mesh::new();
    let [server, client] = mesh.sides.clone();
    let counts = Arc::<Counts>::default();
    let (mut clients, mut acceptors) = (Vec::new(), Vec::new());
    for (version, tickets) in [(&TLS13, false), (&TLS13, true), (&TLS12, false), (&TLS12, true)] {
        let builder = server_config(&server.identity)
            .require_client(&server.anchors)
            .versions(&[version]);
        let builder = if tickets { builder.tickets() } else { builder };
        let acceptor = builder.acceptor().unwrap().with_grace(GRACE);
        let port = free_port();
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", port))).unwrap();
        runtime.spawn(serve(acceptor.clone(), listener, Arc::clone(&counts)));
        acceptors.push(acceptor);
        mesh.ports.push(port);
        for (keeps, resumes) in [(1, true), (1, false), (50, true)] {
            let builder = client_config(&client.anchors)
                .identity(&client.identity)
                .versions(&[version]);
            let connector = builder.connector_with(|config| {
                if !resumes {
                    config.resumption = Resumption::disabled();
                }
            });
            let connector = connector.unwrap().with_grace(GRACE);
            clients.push(runtime.spawn(call(connector, port, keeps, Arc::clone(&counts))));
        }
    }

    // Under load alone at first, until what grows with load has grown: rustls's stores of sessions, and what malloc
    // keeps between them.
    let warm = if proving { WARM_PROOF } else { 0 };
    while counts.full.load(SeqCst) < warm {
        std::thread::sleep(Duration::from_millis(100));
    }
    let seed = 0x5eed_0001;
    let mut dice = Dice(seed);
    let begun = Instant::now();
    let mut early = None;
    let mut told = 0;
    let done = |rotations: u64| match proving {
        true => rotations * 1000 / PROOF,
        false => u64::try_from(begun.elapsed().as_millis() * 1000 / SECONDS.as_millis()).unwrap(),
    };
    while done(mesh.rotations) < 1000 && counts.failures.lock().unwrap().is_empty() {
        mesh.step(&mut dice);
        if proving && mesh.rotations >= told + PROOF / 10 {
            told = mesh.rotations;
            println!("soak: {} after {told} rotations", Memory::now());
        }
        if done(mesh.rotations) >= 100 && early.is_none() && counts.full.load(SeqCst) >= WARM {
            early = Some((mesh.rotations, Memory::now()));
        }
    }
    let after = Memory::now();
    counts.over.store(true, SeqCst);
    for client in clients {
        runtime.block_on(client).unwrap();
    }
    eventually("all connections are gone", || {
        acceptors.iter().all(|acceptor| acceptor.connections() == 0)
    });

    let failures = counts.failures.lock().unwrap().clone();
    assert!(failures.is_empty(), "seed {seed:#x}: {failures:?}");
    let [full, resumed, requests, renewed] =
        [&counts.full, &counts.resumed, &counts.requests, &counts.renewed].map(|count| count.load(SeqCst));
    let [refused, ended] = [&counts.refused, &counts.ended].map(|count| count.load(SeqCst));
    assert_eq!([refused, ended], [mesh.revocations; 2], "each by a CRL");
    println!(
        "soak: {} rotations and {} revocations by CRL in {:.0} s: {full} full and {resumed} resumed handshakes, {requests} \
         requests, {renewed} connections renewed in time; 0 failed; {after}",
        mesh.rotations,
        mesh.revocations,
        begun.elapsed().as_secs_f64()
    );
    assert!(
        full > 100 && resumed > 100 && renewed > 10,
        "too little load to prove anything"
    );
    match early {
        Some((rotations, before)) => {
            println!("soak: {before} after {rotations} rotations");
            // In a minute the stores of sessions are not full yet, and what is resident says little.
            let (before_kib, after_kib, allowed) = match proving {
                true => (before.resident, after.resident, GROWTH),
                false => (before.heap, after.heap, GROWTH_HERE),
            };
            let grown = after_kib * 100 > before_kib * (100 + allowed);
            assert!(!grown, "memory has grown from {before} to {after}");
        }
        None => assert!(!proving, "the servers have not seen enough handshakes"),
    }
}
