//! Every course of events, for few consumers.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write;
use std::sync::Arc;

use keydir_rotate::Policy;

use crate::world::{Fate, World};

/// What may happen.
#[derive(Clone, Copy)]
struct Rules {
    consumers: usize,
    /// What the policy believes: so long a publication takes to whoever begins anew.
    propagation: u64,
    /// And so long it really takes.
    lag: u64,
    /// A running consumer loads within so many seconds; at any time if it may take for ever.
    loads_within: Option<u64>,
    reports: bool,
    may_die: bool,
    /// Longer courses are not followed.
    seconds: u64,
}

const LIFE: u64 = 1;

fn policy(rules: Rules) -> Policy {
    Policy {
        propagation: rules.propagation,
        overlap: LIFE,
        fresh: 10,
        ..Policy::default()
    }
}

/// What a world looks like from now on: ages, not times; and nobody knows the number of a publication.
fn key(world: &World, started: bool) -> String {
    let age = |at: u64| (world.now - at).min(9);
    let name = |id: &str| world.current.id[1..].parse::<u64>().unwrap() - id[1..].parse::<u64>().unwrap();
    let mut key = format!("{started} {} ", age(world.state.published));
    for (id, stage) in &world.state.revisions {
        write!(key, "{id}{:?}{} ", stage.phase, age(stage.since)).unwrap();
    }
    for (publication, until) in world.former.iter().rev().take_while(|(_, until)| age(*until) < 9) {
        write!(key, "{}:{} ", name(&publication.id), age(*until)).unwrap();
    }
    let mut members: Vec<String> = world
        .members
        .iter()
        .map(|member| {
            let loaded = member.loaded.as_ref().map(|loaded| name(&loaded.id));
            let made = member.made.iter().map(|(id, at)| format!("{id}{}", age(*at)));
            format!("{loaded:?}{:?}", made.collect::<Vec<_>>())
        })
        .collect();
    // It does not matter who is who.
    members.sort();
    key + &members.join(" ")
}

fn fates(world: &World, rules: Rules, number: usize) -> Vec<Fate> {
    let member = &world.members[number];
    let restarts = world.within(rules.lag).into_iter().map(Fate::Restarts);
    let Some(loaded) = &member.loaded else {
        return restarts.chain([Fate::Dies]).collect();
    };
    let until = world
        .former
        .iter()
        .find(|(publication, _)| Arc::ptr_eq(publication, loaded))
        .map(|(_, until)| *until);
    let must_load = until
        .zip(rules.loads_within)
        .is_some_and(|(until, within)| until + within <= world.now + 1);
    let mut fates: Vec<Fate> = restarts.collect();
    fates.push(Fate::Loads);
    if !must_load {
        fates.push(Fate::Stays);
    }
    if rules.may_die {
        fates.push(Fate::Dies);
    }
    fates
}

/// Follows every course of one rotation. How many different moments there are, how many rotations came to their end, and
/// the first failure.
fn explore(rules: Rules) -> (usize, usize, Option<String>) {
    let policy = policy(rules);
    let first = World::new(rules.consumers, LIFE);
    let mut seen = HashSet::from([key(&first, false)]);
    let mut open = VecDeque::from([(first, false, 0)]);
    let mut ended = 0;
    while let Some((world, started, second)) = open.pop_front() {
        if let Some(failure) = world.failure() {
            return (seen.len(), ended, Some(failure));
        }
        if started && world.is_settled() && world.members.iter().all(|member| member.made.len() < 2) {
            ended += 1;
            continue;
        }
        if second == rules.seconds {
            continue;
        }
        // The rotator does what it has decided, or sleeps.
        let decision = world.decide(&policy, rules.reports);
        let mut worlds = vec![(world.clone(), started)];
        if let Some(step) = decision.step() {
            let mut acted = world;
            acted.act(step);
            worlds.push((acted, true));
        }
        for (world, started) in worlds {
            let mut courses = vec![Vec::new()];
            for number in 0..rules.consumers {
                let fates = fates(&world, rules, number);
                let longer = |course: &Vec<Fate>| {
                    fates
                        .iter()
                        .map(|fate| [course.as_slice(), std::slice::from_ref(fate)].concat())
                        .collect::<Vec<_>>()
                };
                courses = courses.iter().flat_map(longer).collect();
            }
            for course in courses {
                let mut next = world.clone();
                next.pass(&course);
                if seen.insert(key(&next, started)) {
                    open.push_back((next, started, second + 1));
                }
            }
        }
    }
    (seen.len(), ended, None)
}

const CONFIRMED: Rules = Rules {
    consumers: 3,
    propagation: 2,
    lag: 2,
    loads_within: None,
    reports: true,
    may_die: true,
    seconds: 18,
};

#[test]
fn with_confirmation_nobody_meets_what_he_cannot_accept() {
    let (moments, ended, failure) = explore(CONFIRMED);
    println!("{moments} moments, {ended} rotations ended");
    assert_eq!(failure, None);
    assert!(moments > 1_000 && ended > 100, "{moments} {ended}");
}

#[test]
fn waits_that_are_long_enough_do_without() {
    let rules = Rules {
        reports: false,
        loads_within: Some(2),
        ..CONFIRMED
    };
    let (moments, ended, failure) = explore(rules);
    println!("{moments} moments, {ended} rotations ended");
    assert_eq!(failure, None);
    assert!(moments > 100 && ended > 10, "{moments} {ended}");
}

/// The controls: each of these has to be found out.
#[test]
fn what_is_too_short_is_found_out() {
    for (what, rules) in [
        (
            "a running consumer takes longer than the wait",
            Rules {
                reports: false,
                loads_within: Some(4),
                ..CONFIRMED
            },
        ),
        (
            "a new consumer begins with something older than the policy believes",
            Rules {
                propagation: 1,
                lag: 3,
                ..CONFIRMED
            },
        ),
    ] {
        let (_, _, failure) = explore(rules);
        let failure = failure.unwrap_or_else(|| panic!("{what}: it was not found"));
        println!("{what}: {failure}");
    }
}
