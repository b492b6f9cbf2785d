//! P2 and P3: TLS 1.3 handshakes in memory, client and server summed, beside a static rustls config with the same
//! session settings; counted in instructions and allocations.

mod configs;

use std::fs;
use std::path::Path;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection, HandshakeKind, ServerConnection};

use crate::Work;
use crate::callgrind::cost;
use crate::pki::{Ca, DOMAIN};
use crate::table::{Table, number};

use configs::Pair;

/// One kind of handshake.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// The client shows a certificate, too.
    mutual: bool,
    /// How many are trusted.
    cas: usize,
    sessions: Sessions,
    peers: Peers,
    /// The client tells the server whom it trusts; keydir does, rustls by itself never.
    hints: bool,
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
                    hints: false,
                }));
            }
        }
        let mutual = |cas, sessions, peers, hints| Self {
            mutual: true,
            cas,
            sessions,
            peers,
            hints,
        };
        cases.push(mutual(10, Sessions::Tickets, Peers::Resumed, false));
        cases.push(mutual(10, Sessions::Stored, Peers::Known, false));
        for cas in [10, 100] {
            cases.push(mutual(cas, Sessions::Stored, Peers::New, true));
            cases.push(mutual(cas, Sessions::Stored, Peers::Resumed, true));
        }
        cases
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
        let hints = if self.hints { ", names told" } else { "" };
        format!("{what}, {who}, {} {cas}{hints}, {sessions}", self.cas)
    }
}

const CAS: usize = 100;
/// Before what is counted: whatever is made only once in a process.
const WARM_UP: usize = 4;
const HANDSHAKES: usize = 20;

pub(crate) fn bench(work: Work) {
    let handshakes = work.of(HANDSHAKES);
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), 2 * handshakes + WARM_UP);
    let mut table = Table::new();
    for (index, case) in Case::all().into_iter().enumerate() {
        let [ours, plain] = ["ours", "static"].map(|side| {
            let (index, pairs) = (index.to_string(), (2 * handshakes + WARM_UP).to_string());
            let arguments = ["handshake", side, folder.path().to_str().unwrap(), &index, &pairs];
            cost("shake_hands", &arguments, handshakes)
        });
        for (unit, ours, plain) in [
            ("instructions", ours.instructions, plain.instructions),
            ("allocations", ours.allocations, plain.allocations),
        ] {
            let measure = format!("{}: {unit}", case.name());
            let digits = |value: f64| number(if unit == "instructions" { value.round() } else { value });
            table.ratio(&measure, digits(ours), digits(plain), ours / plain, Some(case.goal()));
        }
    }
    table.print();
}

/// Both sides read the same files. The leaves are of the last CA.
fn prepare(folder: &Path, pairs: usize) {
    let write = |name: String, content: &str| fs::write(folder.join(name), content).unwrap();
    let mut last = None;
    for n in 0..CAS {
        let ca = Ca::new(&format!("CA number {n}"));
        write(format!("ca-{n}.crt"), &ca.crt);
        last = Some(ca);
    }
    let ca = last.expect("a CA");
    for n in 0..pairs {
        for end in ["server", "client"] {
            let leaf = ca.leaf(&format!("{end} {n}"));
            write(format!("{end}-{n}.crt"), &leaf.crt);
            write(format!("{end}-{n}.key"), &leaf.key);
        }
    }
}

/// Makes the configs of one case, and then shakes hands.
pub(crate) fn inside(arguments: &[&str]) {
    let [side, folder, index, pairs, handshakes] = arguments else {
        panic!("side, folder, case, pairs, handshakes");
    };
    let case = Case::all()[index.parse::<usize>().unwrap()];
    let handshakes: usize = handshakes.parse().unwrap();
    // Always as many, whatever is counted.
    let count: usize = pairs.parse().unwrap();
    let make = configs::maker(side, Path::new(folder), case);
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
    let mut wire = Vec::with_capacity(1 << 20);
    for (pair, name) in warm_up {
        connect(pair, name, &mut wire);
    }
    shake_hands(&counted[..handshakes], &mut wire, &mut kinds);
    let expected = match case.peers {
        Peers::Resumed => HandshakeKind::Resumed,
        _ => HandshakeKind::Full,
    };
    assert!(kinds.len() == handshakes && kinds.iter().all(|kind| *kind == [expected; 2]));
}

/// What is counted.
#[inline(never)]
fn shake_hands(pairs: &[(Pair, ServerName<'static>)], wire: &mut Vec<u8>, kinds: &mut Vec<[HandshakeKind; 2]>) {
    for (pair, name) in pairs {
        kinds.push(connect(pair, name, wire));
    }
}

fn connect((client, server): &Pair, name: &ServerName<'static>, wire: &mut Vec<u8>) -> [HandshakeKind; 2] {
    let client = ClientConnection::new(client.clone(), name.clone()).unwrap();
    let mut client = Connection::from(client);
    let mut server = Connection::from(ServerConnection::new(server.clone()).unwrap());
    // Until nobody has anything to say; the sessions come last.
    while transfer(&mut client, &mut server, wire) | transfer(&mut server, &mut client, wire) {}
    assert!(!client.is_handshaking() && !server.is_handshaking());
    [client, server].map(|end| end.handshake_kind().unwrap())
}

fn transfer(from: &mut Connection, to: &mut Connection, wire: &mut Vec<u8>) -> bool {
    wire.clear();
    while from.wants_write() {
        from.write_tls(wire).unwrap();
    }
    let mut rest = wire.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets().unwrap();
    }
    !wire.is_empty()
}
