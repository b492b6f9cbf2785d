//! Every course of events of a CA, its anchors and its leaves, for few consumers.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use keydir::RevisionId;
use keydir_rotate::{Phase, Policy, Stage, Step};

use crate::mesh::{CA, Done, LEAF, LOADED, Loaded, Member, Mesh, Publication, TRUST};

/// What may happen.
#[derive(Clone, Copy)]
struct Rules {
    /// Whether each verifies, and whether it presents.
    consumers: &'static [[bool; 2]],
    /// What the policies believe: so long a publication takes to whoever begins anew.
    propagation: u64,
    /// And so long it really takes.
    lag: u64,
    /// A running consumer loads within so many seconds; at any time if it may take for ever.
    loads_within: Option<u64>,
    reports: bool,
    /// Each with one course more.
    order: Option<Order>,
    /// Both act on what was seen before the other did.
    two_rotators: bool,
    /// Of the anchors; the others wait for ever.
    deadline: Option<u64>,
    /// Longer courses are not followed.
    seconds: u64,
}

/// In which directory, and what.
type Steps = Vec<(usize, Step)>;

/// What somebody orders, at any moment.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    RollBack,
    /// The primary, or what is staged, within so many seconds.
    Compromise(Phase, u64),
}

/// A world, and what was ordered in it.
#[derive(Clone)]
struct Moment {
    mesh: Mesh,
    ordered: bool,
    compromised: Option<(RevisionId, u64)>,
}

impl Rules {
    /// Whatever is older than this is all the same.
    fn old(&self) -> u64 {
        self.loads_within.map_or(0, |within| within + 1).max(self.lag)
    }
}

const OVERLAP: u64 = 1;

fn policy(rules: Rules, place: usize) -> Policy {
    Policy {
        propagation: rules.propagation,
        overlap: if place == LEAF { OVERLAP } else { 0 },
        deadline: rules.deadline.filter(|_| place == TRUST),
        fresh: 10,
        ..Policy::default()
    }
}

impl Moment {
    /// What a world looks like from now on: ages, not times; and nobody knows the number of a publication.
    fn key(&self, rules: Rules) -> u64 {
        let members = self.mesh.members.iter();
        let members = members.map(|member| self.member_key(rules, member.does, member.loaded.as_ref()));
        with_members(self.places_key(rules), members.collect())
    }

    fn places_key(&self, rules: Rules) -> u64 {
        let mut key = DefaultHasher::new();
        self.ordered.hash(&mut key);
        let left = self
            .compromised
            .as_ref()
            .map(|(id, by)| (id, by.saturating_sub(self.mesh.now)));
        left.hash(&mut key);
        let issuing = self.mesh.state(CA).in_phase(Phase::Primary).next();
        let wait = rules.propagation.max(1);
        let anchors = &self.mesh.state(TRUST).revisions;
        let is_known = |(id, stage): (&RevisionId, &Stage)| {
            anchors.get(id).is_some_and(|anchor| anchor.since + wait <= stage.since)
        };
        issuing.is_some_and(is_known).hash(&mut key);
        for (number, place) in self.mesh.places.iter().enumerate() {
            place.current.content.hash(&mut key);
            let state = &place.current.state;
            state.requested.hash(&mut key);
            let waits = policy(rules, number);
            let (wait, deadline) = (waits.propagation + waits.overlap, waits.deadline.unwrap_or(0));
            let age = |at: u64, limit: u64| (self.mesh.now - at).min(limit);
            let published = if number == LEAF { waits.propagation } else { 0 };
            age(state.published, deadline.max(published)).hash(&mut key);
            for (id, stage) in &state.revisions {
                // How long it has been presented does not matter.
                let limit = if stage.phase == Phase::Primary { 0 } else { wait };
                (id, stage.phase, age(stage.since, limit), stage.compromised.is_some()).hash(&mut key);
            }
            let former = place
                .former
                .iter()
                .map(|(former, until)| (former.content, age(*until, rules.lag)));
            former
                .filter(|(_, age)| *age < rules.lag)
                .for_each(|former| former.hash(&mut key));
        }
        key.finish()
    }

    fn member_key(&self, rules: Rules, does: [bool; 2], loaded: Option<&Loaded>) -> u64 {
        let one = |which: usize, publication: &Arc<Publication>| {
            let place = &self.mesh.places[LOADED[which]];
            let former = place.former.iter().find(|(one, _)| Arc::ptr_eq(one, publication));
            let until = former.filter(|_| rules.loads_within.is_some());
            let until = until.map(|(_, until)| (self.mesh.now - until).min(rules.old()));
            (publication.content, Arc::ptr_eq(publication, &place.current), until)
        };
        let mut key = DefaultHasher::new();
        let loaded = loaded.map(|loaded| [0, 1].map(|which| Some(one(which, loaded[which].as_ref()?))));
        (does, loaded).hash(&mut key);
        key.finish()
    }

    /// What one consumer may have loaded a second later.
    fn fates(&self, rules: Rules, member: &Member) -> Vec<Option<Loaded>> {
        let both = |of: &dyn Fn(usize) -> Vec<Arc<Publication>>| {
            let [trusts, leaves] = [0, 1].map(|which| match member.does[which] {
                true => of(which).into_iter().map(Some).collect(),
                false => vec![None],
            });
            let pair = |trust: &Option<_>| {
                leaves
                    .iter()
                    .map(|leaf| Some([trust.clone(), leaf.clone()]))
                    .collect::<Vec<_>>()
            };
            trusts.iter().flat_map(pair).collect::<Vec<_>>()
        };
        let begins = |which: usize| self.mesh.within(LOADED[which], rules.lag);
        let goes_on = |which: usize| {
            let place = &self.mesh.places[LOADED[which]];
            let loaded = member
                .loaded
                .as_ref()
                .and_then(|loaded| loaded[which].as_ref())
                .unwrap();
            let former = place.former.iter().find(|(one, _)| Arc::ptr_eq(one, loaded));
            let must_load = former
                .zip(rules.loads_within)
                .is_some_and(|((_, until), within)| until + within <= self.mesh.now + 1);
            let stays = (!must_load).then(|| Arc::clone(loaded));
            stays.into_iter().chain([Arc::clone(&place.current)]).collect()
        };
        let mut fates = both(&begins);
        if member.loaded.is_some() {
            fates.extend(both(&goes_on));
        }
        fates.push(None);
        fates
    }

    /// A second passes, in every way that was not seen yet.
    fn pass(&self, rules: Rules, seen: &mut HashSet<u64>) -> Vec<Self> {
        let mut later = self.clone();
        later.mesh.now += 1;
        let forgotten = later.mesh.now.saturating_sub(rules.old() + rules.lag);
        for place in &mut later.mesh.places {
            place.former.retain(|(_, until)| *until > forgotten);
        }
        let places = later.places_key(rules);
        let mut courses = vec![(Vec::new(), Vec::new())];
        for member in &self.mesh.members {
            let fates = self.fates(rules, member).into_iter();
            let mut fates: Vec<_> = fates
                .map(|fate| (later.member_key(rules, member.does, fate.as_ref()), fate))
                .collect();
            fates.sort_by_key(|(key, _)| *key);
            fates.dedup_by_key(|(key, _)| *key);
            let longer = |(course, keys): &(Vec<_>, Vec<_>)| {
                let longer = fates.iter().map(|(key, fate)| {
                    let course = [course.as_slice(), std::slice::from_ref(fate)].concat();
                    (course, [keys.as_slice(), &[*key]].concat())
                });
                longer.collect::<Vec<_>>()
            };
            courses = courses.iter().flat_map(longer).collect();
        }
        courses.retain(|(_, keys)| seen.insert(with_members(places, keys.clone())));
        let next = |(course, _): (Vec<Option<Loaded>>, _)| {
            let mut next = later.clone();
            let members = next.mesh.members.iter_mut().zip(course);
            members.for_each(|(member, loaded)| member.loaded = loaded);
            next
        };
        courses.into_iter().map(next).collect()
    }

    /// What may be done now. Worlds that differ in nothing that a rotator sees are asked about once.
    fn steps<'a>(&self, rules: Rules, asked: &'a mut HashMap<u64, Steps>) -> &'a Steps {
        let adopts = |publication: &Arc<Publication>, place: usize| {
            let current = &self.mesh.places[place].current;
            u64::from(Arc::ptr_eq(publication, current))
        };
        let adopts = |which: usize, loaded: &Loaded| loaded[which].as_ref().map_or(0, |one| adopts(one, LOADED[which]));
        let sees = |member: &Member| match &member.loaded {
            Some(loaded) => 1 + adopts(0, loaded) + 2 * adopts(1, loaded),
            None => 0,
        };
        let members = self.mesh.members.iter().map(sees).collect();
        asked
            .entry(with_members(self.places_key(rules), members))
            .or_insert_with(|| {
                let policies = [CA, TRUST, LEAF].map(|place| policy(rules, place));
                let decisions = self.mesh.decisions(&policies, rules.reports);
                let places = [CA, TRUST, LEAF].into_iter();
                places
                    .filter_map(|place| Some((place, decisions[place].step()?.clone())))
                    .collect()
            })
    }

    /// What a rotator may do, or two of them that have seen the same.
    fn acts(&self, rules: Rules, steps: &Steps, done: &mut Done) -> Vec<Self> {
        let mut acts = Vec::new();
        for (number, (place, step)) in steps.iter().enumerate() {
            let mut next = self.clone();
            next.mesh.act(*place, step, done);
            let others = steps
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != number && rules.two_rotators);
            for (_, (place, step)) in others {
                let mut both = next.clone();
                both.mesh.act(*place, step, done);
                acts.push(both);
            }
            acts.push(next);
        }
        acts
    }

    fn orders(&self, rules: Rules) -> Option<Self> {
        let order = rules.order.filter(|_| !self.ordered)?;
        let mut next = self.clone();
        next.ordered = true;
        let one = |phase| Some(self.mesh.state(CA).in_phase(phase).next()?.0.clone());
        match order {
            Order::RollBack => {
                let id = one(Phase::Retiring)?;
                next.mesh.change(CA, |set| set.promote(&id));
            }
            Order::Compromise(phase, within) => {
                let id = one(phase)?;
                let by = self.mesh.now + within;
                next.mesh.change(CA, |set| set.compromise(&id, by));
                next.compromised = Some((id, by));
            }
        }
        Some(next)
    }

    /// Before its time nobody fails; after it, nobody is to accept what is compromised.
    fn failure(&self, is_quiet: bool) -> Option<String> {
        if self.mesh.places.iter().any(|place| place.current.number > 60) {
            return Some("the rotators never come to rest".to_owned());
        }
        let Some((id, by)) = self.compromised.as_ref().filter(|(_, by)| *by <= self.mesh.now) else {
            return self.mesh.failure();
        };
        let trust = &self.mesh.places[TRUST].current;
        let is_accepted = trust.accepted().any(|accepted| accepted == id);
        let primary = self.mesh.state(CA).in_phase(Phase::Primary).next().map(|(id, _)| id);
        let is_trusted = trust.accepted().any(|accepted| Some(accepted) == primary);
        if is_quiet && is_accepted {
            return Some(format!("{id} is still accepted, {} seconds late", self.mesh.now - by));
        }
        if trust.accepted().next().is_none() {
            return Some("nothing is trusted any more".to_owned());
        }
        (is_quiet && !is_trusted).then(|| "the CA issues, and is not trusted".to_owned())
    }
}

/// It does not matter who is who.
fn with_members(places: u64, mut members: Vec<u64>) -> u64 {
    let mut key = DefaultHasher::new();
    members.sort_unstable();
    (places, members).hash(&mut key);
    key.finish()
}

/// Follows every course of one rotation. How many different moments there are, how many rotations came to their end, and
/// the first failure.
fn explore(rules: Rules) -> (usize, usize, Option<String>) {
    let mut mesh = Mesh::new(rules.consumers);
    let begin = mesh.now;
    mesh.change(CA, keydir_rotate::Set::request);
    let first = Moment {
        mesh,
        ordered: false,
        compromised: None,
    };
    let mut seen = HashSet::from([first.key(rules)]);
    let mut open = VecDeque::from([first]);
    let (mut asked, mut done) = (HashMap::new(), Done::new());
    let mut ended = 0;
    while let Some(moment) = open.pop_front() {
        let steps = moment.steps(rules, &mut asked);
        let is_quiet = steps.is_empty();
        if let Some(failure) = moment.failure(is_quiet) {
            return (seen.len(), ended, Some(failure));
        }
        if is_quiet && moment.mesh.is_settled() && (moment.ordered || rules.order.is_none()) {
            ended += 1;
            continue;
        }
        let mut next = moment.acts(rules, steps, &mut done);
        next.extend(moment.orders(rules));
        next.retain(|moment| seen.insert(moment.key(rules)));
        open.extend(next);
        if moment.mesh.now - begin < rules.seconds {
            open.extend(moment.pass(rules, &mut seen));
        }
    }
    (seen.len(), ended, None)
}

/// All of them verify, and present.
const MANY: &[[bool; 2]] = &[[true, true]; 4];
/// Who only verifies, and who only presents.
const TWO: &[[bool; 2]] = &[[true, false], [false, true]];

const CONFIRMED: Rules = Rules {
    consumers: MANY,
    propagation: 2,
    lag: 2,
    loads_within: None,
    reports: true,
    order: None,
    two_rotators: true,
    deadline: None,
    seconds: 16,
};

#[track_caller]
fn holds(what: &str, rules: Rules) {
    let (moments, ended, failure) = explore(rules);
    println!("{what}: {moments} moments, {ended} ends");
    assert_eq!(failure, None, "{what}");
    assert!(moments > 300 && ended > 10, "{what}: {moments} {ended}");
}

#[test]
fn with_confirmation_every_leaf_is_accepted_by_whoever_meets_it() {
    holds("a rotation", CONFIRMED);
}

#[test]
fn waits_that_are_long_enough_do_without() {
    let rules = Rules {
        reports: false,
        loads_within: Some(2),
        ..CONFIRMED
    };
    holds("waits", rules);
}

#[test]
fn a_roll_back_at_any_time_harms_nobody() {
    let rules = Rules {
        order: Some(Order::RollBack),
        ..CONFIRMED
    };
    holds("a roll-back", rules);
}

#[test]
fn a_deadline_of_the_anchors_is_none_of_the_leaves() {
    // Nobody is waited for so short that a deadline of three seconds would matter.
    let rules = Rules {
        deadline: Some(3),
        loads_within: Some(3),
        ..CONFIRMED
    };
    holds("deadlines", rules);
}

#[test]
fn a_ca_that_is_compromised_harms_nobody_before_its_time_and_is_accepted_by_nobody_after() {
    for (phase, within) in [
        (Phase::Primary, 4),
        (Phase::Primary, 0),
        (Phase::Staged, 2),
        (Phase::Retiring, 3),
    ] {
        let rules = Rules {
            order: Some(Order::Compromise(phase, within)),
            consumers: TWO,
            ..CONFIRMED
        };
        holds(&format!("{phase:?} compromised, {within} seconds"), rules);
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
            "a new consumer begins with something older than the policies believe",
            Rules { lag: 4, ..CONFIRMED },
        ),
    ] {
        let (_, _, failure) = explore(rules);
        let failure = failure.unwrap_or_else(|| panic!("{what}: it was not found"));
        println!("{what}: {failure}");
    }
}
