//! A server's sessions follow what it trusts, with resumption on.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};

use keydir::Dir;
use keydir_rustls::{Identity, TrustAnchors, client_config, server_config};
use rustls::version::TLS13;

use crate::naive::Naive;
use crate::provider::{new_ticketer, provider};
use crate::support::*;

#[test]
fn after_a_removal_nothing_of_that_ca_is_resumed_and_everything_else_is() {
    for way in WAYS {
        let scene = Scene::new();
        let server = scene.server(way);
        let (a, b) = (scene.client(&scene.c1, way), scene.client(&scene.c2, way));
        for client in [&a, &b] {
            assert_eq!(connect(client, &server), End::Full, "{way:?}");
            assert_eq!(connect(client, &server), End::Resumed, "{way:?}");
        }
        scene.remove_c1();
        for _ in 0..10 {
            let end = connect(&a, &server);
            assert!(end.is_refused(), "{way:?}: {end:?}");
            assert_eq!(connect(&b, &server), End::Resumed, "{way:?}");
        }
    }
}

#[test]
fn a_dynamic_verifier_alone_lets_the_removed_ca_in_for_ever() {
    for way in WAYS {
        let scene = Scene::new();
        let server = Naive::new(&scene, way).config;
        let a = scene.client(&scene.c1, way);
        assert_eq!(connect(&a, &server), End::Full);
        scene.remove_c1();
        for _ in 0..10 {
            assert_eq!(connect(&a, &server), End::Resumed, "{way:?}");
        }
    }
}

#[test]
fn the_single_pieces_with_guard_hold_as_well() {
    for way in WAYS {
        let scene = Scene::new();
        let naive = Naive::new(&scene, way);
        let mut config = (*naive.config).clone();
        scene.anchors.guard(&mut config);
        let server = Arc::new(config);
        let (a, b) = (scene.client(&scene.c1, way), scene.client(&scene.c2, way));
        assert_eq!(connect(&a, &server), End::Full);
        assert_eq!(connect(&b, &server), End::Full);
        assert_eq!(connect(&a, &server), End::Resumed);
        scene.remove_c1();
        assert!(connect(&a, &server).is_refused());
        assert_eq!(connect(&b, &server), End::Resumed);
    }
}

#[test]
fn a_client_that_has_moved_to_another_ca_gets_a_full_handshake() {
    for way in WAYS {
        let scene = Scene::new();
        let server = scene.server(way);
        let own = Dir::in_memory(scene.c1.leaf("client").files("r1"));
        let identity = Identity::in_dir(&own).unwrap();
        // A client like any other: it does not know that its sessions are worth nothing.
        let mut config = (*scene.client(&scene.c1, way)).clone();
        config.client_auth_cert_resolver = identity.client_resolver();
        config.resumption = rustls::client::Resumption::in_memory_sessions(16);
        let client = Arc::new(config);
        assert_eq!(connect(&client, &server), End::Full);
        own.publish(scene.c2.leaf("client").files("r2")).unwrap();
        assert_eq!(connect(&client, &server), End::Resumed, "{way:?}: as the old one");
        scene.remove_c1();
        assert_eq!(connect(&client, &server), End::Full, "{way:?}");
        assert_eq!(connect(&client, &server), End::Resumed, "{way:?}");
    }
}

#[test]
fn a_session_ends_with_the_certificate_of_its_client() {
    for way in WAYS {
        for optional in [false, true] {
            let hand = Hand::at(2030);
            let root = Ca::new("servers");
            let clients = Ca::new("clients");
            let mut params = leaf_params("client");
            years(&mut params, 2020, 2031);
            let cas = Dir::in_memory_at(ca_files(&[("c1", &clients)]), hand.clone());
            let own = Dir::in_memory_at(root.leaf(NAME).files("r1"), hand.clone());
            let anchors = anchors_in(&cas);
            let builder = server_config(&Identity::in_dir(&own).unwrap());
            let builder = match optional {
                true => builder.optional_client(&anchors),
                false => builder.require_client(&anchors),
            }
            .versions(way.versions);
            let builder = if way.tickets { builder.tickets() } else { builder };
            let server = Arc::new(builder.build().unwrap());
            let trusted = Dir::in_memory_at(ca_files(&[("s1", &root)]), hand.clone());
            let client = client_config(&anchors_in(&trusted))
                .identity(&identity(&clients.leaf_with(params)))
                .versions(way.versions);
            let client = Arc::new(client.build().unwrap());
            assert_eq!(connect(&client, &server), End::Full);
            assert_eq!(connect(&client, &server), End::Resumed);
            hand.set(2031);
            assert!(connect(&client, &server).is_refused(), "{way:?}");
        }
    }
}

#[test]
fn where_clients_are_optional_the_anonymous_resume_and_the_removed_do_not() {
    for way in WAYS {
        let scene = Scene::new();
        let builder = server_config(&scene.server_identity)
            .optional_client(&scene.anchors)
            .versions(way.versions);
        let builder = if way.tickets { builder.tickets() } else { builder };
        let server = Arc::new(builder.build().unwrap());
        let anonymous = client_config(&scene.server_ca).versions(way.versions);
        let anonymous = Arc::new(anonymous.build().unwrap());
        let a = scene.client(&scene.c1, way);
        for client in [&anonymous, &a] {
            assert_eq!(connect(client, &server), End::Full);
            assert_eq!(connect(client, &server), End::Resumed);
        }
        scene.remove_c1();
        assert_eq!(connect(&anonymous, &server), End::Resumed, "{way:?}");
        assert!(connect(&a, &server).is_refused(), "{way:?}");
    }
}

#[test]
fn an_anonymous_session_is_worth_nothing_where_clients_are_required() {
    // Two configs that share a ticketer, which rustls warns of and does not prevent.
    let scene = Scene::new();
    let shared = new_ticketer();
    let open = server_config(&scene.server_identity)
        .no_client()
        .versions(&[&TLS13])
        .ticketer(Arc::clone(&shared));
    let open = Arc::new(open.build().unwrap());
    let closed = server_config(&scene.server_identity)
        .require_client(&scene.anchors)
        .versions(&[&TLS13])
        .ticketer(Arc::clone(&shared));
    let closed = Arc::new(closed.build().unwrap());
    let client = client_config(&scene.server_ca).versions(&[&TLS13]);
    let client = Arc::new(client.build().unwrap());
    assert_eq!(connect(&client, &open), End::Full);
    assert!(connect(&client, &closed).is_refused());

    let mut unguarded = (*Naive::new(&scene, WAYS[1]).config).clone();
    unguarded.ticketer = shared;
    assert_eq!(connect(&client, &Arc::new(unguarded)), End::Resumed);
}

#[test]
fn a_provider_can_be_given() {
    let root = Ca::new("root");
    let own = Dir::in_memory(root.leaf(NAME).files("r1"));
    let cas = ca_dir(&[("c1", &root)]);
    let provider = Arc::new(provider());
    let identity = Identity::with_provider(&own, Arc::clone(&provider)).unwrap();
    let anchors = TrustAnchors::builder(&cas).with_provider(provider).build().unwrap();
    let server = server_config(&identity).require_client(&anchors).build().unwrap();
    let client = client_config(&anchors).identity(&identity).build().unwrap();
    assert_eq!(connect(&Arc::new(client), &Arc::new(server)), End::Full);
}

#[test]
fn who_vouched_for_a_client_can_be_asked_at_any_time() {
    for way in WAYS {
        let scene = Scene::new();
        let server = scene.server(way);
        let mut pair = pair(&scene.client(&scene.c1, way), &server);
        assert_eq!(pair.finish(), End::Full);
        let chain = client_certificates(&pair);
        let by = scene.anchors.revision_of_client(&chain);
        assert_eq!(by.unwrap(), "c1");
        scene.remove_c1();
        assert_eq!(scene.anchors.revision_of_client(&chain), None);
        assert_eq!(scene.anchors.revision_of_client(&[]), None);
    }
}

#[test]
fn a_client_below_an_intermediate_is_no_exception() {
    for way in WAYS {
        let scene = Scene::new();
        let server = scene.server(way);
        let sub = scene.c1.sub(ca_params("sub"));
        let identity = identity(&sub.leaf("client").chained(&sub));
        let client = client_config(&scene.server_ca)
            .identity(&identity)
            .versions(way.versions);
        let client = Arc::new(client.build().unwrap());
        assert_eq!(connect(&client, &server), End::Full);
        assert_eq!(connect(&client, &server), End::Resumed);
        scene.remove_c1();
        assert!(connect(&client, &server).is_refused(), "{way:?}");
    }
}

/// While clients of both CAs connect all the time, one CA comes and goes. What begins and ends between two
/// publications has one right answer.
#[test]
fn under_load_each_connection_gets_the_answer_of_its_moment() {
    for way in WAYS {
        let scene = Scene::new();
        let server = scene.server(way);
        // 0, 1, 2, 3 and again: both are trusted, one is being removed, is removed, is coming back.
        let moment = AtomicU64::new(0);
        let over = AtomicBool::new(false);
        let hammer = |ca, may_be_refused: bool, judged: &AtomicU64| {
            let client = scene.client(ca, way);
            let mut seen = [0; 3];
            while !over.load(SeqCst) {
                let before = moment.load(SeqCst);
                let end = connect(&client, &server);
                if before % 2 == 1 || moment.load(SeqCst) != before {
                    continue;
                }
                let removed = may_be_refused && before % 4 == 2;
                assert_eq!(end.is_refused(), removed, "{way:?}: {end:?}");
                seen[match end {
                    End::Full => 0,
                    End::Resumed => 1,
                    End::Refused(..) => 2,
                }] += 1;
                judged.fetch_add(1, SeqCst);
            }
            seen
        };
        let judged = [(); 2].map(|()| AtomicU64::new(0));
        std::thread::scope(|scope| {
            let first = scope.spawn(|| hammer(&scene.c1, true, &judged[0]));
            let second = scope.spawn(|| hammer(&scene.c2, false, &judged[1]));
            let some_of_each = || {
                let before = judged.each_ref().map(|judged| judged.load(SeqCst));
                let few = || {
                    judged
                        .iter()
                        .zip(before)
                        .any(|(judged, before)| judged.load(SeqCst) < before + 3)
                };
                while few() && !first.is_finished() && !second.is_finished() {
                    std::thread::yield_now();
                }
            };
            let publish = |cas: &[(&str, &Ca)]| {
                moment.fetch_add(1, SeqCst);
                scene.cas.publish(ca_files(cas)).unwrap();
                moment.fetch_add(1, SeqCst);
                some_of_each();
            };
            some_of_each();
            for _ in 0..30 {
                publish(&[("c2", &scene.c2)]);
                publish(&[("c1", &scene.c1), ("c2", &scene.c2)]);
            }
            over.store(true, SeqCst);
            let [_, resumed, refused] = first.join().unwrap();
            assert!(resumed > 0 && refused >= 30, "{resumed} {refused}");
            let [_, resumed, refused] = second.join().unwrap();
            assert!(resumed > 0 && refused == 0, "{resumed} {refused}");
        });
    }
}
