//! R2: leaves and whole CAs rotate under steady load over TCP, and nothing fails; without an overlap it does.
//!
//! Client and server count for themselves and must agree. The full counts are for `cargo xtask prove rotation`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::{Duration, Instant};

use keydir_integration::{Ca, Written, ca_file, eventually, folder_in_memory, free_port, leaf_files};
use keydir_rustls::rustls::client::Resumption;
use keydir_rustls::rustls::version::{TLS12, TLS13};
use keydir_rustls::rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection, Stream, SupportedProtocolVersion,
};
use keydir_rustls::{Identity, TrustAnchors, client_config, server_config};

const SIDES: [&str; 2] = ["server", "client"];
const PATIENCE: Duration = Duration::from_secs(20);
/// Half of the 100 ms around a swap, in slots of 10 ms.
const HALF: usize = 5;
/// What shall end in each of these windows.
const GOAL: [u32; 2] = [50, 500];

fn proving() -> bool {
    std::env::var("KEYDIR_PROVE").is_ok()
}

/// A TLS version and where the server keeps sessions.
struct Way {
    name: &'static str,
    version: &'static SupportedProtocolVersion,
    tickets: bool,
}

const fn way(name: &'static str, version: &'static SupportedProtocolVersion, tickets: bool) -> Way {
    Way { name, version, tickets }
}

static WAYS: [Way; 4] = [
    way("1.3, cache", &TLS13, false),
    way("1.3, tickets", &TLS13, true),
    way("1.2, cache", &TLS12, false),
    way("1.2, tickets", &TLS12, true),
];

/// What a client does all the time.
#[derive(Clone, Copy, PartialEq)]
enum Habit {
    /// One config for ever; it resumes until the first rotation.
    Fixed,
    /// A new config after every few connections, so that some of them resume.
    Fresh,
    /// keydir's verifier and resolver, sessions kept as by any other program: it offers sessions that are worth nothing.
    Stubborn,
    /// Requests on one connection that stays open from the beginning to the end.
    KeepAlive,
}

const HABITS: [Habit; 4] = [Habit::Fixed, Habit::Fresh, Habit::Stubborn, Habit::KeepAlive];

/// What one side has counted.
#[derive(Debug, Default)]
struct Tally {
    full: AtomicU64,
    resumed: AtomicU64,
    requests: AtomicU64,
    failed: AtomicU64,
    /// How the first failures were described.
    reasons: std::sync::Mutex<Vec<String>>,
}

impl Tally {
    fn handshake(&self, kind: Option<HandshakeKind>) {
        match kind {
            Some(HandshakeKind::Resumed) => self.resumed.fetch_add(1, Relaxed),
            _ => self.full.fetch_add(1, Relaxed),
        };
    }

    fn failure(&self, error: &io::Error) {
        self.failed.fetch_add(1, Relaxed);
        let mut reasons = self.reasons.lock().unwrap();
        if reasons.len() < 3 {
            reasons.push(error.to_string());
        }
    }

    /// Full, resumed, requests.
    fn successes(&self) -> [u64; 3] {
        [&self.full, &self.resumed, &self.requests].map(|count| count.load(SeqCst))
    }
}

/// What ended when: handshakes and requests on connections that stay open, in slots of 10 ms.
struct Ends {
    begun: Instant,
    slots: [Vec<AtomicU32>; 2],
}

impl Ends {
    fn new() -> Self {
        let an_hour_or_two = 600_000;
        let slots = || (0..an_hour_or_two).map(|_| AtomicU32::new(0)).collect();
        Self {
            begun: Instant::now(),
            slots: [slots(), slots()],
        }
    }

    fn slot(&self) -> usize {
        usize::try_from(self.begun.elapsed().as_millis() / 10).unwrap()
    }

    fn note(&self, what: usize) {
        self.slots[what][self.slot()].fetch_add(1, Relaxed);
    }

    /// How many ended in the 100 ms around each swap, in rising order; windows that are not over are left out.
    fn around(&self, swaps: &[usize], what: usize) -> Vec<u32> {
        let now = self.slot();
        let whole = swaps.iter().filter(|&&at| at >= HALF && at + HALF < now);
        let count = |&at: &usize| {
            let slots = &self.slots[what][at - HALF..at + HALF];
            slots.iter().map(|slot| slot.load(SeqCst)).sum()
        };
        let mut counts: Vec<u32> = whole.map(count).collect();
        counts.sort_unstable();
        counts
    }
}

/// The directories of servers and clients whose leaves are of one CA.
struct Mesh {
    ca: Ca,
    cas: Written,
    /// Of the server and of the client.
    leaves: [Written; 2],
    load: Arc<Load>,
    /// When something was published.
    swaps: Vec<usize>,
    rotations: u64,
    _folder: tempfile::TempDir,
}

impl Mesh {
    fn new() -> Self {
        let folder = folder_in_memory();
        let path = |name: &str| folder.path().join(name);
        let ca = Ca::new("mesh 0");
        let mut cas = Written::new(&path("cas"), ca_file(0, &ca));
        let mut leaves = SIDES.map(|side| Written::new(&path(side), leaf_files(0, ca.leaf(side), ".primary")));
        let load = Load {
            identities: SIDES.map(|side| Identity::open(path(side)).unwrap()),
            anchors: SIDES.map(|_| TrustAnchors::open(path("cas")).unwrap()),
            counts: Default::default(),
            ends: Ends::new(),
            over: AtomicBool::new(false),
            in_handshake: Default::default(),
        };
        load.anchors.iter().for_each(|anchors| cas.consumer(anchors.live()));
        for (written, identity) in leaves.iter_mut().zip(&load.identities) {
            written.consumer(identity.live());
        }
        Self {
            ca,
            cas,
            leaves,
            load: Arc::new(load),
            swaps: Vec::new(),
            rotations: 0,
            _folder: folder,
        }
    }

    fn publish_cas(&mut self) {
        self.cas.publish();
        self.swaps.push(self.load.ends.slot());
    }

    fn publish_leaf(&mut self, side: usize) {
        self.leaves[side].publish();
        self.swaps.push(self.load.ends.slot());
    }

    /// In three publications: stage, promote, retire.
    fn rotate_leaf(&mut self, side: usize) {
        let leaf = self.ca.leaf(SIDES[side]);
        let [old, new] = self.leaves[side].stage(leaf);
        self.publish_leaf(side);
        self.leaves[side].promote(old, new);
        self.publish_leaf(side);
        self.leaves[side].remove(&format!("r{old}"));
        self.publish_leaf(side);
        self.rotations += 1;
    }

    /// In eight publications: trust both, switch both leaves, drop the old CA when no handshake rests on it.
    fn rotate_ca(&mut self) {
        let old = self.cas.revision;
        self.new_ca();
        self.publish_cas();
        self.rotate_leaf(0);
        self.rotate_leaf(1);
        self.load.finish_handshakes();
        self.cas.remove(&format!("c{old}"));
        self.publish_cas();
        self.rotations += 1;
    }

    /// In three publications: the new CA in place of the old, then the leaves.
    fn switch_without_overlap(&mut self) {
        let old = self.cas.revision;
        self.new_ca();
        self.cas.remove(&format!("c{old}"));
        self.publish_cas();
        for (side, name) in SIDES.iter().enumerate() {
            let leaves = &mut self.leaves[side];
            leaves.remove(&format!("r{}", leaves.revision));
            leaves.revision += 1;
            leaves.add(leaf_files(leaves.revision, self.ca.leaf(name), ".primary"));
            self.publish_leaf(side);
        }
        self.load.finish_handshakes();
    }

    fn new_ca(&mut self) {
        self.cas.revision += 1;
        self.ca = Ca::new(&format!("mesh {}", self.cas.revision));
        self.cas.add(ca_file(self.cas.revision, &self.ca));
    }

    /// Works while servers and clients do, and returns when all of them have ended.
    fn under_load(&mut self, work: impl FnOnce(&mut Self)) {
        let load = Arc::clone(&self.load);
        let listeners = WAYS
            .each_ref()
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).unwrap());
        std::thread::scope(|scope| {
            let mut clients = Vec::new();
            for (way, listener) in listeners.iter().enumerate() {
                let config = load.server_config(&WAYS[way]);
                // One for each client, and one that is ready while another sees its client leave.
                for _ in 0..=HABITS.len() {
                    let (load, config) = (&load, Arc::clone(&config));
                    scope.spawn(move || load.serve(way, listener, &config));
                }
                let port = listener.local_addr().unwrap().port();
                for (at, habit) in HABITS.into_iter().enumerate() {
                    let load = &load;
                    clients.push(scope.spawn(move || load.call(way, port, habit, way * HABITS.len() + at)));
                }
            }
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                load.some_handshakes();
                work(self);
                load.some_handshakes();
            }));
            load.over.store(true, SeqCst);
            let clients: Vec<_> = clients.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            for listener in &listeners {
                // Whoever waits for a connection gets one, and sees that it is over.
                let address = listener.local_addr().unwrap();
                (0..=HABITS.len()).for_each(|_| drop(TcpStream::connect(address)));
            }
            clients.into_iter().for_each(|client| client.unwrap());
            result.unwrap();
        });
    }
}

/// The servers and the clients, and what they have counted.
struct Load {
    /// Of the server and of the client.
    identities: [Identity; 2],
    /// As the server knows them, and as the client does.
    anchors: [TrustAnchors; 2],
    /// Of the server and of the client, for each way.
    counts: [[Tally; WAYS.len()]; 2],
    ends: Ends,
    over: AtomicBool,
    /// A number for each client, odd while it is in a handshake.
    in_handshake: [AtomicU64; WAYS.len() * HABITS.len()],
}

impl Load {
    fn server_config(&self, way: &Way) -> Arc<ServerConfig> {
        let builder = server_config(&self.identities[0]).require_client(&self.anchors[0]);
        let builder = builder.versions(&[way.version]);
        let builder = if way.tickets { builder.tickets() } else { builder };
        Arc::new(builder.build().unwrap())
    }

    fn client_config(&self, way: &Way, habit: Habit) -> Arc<ClientConfig> {
        let builder = client_config(&self.anchors[1]).identity(&self.identities[1]);
        let mut config = builder.versions(&[way.version]).build().unwrap();
        if habit == Habit::Stubborn {
            config.resumption = Resumption::in_memory_sessions(16);
        }
        Arc::new(config)
    }

    /// One connection after the other, each until the client leaves.
    fn serve(&self, way: usize, listener: &TcpListener, config: &Arc<ServerConfig>) {
        let tally = &self.counts[0][way];
        loop {
            let (mut tcp, _) = listener.accept().unwrap();
            if self.over.load(SeqCst) && tcp.peek(&mut [0]).is_ok_and(|bytes| bytes == 0) {
                return;
            }
            let mut answer = || -> io::Result<()> {
                tcp.set_nodelay(true)?;
                tcp.set_read_timeout(Some(PATIENCE))?;
                let mut tls = ServerConnection::new(Arc::clone(config)).unwrap();
                while tls.is_handshaking() {
                    tls.complete_io(&mut tcp)?;
                }
                tally.handshake(tls.handshake_kind());
                let mut stream = Stream::new(&mut tls, &mut tcp);
                let mut request = [0; 8];
                loop {
                    match stream.read(&mut request[..1])? {
                        0 => return Ok(()),
                        _ => stream.read_exact(&mut request[1..])?,
                    }
                    // Counted first: the client counts when it has the answer.
                    tally.requests.fetch_add(1, Relaxed);
                    stream.write_all(&request)?;
                }
            };
            if let Err(error) = answer() {
                tally.failure(&error);
            }
        }
    }

    fn call(&self, way: usize, port: u16, habit: Habit, number: usize) {
        let tally = &self.counts[1][way];
        let mut config = self.client_config(&WAYS[way], habit);
        let mut connections = 0_u64;
        while !self.over.load(SeqCst) {
            if habit == Habit::Fresh && connections.is_multiple_of(4) {
                config = self.client_config(&WAYS[way], habit);
            }
            connections += 1;
            self.in_handshake[number].fetch_add(1, SeqCst);
            let connection = self.connect(&config, port);
            self.in_handshake[number].fetch_add(1, SeqCst);
            let talk = || -> io::Result<()> {
                let (mut tls, mut tcp) = connection?;
                tally.handshake(tls.handshake_kind());
                tally.requests.fetch_add(1, Relaxed);
                self.ends.note(0);
                while habit == Habit::KeepAlive && !self.over.load(SeqCst) {
                    request(&mut tls, &mut tcp, tally.requests.load(Relaxed))?;
                    tally.requests.fetch_add(1, Relaxed);
                    self.ends.note(1);
                }
                tls.send_close_notify();
                tls.complete_io(&mut tcp)?;
                Ok(())
            };
            if let Err(error) = talk() {
                tally.failure(&error);
            }
        }
    }

    /// A handshake and the first answer: before that a client of TLS 1.3 does not know whether it was let in.
    fn connect(&self, config: &Arc<ClientConfig>, port: u16) -> io::Result<(ClientConnection, TcpStream)> {
        let mut tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        let mut tls = ClientConnection::new(Arc::clone(config), "localhost".try_into().unwrap()).unwrap();
        request(&mut tls, &mut tcp, 0)?;
        Ok((tls, tcp))
    }

    /// Returns when every handshake that was going on at the call has ended. It stands for the grace that operators
    /// give before they take away what handshakes may rest on.
    fn finish_handshakes(&self) {
        let begun = self.in_handshake.each_ref().map(|number| number.load(SeqCst));
        for (number, begun) in self.in_handshake.iter().zip(begun) {
            if begun % 2 == 1 {
                eventually("a handshake has ended", || number.load(SeqCst) != begun);
            }
        }
    }

    /// Returns when each client has ended some more handshakes, or requests if it keeps its connection.
    fn some_handshakes(&self) {
        let requests = || self.counts[1].each_ref().map(|tally| tally.requests.load(SeqCst));
        let before = requests();
        eventually("all clients are served", || {
            requests().iter().zip(before).all(|(now, before)| *now > before + 50)
        });
    }

    fn failed(&self) -> u64 {
        let both = self.counts.iter().flatten();
        both.map(|tally| tally.failed.load(SeqCst)).sum()
    }

    /// Successes must be the same on both sides, for each way and kind; their sums.
    fn agreed(&self) -> [u64; 3] {
        let mut sums = [0; 3];
        for (way, (server, client)) in WAYS.iter().zip(self.counts[0].iter().zip(&self.counts[1])) {
            let counts = client.successes();
            assert_eq!(server.successes(), counts, "TLS {}", way.name);
            let [full, resumed, requests] = counts;
            println!(
                "rotation: TLS {}: {full} full and {resumed} resumed handshakes, {requests} requests",
                way.name
            );
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        sums
    }
}

/// Eight bytes, which come back.
fn request(tls: &mut ClientConnection, tcp: &mut TcpStream, number: u64) -> io::Result<()> {
    let mut stream = Stream::new(tls, tcp);
    stream.write_all(&number.to_be_bytes())?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer)?;
    match u64::from_be_bytes(answer) == number {
        true => Ok(()),
        false => Err(ErrorKind::InvalidData.into()),
    }
}

/// Smallest, first percentile, median, and how many of a thousand reach the goal.
fn quantiles(counts: &[u32], goal: u32) -> [u32; 4] {
    let at = |share: usize| counts[counts.len() * share / 100];
    let below = counts.partition_point(|count| *count < goal);
    let per_mille = (counts.len() - below) * 1000 / counts.len();
    [counts[0], at(1), at(50), u32::try_from(per_mille).unwrap()]
}

#[test]
fn nothing_fails_while_everything_rotates_and_much_does_without_overlap() {
    let wanted = if proving() { 10_000 } else { 300 };
    let mut mesh = Mesh::new();
    mesh.under_load(|mesh| {
        while mesh.rotations < wanted {
            mesh.rotate_leaf(0);
            mesh.rotate_leaf(1);
            mesh.rotate_ca();
        }
    });
    let load = &mesh.load;
    let [full, resumed, requests] = load.agreed();
    println!(
        "rotation: {} rotations in {} publications, {:.1} s; {full} full and {resumed} resumed handshakes, {requests} requests; {} failed",
        mesh.rotations,
        mesh.swaps.len(),
        load.ends.begun.elapsed().as_secs_f64(),
        load.failed()
    );
    for (what, (name, goal)) in [("handshakes", GOAL[0]), ("requests kept alive", GOAL[1])]
        .into_iter()
        .enumerate()
    {
        let counts = load.ends.around(&mesh.swaps, what);
        let [least, p1, median, reached] = quantiles(&counts, goal);
        println!(
            "rotation: {name} in the 100 ms around {} swaps: at least {least}, p1 {p1}, median {median}; {goal} or more in {}.{} %",
            counts.len(),
            reached / 10,
            reached % 10
        );
        if proving() {
            assert!(p1 >= goal, "too little load around the swaps to prove anything");
        }
    }
    for tally in load.counts.iter().flatten() {
        let reasons = tally.reasons.lock().unwrap();
        assert!(reasons.is_empty(), "failed: {reasons:?}");
    }
    assert!(full > 0 && resumed > 0);
    if proving() {
        assert!(full + resumed >= 100_000 && requests >= 100_000);
    }

    let mut control = Mesh::new();
    control.under_load(|mesh| (0..wanted / 10).for_each(|_| mesh.switch_without_overlap()));
    let [full, resumed, _] = control.load.agreed();
    let failed: u64 = control.load.counts[1]
        .iter()
        .map(|tally| tally.failed.load(SeqCst))
        .sum();
    let all = full + resumed + failed;
    println!(
        "rotation: control: {} CAs switched without overlap: {failed} of {all} handshakes failed",
        wanted / 10
    );
    assert!(failed * 100 >= all, "the control failed only {failed} of {all}");
}
