//! A client's sessions end with any revision that it has presented, also one in the primary's place.

use std::sync::Arc;

use keydir::Dir;
use keydir_rustls::{Identity, TrustAnchors, client_config, server_config};
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ServerConfig};

use crate::choice::revisions;
use crate::support::*;

/// A client whose primary `r2` is of a new CA, and a server that knows the old one only: it is shown `r1`.
struct Middle {
    r1: Leaf,
    r2: Leaf,
    r3: Leaf,
    own: Dir,
    hand: Hand,
    server_cas: TrustAnchors,
    old: Ca,
    server: Arc<ServerConfig>,
    way: Way,
}

impl Middle {
    fn new(way: Way) -> Self {
        let (servers, old, new) = (Ca::new("servers"), Ca::new("old"), Ca::new("new"));
        let mut params = leaf_params("client");
        years(&mut params, 2020, 2035);
        let (r1, r2, r3) = (old.leaf_with(params), new.leaf("client"), new.leaf("client"));
        let hand = Hand::at(2030);
        let own = Dir::in_memory_at(revisions(&[("r1", &r1), ("r2", &r2), ("r3", &r3)], "r2"), hand.clone());
        let server = server_config(&identity(&servers.leaf(NAME)))
            .require_client(&anchors_in(&ca_dir(&[("old", &old)])))
            .versions(way.versions);
        let server = if way.tickets { server.tickets() } else { server };
        Self {
            server: Arc::new(server.build().unwrap()),
            server_cas: anchors_in(&ca_dir(&[("s1", &servers)])),
            r1,
            r2,
            r3,
            own,
            hand,
            old,
            way,
        }
    }

    fn client(&self) -> Arc<ClientConfig> {
        let client = client_config(&self.server_cas).identity(&Identity::in_dir(&self.own).unwrap());
        Arc::new(client.versions(self.way.versions).build().unwrap())
    }

    /// The same with rustls's own sessions.
    fn naive(&self) -> Arc<ClientConfig> {
        let mut config = (*self.client()).clone();
        config.resumption = Resumption::in_memory_sessions(16);
        Arc::new(config)
    }

    fn publish(&self, of: &[(&str, &Leaf)], primary: &str) {
        self.own.publish(revisions(of, primary)).unwrap();
    }
}

fn connect_as(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> (End, Option<CertificateDer<'static>>) {
    let mut pair = pair(client, server);
    let end = pair.finish();
    let shown = (!end.is_refused()).then(|| client_certificates(&pair)[0].clone());
    (end, shown)
}

/// What becomes of `r1`, and whether the server goes on letting the client in, by something else.
type Change = (&'static str, fn(&Middle), bool);

const CHANGES: [Change; 7] = [
    (
        "removed",
        |it| it.publish(&[("r2", &it.r2), ("r3", &it.r3)], "r2"),
        false,
    ),
    (
        "revoked",
        |it| {
            let mut files = revisions(&[("r1", &it.r1), ("r2", &it.r2), ("r3", &it.r3)], "r2");
            files.push(("r1.revoked".to_owned(), String::new()));
            it.own.publish(files).unwrap();
        },
        false,
    ),
    (
        "removed and back",
        |it| {
            it.publish(&[("r2", &it.r2), ("r3", &it.r3)], "r2");
            it.publish(&[("r1", &it.r1), ("r2", &it.r2), ("r3", &it.r3)], "r2");
        },
        true,
    ),
    (
        "replaced",
        |it| {
            let mut params = leaf_params("client");
            years(&mut params, 2020, 2040);
            let another = it.old.leaf_with(params);
            it.publish(&[("r1", &another), ("r2", &it.r2), ("r3", &it.r3)], "r2");
        },
        true,
    ),
    (
        "expired",
        |it| {
            it.hand.set(2036);
            it.own.reload().unwrap();
        },
        false,
    ),
    (
        "with another primary beside it",
        |it| it.publish(&[("r1", &it.r1), ("r2", &it.r2), ("r3", &it.r3)], "r3"),
        true,
    ),
    (
        "promoted",
        |it| it.publish(&[("r1", &it.r1), ("r2", &it.r2), ("r3", &it.r3)], "r1"),
        true,
    ),
];

#[test]
fn a_session_that_rests_on_a_revision_in_the_primarys_place_ends_with_it() {
    for way in WAYS {
        for (what, change, lets_in) in CHANGES {
            let it = Middle::new(way);
            let (client, naive) = (it.client(), it.naive());
            let r1 = Some(it.r1.der.clone());
            for client in [&client, &naive] {
                assert_eq!(connect_as(client, &it.server), (End::Full, r1.clone()), "{way:?}");
                assert_eq!(connect_as(client, &it.server), (End::Resumed, r1.clone()), "{way:?}");
            }
            change(&it);
            let (end, _) = connect_as(&client, &it.server);
            assert_eq!(end == End::Full, lets_in, "{way:?}, {what}: {end:?}");
            assert_eq!(end.is_refused(), !lets_in, "{way:?}, {what}: {end:?}");
            let control = connect_as(&naive, &it.server);
            assert_eq!(control, (End::Resumed, r1), "{way:?}, {what}: the control");
        }
    }
}

#[test]
fn a_session_of_a_handshake_that_straddles_its_end_is_not_kept() {
    // Up to the server's last flight, the one that brings the session.
    let straddle = |it: &Middle, client: &Arc<ClientConfig>| {
        let mut pair = pair(client, &it.server);
        for _ in 0..2 {
            let flight = sent(&mut pair.client);
            receive(&mut pair.server, &flight).unwrap();
            if !pair.server.is_handshaking() {
                it.publish(&[("r2", &it.r2), ("r3", &it.r3)], "r2");
            }
            let flight = sent(&mut pair.server);
            receive(&mut pair.client, &flight).unwrap();
        }
        assert_eq!(pair.finish(), End::Full);
        assert_eq!(client_certificates(&pair)[0], it.r1.der);
    };
    for way in WAYS {
        let it = Middle::new(way);
        let client = it.client();
        straddle(&it, &client);
        assert!(connect(&client, &it.server).is_refused(), "{way:?}");

        let it = Middle::new(way);
        let naive = it.naive();
        straddle(&it, &naive);
        assert_eq!(connect(&naive, &it.server), End::Resumed, "{way:?}: the control");
    }
}

#[test]
fn what_was_presented_to_nobody_may_go() {
    for way in WAYS {
        let it = Middle::new(way);
        let client = it.client();
        assert_eq!(connect(&client, &it.server), End::Full);
        it.publish(&[("r1", &it.r1), ("r2", &it.r2)], "r2");
        assert_eq!(connect(&client, &it.server), End::Resumed, "{way:?}: r3 is gone");
        let r4 = it.old.leaf("client");
        it.publish(&[("r1", &it.r1), ("r2", &it.r2), ("r4", &r4)], "r2");
        assert_eq!(connect(&client, &it.server), End::Resumed, "{way:?}: r4 has come");
        // A new config begins anew.
        it.publish(&[("r2", &it.r2), ("r4", &r4)], "r2");
        assert_eq!(connect(&client, &it.server), End::Full, "{way:?}: r1 is gone");
        assert_eq!(connect(&client, &it.server), End::Full, "{way:?}: it resumes no more");
        let client = it.client();
        assert_eq!(connect(&client, &it.server), End::Full, "{way:?}");
        assert_eq!(connect(&client, &it.server), End::Resumed, "{way:?}");
    }
}
