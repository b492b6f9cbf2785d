//! P2 and P3: TLS 1.3 handshakes in memory, client and server summed, beside a static rustls config with the same
//! session settings; counted in instructions and allocations. And what keydir's connections add, over tokio.

mod configs;
mod ends;
#[cfg(feature = "peers")]
mod peers;
mod telling;

use std::path::Path;

use rustls::HandshakeKind;
use rustls::pki_types::ServerName;

use crate::Work;
use crate::callgrind::cost;
use crate::pki::{Ca, DOMAIN};
use crate::table::{Table, number};

use configs::Files;
use ends::{Ends, Side, Tools};

/// One kind of handshake.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// The client shows a certificate, too.
    mutual: bool,
    /// How many are trusted.
    cas: usize,
    sessions: Sessions,
    peers: Peers,
    /// The client tells the server the names of its CAs; keydir's does by default, rustls's by itself never. Servers
    /// tell theirs everywhere.
    names_told: bool,
    /// Our primaries are of a CA that the other end does not know, so that another revision is presented.
    rotating: bool,
    over: Over,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Over {
    /// rustls's connections, byte by byte.
    Memory,
    /// tokio's streams, which our `Acceptor` and `Connector` make too.
    Tokio,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Sessions {
    Off,
    /// The server remembers them.
    Stored,
    Tickets,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Peers {
    /// Each handshake is between two that have not met before.
    New,
    /// A full handshake, between two that have verified each other before.
    Known,
    /// By a session.
    Resumed,
}

impl Case {
    fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for (sessions, peers) in [
            (Sessions::Off, Peers::New),
            (Sessions::Stored, Peers::New),
            (Sessions::Stored, Peers::Resumed),
        ] {
            for mutual in [false, true] {
                cases.extend([1, 10, 100].map(|cas| Self {
                    mutual,
                    cas,
                    sessions,
                    peers,
                    names_told: false,
                    rotating: false,
                    over: Over::Memory,
                }));
            }
        }
        let mutual = |cas, peers| Self {
            mutual: true,
            cas,
            sessions: Sessions::Stored,
            peers,
            names_told: false,
            rotating: false,
            over: Over::Memory,
        };
        cases.push(Self {
            sessions: Sessions::Tickets,
            ..mutual(10, Peers::Resumed)
        });
        cases.push(mutual(10, Peers::Known));
        // All that keydir does by default.
        for peers in [Peers::New, Peers::Known, Peers::Resumed] {
            cases.extend([1, 10, 100].map(|cas| Self {
                names_told: true,
                ..mutual(cas, peers)
            }));
        }
        cases.extend([Peers::New, Peers::Resumed].map(|peers| Self {
            names_told: true,
            rotating: true,
            ..mutual(10, peers)
        }));
        // An `Acceptor` lives long: whatever is done once for it is not to be counted.
        cases.extend([Peers::Known, Peers::Resumed].map(|peers| Self {
            names_told: true,
            over: Over::Tokio,
            ..mutual(10, peers)
        }));
        cases
    }

    /// Whom we are measured beside; a goal is only about rustls itself.
    fn beside(self) -> Vec<(Side, Option<f64>)> {
        let goal = Some(self.goal());
        match (self.over, self.names_told) {
            (Over::Tokio, _) => vec![(Side::OurConfigs, None), (Side::Telling, None)],
            (Over::Memory, false) => vec![(Side::Static, goal)],
            (Over::Memory, true) => {
                let mut sides = vec![(Side::Static, goal), (Side::Telling, goal)];
                if cfg!(feature = "peers") && !self.rotating {
                    sides.extend([(Side::HotReload, None), (Side::ReloadableResolver, None)]);
                }
                sides
            }
        }
    }

    fn goal(self) -> f64 {
        match (self.sessions, self.peers) {
            (_, Peers::Resumed) => 1.02,
            (Sessions::Off, _) => 1.005,
            _ => 1.01,
        }
    }

    fn name(self) -> String {
        let who = if self.mutual { "mutual" } else { "server only" };
        let sessions = match self.sessions {
            Sessions::Off => "no sessions",
            Sessions::Stored => "session store",
            Sessions::Tickets => "tickets",
        };
        let what = match self.peers {
            Peers::New => "full",
            Peers::Known => "full, peers known",
            Peers::Resumed => "resumed",
        };
        let cas = if self.cas == 1 { "CA" } else { "CAs" };
        let names = if self.names_told { ", names told" } else { "" };
        let rotating = if self.rotating { ", mid-rotation" } else { "" };
        let over = if self.over == Over::Tokio { ", streams" } else { "" };
        format!("{what}, {who}, {} {cas}{names}{rotating}, {sessions}{over}", self.cas)
    }
}

const CAS: usize = 100;
const STRANGER: &str = "stranger";
/// Before what is counted: whatever is made only once in a process.
const WARM_UP: usize = 4;
const HANDSHAKES: usize = 20;

pub(crate) fn bench(work: Work) {
    let handshakes = work.of(HANDSHAKES);
    let folder = tempfile::tempdir().unwrap();
    prepare(&Files::new(folder.path()), 2 * handshakes + WARM_UP);
    let mut table = Table::new();
    for (index, case) in Case::all().into_iter().enumerate() {
        let cost = |side: Side| {
            let (index, pairs) = (index.to_string(), (2 * handshakes + WARM_UP).to_string());
            let arguments = [
                "handshake",
                side.name(),
                folder.path().to_str().unwrap(),
                &index,
                &pairs,
            ];
            cost("shake_hands", &arguments, handshakes)
        };
        let ours = cost(Side::Ours);
        for (side, goal) in case.beside() {
            let theirs = cost(side);
            let mut row = |unit: &str, [ours, theirs]: [f64; 2]| {
                let measure = format!("{}, beside {}: {unit}", case.name(), side.name());
                table.ratio(&measure, number(ours), number(theirs), ours / theirs, goal);
            };
            row("instructions", [ours, theirs].map(|cost| cost.instructions.round()));
            row("allocations", [ours, theirs].map(|cost| cost.allocations));
        }
    }
    table.print();
}

/// All sides read the same files. The leaves are of the last CA, but for one that is of a CA which nobody trusts.
fn prepare(files: &Files, pairs: usize) {
    let mut last = None;
    for n in 0..CAS {
        let ca = Ca::new(&format!("CA number {n}"));
        files.write(format!("ca-{n}.crt"), &ca.pem());
        last = Some(ca);
    }
    let ca = last.expect("a CA");
    let write = |ca: &Ca, end: &str, n: usize| {
        let leaf = ca.leaf(&format!("{end} {n}"));
        files.write(format!("{end}-{n}.crt"), &leaf.crt);
        files.write(format!("{end}-{n}.key"), &leaf.key);
    };
    for n in 0..pairs {
        write(&ca, "server", n);
        write(&ca, "client", n);
    }
    write(&Ca::new("stranger"), STRANGER, 0);
}

/// Makes the ends of one case, and then shakes hands.
pub(crate) fn inside(arguments: &[&str]) {
    let [side, folder, index, pairs, handshakes] = arguments else {
        panic!("side, folder, case, pairs, handshakes");
    };
    let case = Case::all()[index.parse::<usize>().unwrap()];
    let handshakes: usize = handshakes.parse().unwrap();
    // Always as many, whatever is counted.
    let count: usize = pairs.parse().unwrap();
    let make = Side::of(side).maker(Files::new(Path::new(folder)), case);
    let name = |name: String| ServerName::try_from(name).unwrap();
    let pairs: Vec<_> = match case.peers {
        Peers::New => (0..count).map(|n| (make(n), name(DOMAIN.to_owned()))).collect(),
        // Sessions are by name.
        Peers::Known => {
            let pair = make(0);
            (0..count)
                .map(|n| (pair.clone(), name(format!("n{n}.{DOMAIN}"))))
                .collect()
        }
        Peers::Resumed => {
            let pair = make(0);
            (0..count).map(|_| (pair.clone(), name(DOMAIN.to_owned()))).collect()
        }
    };
    let (warm_up, counted) = pairs.split_at(WARM_UP);
    let mut kinds = Vec::with_capacity(count);
    let mut tools = Tools::new();
    for (ends, name) in warm_up {
        ends.connect(name, &mut tools);
    }
    shake_hands(&counted[..handshakes], &mut tools, &mut kinds);
    let expected = match case.peers {
        Peers::Resumed => HandshakeKind::Resumed,
        _ => HandshakeKind::Full,
    };
    assert!(kinds.len() == handshakes && kinds.iter().all(|kind| *kind == [expected; 2]));
}

/// What is counted.
#[inline(never)]
fn shake_hands(pairs: &[(Ends, ServerName<'static>)], tools: &mut Tools, kinds: &mut Vec<[HandshakeKind; 2]>) {
    for (ends, name) in pairs {
        kinds.push(ends.connect(name, tools));
    }
}
