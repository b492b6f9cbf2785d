//! A rotation of the CA in which a server and a client are each at any step, in any order: who meets whom. The answer
//! is `docs/rotation-matrix.md`; `KEYDIR_BLESS=1` writes it anew.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use keydir::Dir;
use keydir_rustls::{Identity, client_config, server_config};
use rustls::client::Resumption;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig};

use crate::choice::revisions;
use crate::support::*;

/// What an end trusts and what it is, by the CAs `c1` and `c2`; the leaves `r1` and `r2` are theirs.
#[derive(Clone, Copy)]
struct Phase {
    trusts: &'static [usize],
    has: &'static [usize],
    primary: usize,
}

fn phases() -> Vec<Phase> {
    const TRUST: [&[usize]; 3] = [&[1], &[1, 2], &[2]];
    const IDENTITY: [(&[usize], usize); 4] = [(&[1], 1), (&[1, 2], 1), (&[1, 2], 2), (&[2], 2)];
    let phase = |trusts, (has, primary)| Phase { trusts, has, primary };
    TRUST
        .into_iter()
        .flat_map(|trusts| IDENTITY.map(|identity| phase(trusts, identity)))
        .collect()
}

impl Phase {
    fn label(self) -> String {
        let trusts: Vec<_> = self.trusts.iter().map(|ca| format!("c{ca}")).collect();
        let mark = |revision: &usize| if *revision == self.primary { "*" } else { "" };
        let has: Vec<_> = self.has.iter().map(|r| format!("r{r}{}", mark(r))).collect();
        format!("{}: {}", trusts.join(" "), has.join(" "))
    }

    fn any(self, peer: Self) -> bool {
        self.has.iter().any(|revision| peer.trusts.contains(revision))
    }

    fn by_primary(self, peer: Self) -> bool {
        peer.trusts.contains(&self.primary)
    }
}

/// A way to meet: whether the CAs are named, and the version of TLS.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Talk {
    hints: bool,
    tls13: bool,
}

const TALKS: [Talk; 4] = [
    Talk {
        hints: true,
        tls13: true,
    },
    Talk {
        hints: true,
        tls13: false,
    },
    Talk {
        hints: false,
        tls13: true,
    },
    Talk {
        hints: false,
        tls13: false,
    },
];

/// What should be: each end can show something that the other verifies, and knows enough of it. In TLS 1.2 a server is
/// told nothing.
fn predicted(server: Phase, client: Phase, talk: Talk) -> bool {
    let server_shows = match talk.hints && talk.tls13 {
        true => server.any(client),
        false => server.by_primary(client),
    };
    let client_shows = match talk.hints {
        true => client.any(server),
        false => client.by_primary(server),
    };
    server_shows && client_shows
}

/// One end's directories, published to live.
struct Side {
    cas: Arc<[Ca; 2]>,
    leaves: [Leaf; 2],
    trust: Dir,
    own: Dir,
}

impl Side {
    fn new(cas: &Arc<[Ca; 2]>, name: &str) -> Self {
        let leaves = cas.each_ref().map(|ca| ca.leaf(name));
        Self {
            trust: ca_dir(&[("c1", &cas[0])]),
            own: Dir::in_memory(leaves[0].files("r1")),
            cas: Arc::clone(cas),
            leaves,
        }
    }

    fn publish(&self, phase: Phase) {
        let ids = [("c1", "r1"), ("c2", "r2")];
        let cas: Vec<_> = phase.trusts.iter().map(|n| (ids[n - 1].0, &self.cas[n - 1])).collect();
        self.trust.publish(ca_files(&cas)).unwrap();
        let has: Vec<_> = phase.has.iter().map(|n| (ids[n - 1].1, &self.leaves[n - 1])).collect();
        self.own.publish(revisions(&has, ids[phase.primary - 1].1)).unwrap();
    }
}

/// One pair of configs for each way to meet. They live through all that is published.
fn configs(server: &Side, client: &Side) -> [(Arc<ServerConfig>, Arc<ClientConfig>); 4] {
    let identities = [server, client].map(|end| Identity::in_dir(&end.own).unwrap());
    let anchors = [server, client].map(|end| anchors_in(&end.trust));
    TALKS.map(|talk| {
        let versions = if talk.tls13 { &[&TLS13] } else { &[&TLS12] };
        let server = server_config(&identities[0])
            .require_client(&anchors[0])
            .versions(versions);
        let client = client_config(&anchors[1]).identity(&identities[1]).versions(versions);
        let (server, client) = match talk.hints {
            true => (server, client),
            false => (server.without_hints(), client.without_hints()),
        };
        let mut client = client.build().unwrap();
        client.resumption = Resumption::disabled();
        (Arc::new(server.build().unwrap()), Arc::new(client))
    })
}

#[test]
fn every_cell_is_as_predicted_and_as_written() {
    let phases = phases();
    let cells = phases.len() * phases.len();
    let cas = Arc::new(["c1", "c2"].map(Ca::new));
    let (server, client) = (Side::new(&cas, NAME), Side::new(&cas, "client"));
    let configs = configs(&server, &client);

    let mut met = vec![None; cells];
    // All cells twice, by leaps of different lengths, so that each is come to from others.
    for step in [29, 91] {
        for cell in (0..cells).map(|n| n * step % cells) {
            let (of_server, of_client) = (phases[cell / phases.len()], phases[cell % phases.len()]);
            server.publish(of_server);
            client.publish(of_client);
            let ends = configs.each_ref().map(|(server, client)| connect(client, server));
            let case = format!("server {}, client {}: {ends:?}", of_server.label(), of_client.label());
            let reality = ends.map(|end| match end {
                End::Full => true,
                End::Refused(..) => false,
                End::Resumed => panic!("{case}"),
            });
            assert_eq!(
                reality,
                TALKS.map(|talk| predicted(of_server, of_client, talk)),
                "{case}"
            );
            let before = met[cell].replace(reality);
            assert!(before.is_none_or(|before| before == reality), "{case}");
        }
    }
    let met: Vec<_> = met.into_iter().flatten().collect();
    assert_eq!(met.len(), cells);
    compare(&page(&phases, &met));
}

/// The kind of a cell. Whatever is there with less is there with more.
fn kind(met: [bool; 4]) -> &'static str {
    match met {
        [true, true, true, true] => "yes",
        [true, true, false, false] => "hints",
        [true, false, false, false] => "1.3",
        [false, false, false, false] => "-",
        _ => panic!("{met:?}"),
    }
}

fn page(phases: &[Phase], met: &[[bool; 4]]) -> String {
    let count = |wanted| met.iter().filter(|met| kind(**met) == wanted).count();
    // Whoever trusts both and has both meets everybody, and nothing less will do.
    for (phase, row) in phases.iter().zip(met.chunks(phases.len())) {
        let prepared = phase.trusts.len() == 2 && phase.has.len() == 2;
        assert_eq!(row.iter().all(|met| met[0]), prepared, "{}", phase.label());
    }
    let mut page = format!(
        "# Who meets whom in the middle of a rotation

A CA rotates from `c1` to `c2`, and with it a server and a client with mutual TLS. Each end is at any step, in any order:
it trusts `c1`, both, or `c2`, and it has the leaf `r1` of `c1`, the leaf `r2` of `c2`, or both, of which `*` is the
primary. An end presents its primary, unless the peer has said by the names of its CAs (the hints) that it cannot verify
it, and can verify the other one.

| | connects | cells |
|---|---|---|
| yes | in TLS 1.3 and 1.2, with hints or without: the primaries suit | {} |
| hints | in TLS 1.3 and 1.2, with hints on both sides: the client chooses | {} |
| 1.3 | in TLS 1.3, with hints on both sides: the server chooses, which is told nothing in TLS 1.2 | {} |
| - | in no way: one end has nothing that the other trusts | {} |

So with hints and TLS 1.3 whoever can meet does; an end that trusts both and has both meets everybody, whatever step the
other one is at.

Rows are the server, columns the client; each is `trusts: has`.

",
        count("yes"),
        count("hints"),
        count("1.3"),
        count("-"),
    );
    let labels: Vec<_> = phases.iter().map(|phase| phase.label()).collect();
    let _ = writeln!(page, "| | {} |", labels.join(" | "));
    let _ = writeln!(page, "|---|{}", "---|".repeat(labels.len()));
    for (label, row) in labels.iter().zip(met.chunks(phases.len())) {
        let row: Vec<_> = row.iter().map(|met| kind(*met)).collect();
        let _ = writeln!(page, "| **{label}** | {} |", row.join(" | "));
    }
    page.push_str(
        "
This page is written by `crates/keydir-rustls/tests/tls/matrix.rs`, which performs all of these handshakes, and fails
where the page says anything else. `KEYDIR_BLESS=1 cargo test -p keydir-rustls --test tls matrix` writes it anew.
",
    );
    page
}

fn compare(page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rotation-matrix.md");
    if std::env::var_os("KEYDIR_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "{} is out of date; it should be:\n{page}",
        path.display()
    );
}
