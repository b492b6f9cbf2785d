//! Directories, clocks and consumers in every situation that a decision knows.

use std::collections::{BTreeMap, BTreeSet};

use keydir::Files;

use super::*;
use crate::consumer::{Consumer, Said};
use crate::holding::Holding;
use crate::step::Set;

mod urgent;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
/// Monday, 23 November 2026, 00:00 UTC.
const BEGIN: u64 = 1_795_392_000;

fn policy() -> Policy {
    Policy {
        every: Some(30 * DAY),
        propagation: 120,
        overlap: HOUR,
        deadline: Some(DAY),
        fresh: 300,
        skew: 10,
        ..Policy::default()
    }
}

fn id(id: &str) -> RevisionId {
    id.parse().unwrap()
}

/// A directory and its clock.
struct Place {
    policy: Policy,
    files: Files,
    observed: Observed,
    now: Now,
    publications: u64,
}

impl Place {
    fn new() -> Self {
        Self {
            policy: policy(),
            files: Files::new(),
            observed: Observed::default(),
            now: Now {
                wall: BEGIN,
                since_jump: None,
            },
            publications: 0,
        }
    }

    /// With a primary that was made just now.
    fn begun() -> Self {
        let mut place = Self::new();
        assert_eq!(place.step(), Some(Step::Begin));
        place.does();
        place
    }

    /// With consumers that have adopted everything.
    fn with_consumers(mut self, names: &[&str]) -> Self {
        self.observed.consumers = names
            .iter()
            .map(|name| Consumer {
                name: (*name).to_owned(),
                said: None,
            })
            .collect();
        self.all_adopt();
        self
    }

    fn all_adopt(&mut self) {
        let state = self.observed.state.as_ref();
        let publication = state.map(|state| state.publication.clone());
        for consumer in &mut self.observed.consumers {
            consumer.said = Some(Said {
                checked: self.now.wall,
                publication: publication.clone(),
                ..Said::default()
            });
        }
    }

    fn all_look(&mut self) {
        let said = self
            .observed
            .consumers
            .iter_mut()
            .filter_map(|consumer| consumer.said.as_mut());
        said.for_each(|said| said.checked = self.now.wall);
    }

    fn decision(&self) -> Decision {
        decide(&self.policy, &self.observed, self.now)
    }

    fn step(&self) -> Option<Step> {
        self.decision().step().cloned()
    }

    fn blocked(&self) -> Vec<Reason> {
        self.decision().blocked
    }

    fn passes(&mut self, seconds: u64) {
        self.now.wall += seconds;
    }

    /// Changes the set, and publishes it.
    fn change(&mut self, change: impl FnOnce(&mut Set)) {
        let mut set = Set::new(self.files.clone(), self.observed.state.as_ref(), self.now.wall);
        change(&mut set);
        self.publications += 1;
        self.files = set.publish(format!("p{}", self.publications));
        self.observed.state = State::read(&self.files[".rotation.json"]).unwrap();
        self.observed.holding = Holding::of_names(self.files.keys().map(String::as_str));
    }

    /// Does what is decided; says what it was.
    fn does(&mut self) -> Step {
        let step = self.step().unwrap();
        self.change(|set| match &step {
            Step::Adopt => {}
            Step::Begin | Step::Stage => {
                let id = set.state().next_id().unwrap();
                set.stage(&id, vec![("key".to_owned(), id.as_str().into())]);
                if step == Step::Begin {
                    set.promote(&id);
                }
            }
            Step::Promote(id) => set.promote(id),
            Step::Release(id) => set.release(id),
            Step::Migrate(id) => set.migrated(id),
            Step::Retire(id) | Step::Destroy(id) => set.remove(id),
            Step::Revoke(id) => set.revoke(id),
            Step::Trust(_) => panic!("that is for anchors"),
        });
        step
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self
            .files
            .keys()
            .map(String::as_str)
            .filter(|name| *name != ".rotation.json")
            .collect();
        names.join(" ")
    }
}

#[test]
fn a_rotation_takes_its_steps() {
    let mut place = Place::begun().with_consumers(&["api"]);
    assert_eq!(place.names(), "r1.key.primary");
    assert_eq!(place.blocked(), [Reason::Until(BEGIN + 30 * DAY, Wait::Due)]);
    place.passes(30 * DAY);
    assert_eq!(place.does(), Step::Stage);
    assert_eq!(place.names(), "r1.key.primary r2.key");
    place.passes(120);
    place.all_look();
    assert_eq!(place.blocked(), [Reason::NotLoaded("api".into())]);
    place.all_adopt();
    assert_eq!(place.does(), Step::Promote(id("r2")));
    assert_eq!(place.names(), "r1.key r2.key.primary");
    place.passes(120 + HOUR);
    place.all_look();
    assert_eq!(place.blocked(), [Reason::NotLoaded("api".into())]);
    place.all_adopt();
    // It may have made something a moment ago.
    assert_eq!(place.does(), Step::Release(id("r1")));
    let released = place.now.wall;
    assert_eq!(place.blocked(), [Reason::Until(released + HOUR, Wait::Overlap)]);
    place.passes(HOUR);
    place.all_look();
    let said = place.observed.consumers[0].said.as_mut().unwrap();
    said.uses = BTreeMap::from([(id("r1"), 3), (id("r2"), 1)]);
    assert_eq!(place.blocked(), [Reason::Uses("api".into(), id("r1"), 3)]);
    place.all_adopt();
    assert_eq!(place.does(), Step::Retire(id("r1")));
    assert_eq!(place.names(), "r2.key.primary");
    // The interval counts from the end.
    let end = place.now.wall;
    assert_eq!(place.blocked(), [Reason::Until(end + 30 * DAY, Wait::Due)]);
    // No id is used twice.
    place.passes(30 * DAY);
    place.does();
    assert_eq!(place.names(), "r2.key.primary r3.key");
}

#[test]
fn each_step_waits_its_time_without_consumers() {
    let mut place = Place::begun();
    place.change(Set::request);
    assert_eq!(place.does(), Step::Stage);
    let staged = place.now.wall;
    place.passes(119);
    assert_eq!(place.blocked(), [Reason::Until(staged + 120, Wait::Propagation)]);
    place.passes(1);
    place.does();
    let promoted = place.now.wall;
    place.passes(120 + HOUR - 1);
    assert_eq!(place.blocked(), [Reason::Until(promoted + 120 + HOUR, Wait::Overlap)]);
    place.passes(1);
    assert_eq!(place.does(), Step::Retire(id("r1")));
}

#[test]
fn consumers_are_named_and_waited_for_until_the_deadline() {
    let mut place = Place::begun().with_consumers(&["a", "b", "c", "d"]);
    place.change(Set::request);
    place.does();
    place.passes(120);
    place.all_adopt();
    let consumers = &mut place.observed.consumers;
    consumers[0].said = None;
    consumers[1].said.as_mut().unwrap().checked -= 301;
    consumers[2].said.as_mut().unwrap().publication = None;
    consumers[3].said.as_mut().unwrap().not_adopted.insert("r1".into());
    let reasons = vec![
        Reason::Silent("a".into()),
        Reason::Stale("b".into(), 301),
        Reason::NotLoaded("c".into()),
        Reason::NotAdopted("d".into(), BTreeSet::from(["r1".to_owned()])),
    ];
    assert_eq!(place.blocked(), reasons);
    place.passes(DAY - 120);
    let decision = place.decision();
    assert_eq!(decision.step(), Some(&Step::Promote(id("r2"))));
    assert_eq!(decision.overdue.len(), 4);
    // Without a deadline, for ever.
    place.policy.deadline = None;
    assert_eq!(place.blocked().len(), 4);
}

#[test]
fn what_was_published_by_hand_counts() {
    // A directory that nobody has looked after: the only one is presented already, and gets the mark.
    let mut place = Place::new();
    place.files = [("r7.key".to_owned(), "7".into())].into();
    place.observed.holding = Holding::of_names(["r7.key"]);
    assert_eq!(place.does(), Step::Adopt);
    assert_eq!(place.does(), Step::Promote(id("r7")));
    assert_eq!(place.step(), None);

    // Somebody stages and promotes by hand: it goes on from there.
    place.files.insert("x.key.primary".into(), "x".into());
    let content = place.files.remove("r7.key.primary").unwrap();
    place.files.insert("r7.key".into(), content);
    place.observed.holding = Holding::of_names(place.files.keys().map(String::as_str));
    place.passes(DAY);
    assert_eq!(place.does(), Step::Adopt);
    let adopted = place.now.wall;
    assert_eq!(place.blocked(), [Reason::Until(adopted + 120 + HOUR, Wait::Overlap)]);
    place.passes(120 + HOUR);
    assert_eq!(place.does(), Step::Retire(id("r7")));

    // Two marks, or several without any: somebody has to say which.
    for names in [["a.key.primary", "b.key.primary"], ["a.key", "b.key"]] {
        let mut place = Place::new();
        place.files = names.map(|name| (name.to_owned(), "1".into())).into();
        place.change(|_| {});
        assert_eq!(place.blocked(), [Reason::Ambiguous(vec![id("a"), id("b")])]);
    }
}

#[test]
fn a_compromised_primary_is_replaced_as_soon_as_it_may_be() {
    let mut place = Place::begun().with_consumers(&["api"]);
    place.change(|set| {
        set.pause(Some("holidays".into()));
        set.compromise(&id("r1"), BEGIN + DAY);
    });
    assert_eq!(place.does(), Step::Stage, "no pause stops it");
    place.passes(120);
    place.all_adopt();
    assert_eq!(place.does(), Step::Promote(id("r2")));
    assert_eq!(place.step(), None);
    place.passes(120);
    place.all_adopt();
    assert_eq!(place.does(), Step::Release(id("r1")));
    place.passes(HOUR);
    place.all_look();
    assert_eq!(place.does(), Step::Revoke(id("r1")));
    assert_eq!(place.names(), "r1.key r1.revoked r2.key.primary");
    place.change(|set| set.pause(None));
    place.passes(120);
    place.all_adopt();
    assert_eq!(place.does(), Step::Retire(id("r1")));
    assert_eq!(place.names(), "r2.key.primary");
}

#[test]
fn a_compromised_revision_goes_at_its_time_whoever_is_silent() {
    let mut place = Place::begun().with_consumers(&["api"]);
    place.policy.deadline = None;
    place.change(|set| set.compromise(&id("r1"), BEGIN + 60));
    place.does();
    assert_eq!(place.step(), None);
    place.passes(60);
    let decision = place.decision();
    assert_eq!(decision.step(), Some(&Step::Promote(id("r2"))));
    assert!(decision.overdue.contains(&Reason::NotLoaded("api".into())));
    place.does();
    assert_eq!(place.does(), Step::Revoke(id("r1")));
}

#[test]
fn any_phase_can_be_compromised_and_a_third_is_staged() {
    // Staged: it goes at once, and a rotation may begin anew.
    let mut place = Place::begun();
    place.change(Set::request);
    place.does();
    place.change(|set| set.compromise(&id("r2"), BEGIN + DAY));
    assert_eq!(place.does(), Step::Revoke(id("r2")));
    assert_eq!(place.names(), "r1.key.primary r2.key r2.revoked");

    // The new primary, while the old one is retiring.
    let mut place = Place::begun();
    place.change(Set::request);
    place.does();
    place.passes(120);
    place.does();
    place.change(|set| set.compromise(&id("r2"), BEGIN + DAY));
    assert_eq!(place.does(), Step::Stage);
    assert_eq!(place.names(), "r1.key r2.key.primary r3.key");
    // And the retiring one too: each goes its way.
    let by = place.now.wall + HOUR;
    place.change(|set| set.compromise(&id("r1"), by));
    place.passes(120);
    assert_eq!(place.does(), Step::Promote(id("r3")));
    assert_eq!(place.step(), None);
    place.passes(HOUR);
    assert_eq!(place.does(), Step::Revoke(id("r1")));
    place.passes(DAY);
    assert_eq!(place.does(), Step::Revoke(id("r2")));
    place.passes(DAY);
    assert_eq!(place.does(), Step::Retire(id("r1")));
    assert_eq!(place.does(), Step::Retire(id("r2")));
    assert_eq!(place.names(), "r3.key.primary");
}

#[test]
fn a_roll_back_is_a_promotion() {
    let mut place = Place::begun();
    place.change(Set::request);
    place.does();
    place.passes(120);
    place.does();
    place.change(|set| set.promote(&id("r1")));
    assert_eq!(place.names(), "r1.key.primary r2.key");
    // What was made with it may be in use.
    assert_eq!(place.step(), None);
    place.passes(120 + HOUR);
    assert_eq!(place.does(), Step::Retire(id("r2")));
}

#[test]
fn clocks_that_jump_move_nothing_early() {
    let mut place = Place::begun();
    place.change(Set::request);
    place.does();
    // Forward: the wait is counted anew, by another clock.
    place.passes(100 * DAY);
    place.now.since_jump = Some(0);
    assert_eq!(place.blocked(), [Reason::ClockJumped(120)]);
    place.now.since_jump = Some(119);
    assert_eq!(place.blocked(), [Reason::ClockJumped(1)]);
    place.now.since_jump = Some(120);
    assert_eq!(place.step(), Some(Step::Promote(id("r2"))));
    // Backward: what was published lies ahead.
    place.now.wall = BEGIN - DAY;
    assert!(place.blocked().contains(&Reason::ClockBehind(DAY - 10)));
    place.change(|set| set.compromise(&id("r1"), 0));
    assert_eq!(
        place.step(),
        Some(Step::Promote(id("r2"))),
        "an emergency does not wait for a clock"
    );
}

#[test]
fn windows_and_pauses_hold_rotations_back() {
    let mut place = Place::begun();
    place.policy.windows = "Sun 02:00-04:00".parse().unwrap();
    place.passes(30 * DAY);
    // A Wednesday.
    let sunday = BEGIN + 34 * DAY + 2 * HOUR;
    assert_eq!(place.blocked(), [Reason::Until(sunday, Wait::Window)]);
    place.now.wall = sunday;
    assert_eq!(place.does(), Step::Stage);
    place.change(|set| set.pause(Some("release".into())));
    place.passes(HOUR);
    assert_eq!(place.blocked(), [Reason::Paused("release".into())]);
}

#[test]
fn certificates_are_renewed_at_two_thirds_of_their_life() {
    let mut place = Place::begun();
    place.policy.every = None;
    assert_eq!(place.decision(), Decision::nothing());
    place.observed.lives.insert(id("r1"), (BEGIN, BEGIN + 90 * DAY));
    let reasons = place.blocked();
    let [Reason::Until(due, Wait::Due)] = reasons.as_slice() else {
        panic!("{reasons:?}")
    };
    assert!((BEGIN + 57 * DAY..=BEGIN + 60 * DAY).contains(due));
    place.now.wall = *due;
    assert_eq!(place.step(), Some(Step::Stage));
}

#[test]
fn what_has_to_be_made_anew_comes_first() {
    let mut place = Place::begun();
    place.policy.migrates = true;
    place.change(Set::request);
    place.does();
    place.passes(120);
    place.does();
    assert_eq!(place.does(), Step::Migrate(id("r1")));
    place.passes(120 + HOUR);
    assert_eq!(place.does(), Step::Retire(id("r1")));
}

#[test]
fn an_intent_is_taken_up_again() {
    let mut place = Place::begun();
    place.change(|set| set.intend(&id("r2")));
    assert_eq!(place.step(), Some(Step::Stage));
    place.change(|set| set.compromise(&id("r2"), 0));
    assert_eq!(place.does(), Step::Revoke(id("r2")));
    assert_eq!(place.does(), Step::Destroy(id("r2")));
    assert_eq!(place.names(), "r1.key.primary");
    assert_eq!(place.observed.state.unwrap().revisions.len(), 1);
}
