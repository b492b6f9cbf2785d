//! Every course of events, for few consumers.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write;
use std::sync::Arc;

use keydir_rotate::{Phase, Policy};

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
    /// Each with one course more.
    order: Option<Order>,
    /// Longer courses are not followed.
    seconds: u64,
}

/// What happens once, at any moment.
#[derive(Clone, Copy)]
enum Order {
    RollBack,
    /// What is in this phase, within so many seconds.
    Compromise(Phase, u64),
    /// The rotator's clock, by so many seconds.
    Jump(i64),
}

fn ordered(world: &World, order: Order) -> Option<World> {
    let mut next = world.clone();
    let one = |phase| Some(world.state.in_phase(phase).next()?.0.clone());
    match order {
        Order::RollBack => {
            let id = one(Phase::Retiring)?;
            next.change(|set| set.promote(&id));
            next.rolled_back = true;
        }
        Order::Compromise(phase, within) => {
            let id = one(phase)?;
            let by = world.now + within;
            next.change(|set| set.compromise(&id, by));
            next.compromised = Some((id, by));
        }
        Order::Jump(by) => next.jump = Some((by, world.now)),
    }
    Some(next)
}

const LIFE: u64 = 2;

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
    let age = |at: u64| world.now.saturating_sub(at).min(9);
    // Of what the rotator has written down; its clock may have been ahead.
    let since = |at: u64| match world.wall().checked_sub(at) {
        Some(age) => format!("{}", age.min(9)),
        None => format!("-{}", (at - world.wall()).min(9)),
    };
    let name = |id: &str| world.current.id[1..].parse::<u64>().unwrap() - id[1..].parse::<u64>().unwrap();
    let left = world
        .compromised
        .as_ref()
        .map(|(id, by)| (id, by.saturating_sub(world.now)));
    let jump = world.jump.map(|(off, at)| (off, age(at)));
    let mut key = format!(
        "{started} {} {left:?} {jump:?} {} ",
        world.rolled_back,
        since(world.state.published)
    );
    for (id, stage) in &world.state.revisions {
        let released = stage.released.map(since);
        write!(
            key,
            "{id}{:?}{}{released:?}{} ",
            stage.phase,
            since(stage.since),
            stage.compromised.is_some()
        )
        .unwrap();
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
        // The rotator does what it has decided, or sleeps.
        let decision = world.decide(&policy, rules.reports);
        let is_over = world.compromised.as_ref().is_some_and(|(_, by)| *by <= world.now);
        let failure = match is_over {
            true => world.late(decision.step().is_none()),
            false => world.failure(),
        };
        if let Some(failure) = failure {
            return (seen.len(), ended, Some(failure));
        }
        let is_ordered = world.jump.is_some() || world.compromised.is_some() || world.rolled_back;
        if started
            && (is_ordered || rules.order.is_none())
            && world.is_settled()
            && world.members.iter().all(|member| member.made.len() < 2)
        {
            ended += 1;
            continue;
        }
        if second == rules.seconds {
            continue;
        }
        let mut worlds = vec![(world.clone(), started)];
        if let Some(order) = rules.order.filter(|_| !is_ordered) {
            worlds.extend(ordered(&world, order).map(|world| (world, true)));
        }
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
    order: None,
    seconds: 20,
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

#[test]
fn orders_and_clocks_that_jump_harm_nobody() {
    let waits = Rules {
        reports: false,
        loads_within: Some(2),
        ..CONFIRMED
    };
    for (what, order, rules) in [
        ("a roll-back", Order::RollBack, CONFIRMED),
        (
            "the primary is compromised",
            Order::Compromise(Phase::Primary, 6),
            CONFIRMED,
        ),
        ("at once", Order::Compromise(Phase::Primary, 0), CONFIRMED),
        ("what is staged", Order::Compromise(Phase::Staged, 3), CONFIRMED),
        ("what is retiring", Order::Compromise(Phase::Retiring, 3), CONFIRMED),
        ("a clock that jumps ahead", Order::Jump(1_000), waits),
        ("a clock that jumps back", Order::Jump(-5), waits),
        ("a clock that jumps ahead, with reports", Order::Jump(1_000), CONFIRMED),
    ] {
        let rules = Rules {
            order: Some(order),
            consumers: 2,
            seconds: 15,
            ..rules
        };
        let (moments, ended, failure) = explore(rules);
        println!("{what}: {moments} moments, {ended} rotations ended");
        assert_eq!(failure, None, "{what}");
        assert!(moments > 300 && ended > 10, "{what}: {moments} {ended}");
    }
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
