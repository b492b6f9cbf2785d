//! What directories mean to each other when something is wrong with one of them.

use std::collections::BTreeSet;

use keydir::Files;

use super::*;
use crate::anchors::decide_anchors;
use crate::consumer::Consumer;
use crate::decide::decide;
use crate::decision::Decision;
use crate::holding::Holding;
use crate::step::Set;

const BEGIN: u64 = 1_795_392_000;
const DAY: u64 = 86_400;

fn id(id: &str) -> RevisionId {
    id.parse().unwrap()
}

fn now() -> Now {
    Now {
        wall: BEGIN + 10 * DAY,
        since_jump: None,
    }
}

/// A directory of the CA's, as it was left some days ago.
fn place(path: &str, names: &[&str], role: Role, change: impl FnOnce(&mut Set)) -> Known {
    let files: Files = names.iter().map(|name| ((*name).to_owned(), "1".into())).collect();
    let mut before = State::of(&Holding::default(), None, BEGIN);
    before.publication = "p".to_owned();
    // A mark that is gone makes one that is retiring.
    let marked: Files = [("r1.crt.primary".to_owned(), "1".into())].into();
    let was = Holding::of_names(marked.keys().map(String::as_str));
    let before = match role {
        Role::Trust { .. } => before,
        _ => State::of(&was, Some(&before), BEGIN),
    };
    let mut set = Set::new(files, Some(&before), BEGIN);
    change(&mut set);
    let files = set.publish("p".to_owned());
    Known {
        path: path.into(),
        role,
        policy: Policy {
            propagation: 120,
            overlap: 3600,
            fresh: 300,
            skew: 10,
            ..Policy::default()
        },
        observed: Some(Observed {
            holding: Holding::of_names(files.keys().map(String::as_str)),
            state: State::of_files(&files).unwrap(),
            ..Observed::default()
        }),
        issued_by: BTreeMap::new(),
        clashes: BTreeSet::new(),
    }
}

fn trust_role() -> Role {
    Role::Trust { ca: "/ca".into() }
}

/// r2 issues, r1 is retiring; a leaf of r2 is all that is there.
fn mesh(trusted: &[&str]) -> [Known; 3] {
    let ca = place(
        "/ca",
        &["r1.crt", "r1.key", "r2.crt.primary", "r2.key"],
        Role::Ca,
        |_| {},
    );
    let trust = place("/trust", trusted, trust_role(), |_| {});
    let role = Role::Leaf { ca: "/ca".into() };
    let mut leaf = place("/leaf", &["r2.crt.primary", "r2.key"], role, |_| {});
    leaf.issued_by.insert(id("r2"), id("r2"));
    [ca, trust, leaf]
}

fn decision(mesh: &[Known], number: usize) -> Decision {
    let this = &mesh[number];
    let mut observed = this.observed.clone().unwrap();
    observed.links = links(mesh, this, now());
    match this.role {
        Role::Trust { .. } => decide_anchors(&this.policy, &observed, now()),
        _ => decide(&this.policy, &observed, now()),
    }
}

fn silent(known: &mut Known) {
    known.observed.as_mut().unwrap().consumers.push(Consumer {
        name: "api".to_owned(),
        said: None,
    });
}

#[test]
fn an_anchor_that_was_retired_stays_away_as_long_as_the_ca_waits() {
    let mut mesh = mesh(&["r2.crt"]);
    mesh[0].policy.windows = "Sun 02:00-04:00".parse().unwrap();
    assert!(!decision(&mesh, 0).blocked.is_empty());
    assert_eq!(decision(&mesh, 1), Decision::nothing());
    // But what shows a leaf of it needs it.
    mesh[2].issued_by.insert(id("r2"), id("r1"));
    assert_eq!(decision(&mesh, 1).step(), Some(&Step::Trust(id("r1"))));
}

#[test]
fn a_ca_goes_only_if_it_is_known_that_nobody_trusts_it() {
    let mut mesh = mesh(&["r1.crt", "r2.crt"]);
    assert_eq!(
        decision(&mesh, 0).blocked,
        [Reason::StillTrusted("/trust".into(), id("r1"))]
    );
    mesh[1].observed = None;
    assert_eq!(decision(&mesh, 0).blocked, [Reason::Unreadable("/trust".into())]);
}

#[test]
fn how_long_the_presenters_are_waited_for_is_not_for_the_anchors_to_say() {
    let mut mesh = mesh(&["r1.crt", "r2.crt"]);
    assert_eq!(decision(&mesh, 1).step(), Some(&Step::Retire(id("r1"))));
    silent(&mut mesh[2]);
    mesh[1].policy.deadline = Some(DAY);
    let waits = Reason::Elsewhere("/leaf".into(), Box::new(Reason::Silent("api".into())));
    assert_eq!(decision(&mesh, 1).blocked, [waits]);
    mesh[2].policy.deadline = Some(DAY);
    assert_eq!(decision(&mesh, 1).step(), Some(&Step::Retire(id("r1"))));
}

#[test]
fn nothing_is_issued_that_an_anchor_does_not_hold() {
    for (trusted, clash, reason) in [
        (&["r1.crt"][..], false, Reason::NotTrusted("/trust".into(), id("r2"))),
        (
            &["r1.crt", "r2.crl"],
            false,
            Reason::NotTrusted("/trust".into(), id("r2")),
        ),
        (
            &["r1.crt", "r2.crt", "r2.revoked"],
            false,
            Reason::NotTrusted("/trust".into(), id("r2")),
        ),
        (&["r1.crt", "r2.crt"], true, Reason::Clash("/trust".into(), id("r2"))),
    ] {
        let mut mesh = mesh(trusted);
        if clash {
            mesh[1].clashes.insert(id("r2"));
            assert!(decision(&mesh, 1).blocked.contains(&reason));
        }
        let observed = mesh[2].observed.as_mut().unwrap();
        observed.state.as_mut().unwrap().requested = true;
        assert_eq!(decision(&mesh, 2).blocked, std::slice::from_ref(&reason), "{trusted:?}");
        // Nor is it promoted.
        mesh[0] = place(
            "/ca",
            &["r1.crt.primary", "r1.key", "r2.crt", "r2.key"],
            Role::Ca,
            |_| {},
        );
        assert_eq!(decision(&mesh, 0).blocked, [reason], "{trusted:?}");
    }
}

#[test]
fn after_a_roll_back_to_one_that_was_gone_nothing_is_issued_before_all_trust_it_again() {
    let mut mesh = mesh(&["r1.crt", "r2.crt"]);
    mesh[0] = place(
        "/ca",
        &["r1.crt.primary", "r1.key", "r2.crt", "r2.key"],
        Role::Ca,
        |_| {},
    );
    let again = mesh[1].observed.as_mut().unwrap().state.as_mut().unwrap();
    again.revisions.get_mut(&id("r1")).unwrap().since = now().wall - 60;
    let until = Reason::Until(now().wall + 60, Wait::Propagation);
    let waits = Reason::Elsewhere("/trust".into(), Box::new(until));
    assert_eq!(decision(&mesh, 2).blocked, [waits]);
}

#[test]
fn an_emergency_of_the_ca_stops_for_no_pause() {
    let mut mesh = mesh(&["r1.crt"]);
    let names = ["r1.crt", "r1.key", "r1.revoked", "r2.crt.primary", "r2.key"];
    mesh[0] = place("/ca", &names, Role::Ca, |set| set.compromise(&id("r1"), BEGIN));
    mesh[1] = place("/trust", &["r1.crt"], trust_role(), |set| set.pause(Some("x".into())));
    // First the new one, so that something is trusted all the time.
    assert_eq!(decision(&mesh, 1).step(), Some(&Step::Trust(id("r2"))));
    mesh[1] = place("/trust", &["r1.crt", "r2.crt"], trust_role(), |set| {
        set.pause(Some("x".into()));
    });
    assert_eq!(decision(&mesh, 1).step(), Some(&Step::Revoke(id("r1"))));
    mesh[2].issued_by.insert(id("r2"), id("r1"));
    let state = mesh[2].observed.as_mut().unwrap().state.as_mut().unwrap();
    state.paused = Some("x".into());
    assert_eq!(decision(&mesh, 2).step(), Some(&Step::Stage));
}
