//! A client's sessions end with what they rest on.

use std::sync::Arc;

use keydir::Dir;
use keydir_rustls::{Identity, client_config, server_config};
use rustls::ClientConfig;
use rustls::client::Resumption;

use crate::support::*;

/// Two server CAs, a server of the first, a client with an identity.
struct Clients {
    s1: Ca,
    s2: Ca,
    servers: Dir,
    clients: Ca,
    own: Dir,
    config: Arc<ClientConfig>,
    server: Arc<rustls::ServerConfig>,
    server_dir: Dir,
}

impl Clients {
    fn new(way: Way) -> Self {
        let (s1, s2, clients) = (Ca::new("s1"), Ca::new("s2"), Ca::new("clients"));
        let servers = ca_dir(&[("s1", &s1), ("s2", &s2)]);
        let own = Dir::in_memory(clients.leaf("client").files("r1"));
        let identity = Identity::in_dir(&own).unwrap();
        let config = client_config(&anchors_in(&servers))
            .identity(&identity)
            .versions(way.versions);
        let server_dir = Dir::in_memory(s1.leaf(NAME).files("r1"));
        let server = server_config(&Identity::in_dir(&server_dir).unwrap())
            .require_client(&anchors_in(&ca_dir(&[("c1", &clients)])))
            .versions(way.versions);
        let server = if way.tickets { server.tickets() } else { server };
        let this = Self {
            config: Arc::new(config.build().unwrap()),
            server: Arc::new(server.build().unwrap()),
            s1,
            s2,
            servers,
            clients,
            own,
            server_dir,
        };
        assert_eq!(connect(&this.config, &this.server), End::Full, "{way:?}");
        assert_eq!(connect(&this.config, &this.server), End::Resumed, "{way:?}");
        this
    }

    /// The same client with rustls's own sessions.
    fn naive(&self) -> Arc<ClientConfig> {
        let mut config = (*self.config).clone();
        config.resumption = Resumption::in_memory_sessions(16);
        let config = Arc::new(config);
        assert_eq!(connect(&config, &self.server), End::Full);
        config
    }

    fn remove_s1(&self) {
        self.servers.publish(ca_files(&[("s2", &self.s2)])).unwrap();
    }
}

#[test]
fn a_server_of_a_removed_ca_is_refused_though_there_was_a_session() {
    for way in WAYS {
        let it = Clients::new(way);
        let naive = it.naive();
        it.remove_s1();
        assert!(connect(&it.config, &it.server).is_refused(), "{way:?}");
        assert_eq!(connect(&naive, &it.server), End::Resumed, "{way:?}: the control");

        it.server_dir.publish(it.s2.leaf(NAME).files("r2")).unwrap();
        for _ in 0..2 {
            let end = connect(&it.config, &it.server);
            assert_eq!(end, End::Full, "{way:?}: it resumes no more");
        }
    }
}

/// A handshake in which something happens after the server was verified and the identity shown, before the server's last
/// flight arrives: the one that brings the session.
fn straddle(config: &Arc<ClientConfig>, it: &Clients, happens: impl FnOnce()) -> End {
    let mut pair = pair(config, &it.server);
    for _ in 0..2 {
        let flight = sent(&mut pair.client);
        receive(&mut pair.server, &flight).unwrap();
        let flight = sent(&mut pair.server);
        if pair.server.is_handshaking() {
            receive(&mut pair.client, &flight).unwrap();
        } else {
            happens();
            receive(&mut pair.client, &flight).unwrap();
            return pair.finish();
        }
    }
    panic!("the handshake is not over");
}

fn without_sessions(config: &Arc<ClientConfig>) -> Arc<ClientConfig> {
    let mut config = (**config).clone();
    config.resumption = Resumption::in_memory_sessions(16);
    Arc::new(config)
}

#[test]
fn a_session_that_arrives_after_the_removal_is_not_kept() {
    for way in WAYS {
        let it = Clients::new(way);
        let fresh = client_config(&anchors_in(&it.servers)).identity(&Identity::in_dir(&it.own).unwrap());
        let fresh = Arc::new(fresh.versions(way.versions).build().unwrap());
        assert_eq!(straddle(&fresh, &it, || it.remove_s1()), End::Full);
        assert!(connect(&fresh, &it.server).is_refused(), "{way:?}");

        let it = Clients::new(way);
        let naive = without_sessions(&it.config);
        assert_eq!(straddle(&naive, &it, || it.remove_s1()), End::Full);
        assert_eq!(connect(&naive, &it.server), End::Resumed, "{way:?}: the control");
    }
}

#[test]
fn a_session_of_the_identity_before_is_not_kept() {
    for way in WAYS {
        let it = Clients::new(way);
        let second = it.clients.leaf("client");
        let change = || it.own.publish(second.files("r2")).unwrap();
        let fresh = client_config(&anchors_in(&it.servers)).identity(&Identity::in_dir(&it.own).unwrap());
        let fresh = Arc::new(fresh.versions(way.versions).build().unwrap());
        assert_eq!(straddle(&fresh, &it, change), End::Full);
        let mut next = pair(&fresh, &it.server);
        assert_eq!(next.finish(), End::Full, "{way:?}");
        assert_eq!(client_certificates(&next)[0], second.der);
    }
}

#[test]
fn a_session_of_an_identity_that_was_shown_for_a_moment_is_not_kept() {
    for way in WAYS {
        let it = Clients::new(way);
        let (first, second) = (it.clients.leaf("client"), it.clients.leaf("client"));
        let marked = |primary: &str| {
            let files = first.files("r1").into_iter().chain(second.files("r2"));
            let marked = files.map(|(name, content)| match name.strip_suffix(".primary") {
                Some(unmarked) if !name.starts_with(primary) => (unmarked.to_owned(), content),
                _ => (name, content),
            });
            marked.collect::<Vec<_>>()
        };
        it.own.publish(marked("r1")).unwrap();
        let fresh = client_config(&anchors_in(&it.servers)).identity(&Identity::in_dir(&it.own).unwrap());
        let fresh = Arc::new(fresh.versions(way.versions).build().unwrap());

        // The sessions are looked at, then the identity, and then again the sessions.
        let mut pair = pair(&fresh, &it.server);
        let hello = sent(&mut pair.client);
        it.own.publish(marked("r2")).unwrap();
        receive(&mut pair.server, &hello).unwrap();
        let flight = sent(&mut pair.server);
        receive(&mut pair.client, &flight).unwrap();
        it.own.publish(marked("r1")).unwrap();
        assert_eq!(pair.finish(), End::Full);
        assert_eq!(client_certificates(&pair)[0], second.der);

        let mut next = self::pair(&fresh, &it.server);
        assert_eq!(next.finish(), End::Full, "{way:?}");
        assert_eq!(client_certificates(&next)[0], first.der);
    }
}

#[test]
fn what_was_gone_and_is_back_between_two_looks_was_lost_all_the_same() {
    for way in WAYS {
        let it = Clients::new(way);
        it.remove_s1();
        let both = ca_files(&[("s1", &it.s1), ("s2", &it.s2)]);
        it.servers.publish(both).unwrap();
        assert_eq!(connect(&it.config, &it.server), End::Full, "{way:?}");
    }
}

#[test]
fn a_new_identity_is_shown_at_once() {
    for way in WAYS {
        let it = Clients::new(way);
        let naive = it.naive();
        let second = it.clients.leaf("client");
        it.own.publish(second.files("r2")).unwrap();
        let mut after = pair(&it.config, &it.server);
        assert_eq!(after.finish(), End::Full, "{way:?}");
        assert_eq!(client_certificates(&after)[0], second.der);

        let mut control = pair(&naive, &it.server);
        assert_eq!(control.finish(), End::Resumed, "{way:?}");
        assert_ne!(client_certificates(&control)[0], second.der);
    }
}

#[test]
fn an_identity_that_was_replaced_and_came_back_between_two_handshakes_was_shown_to_nobody() {
    let it = Clients::new(WAYS[0]);
    let first: Vec<_> = it.clients.leaf("client").files("r3").into();
    it.own.publish(first.clone()).unwrap();
    assert_eq!(connect(&it.config, &it.server), End::Full);
    assert_eq!(connect(&it.config, &it.server), End::Full, "it resumes no more");
    let identity = Identity::in_dir(&it.own).unwrap();
    let fresh = client_config(&anchors_in(&it.servers)).identity(&identity);
    let fresh = Arc::new(fresh.build().unwrap());
    assert_eq!(connect(&fresh, &it.server), End::Full);
    assert_eq!(connect(&fresh, &it.server), End::Resumed, "a new config does");
}

#[test]
fn what_is_added_changes_nothing() {
    for way in WAYS {
        let it = Clients::new(way);
        let s3 = Ca::new("s3");
        let all = ca_files(&[("s1", &it.s1), ("s2", &it.s2), ("s3", &s3)]);
        it.servers.publish(all).unwrap();
        assert_eq!(connect(&it.config, &it.server), End::Resumed, "{way:?}");
    }
}

#[test]
fn alpn_is_left_to_others() {
    let it = Clients::new(WAYS[0]);
    assert!(it.config.alpn_protocols.is_empty());
}
