//! Any sequence of picks, outcomes and times.

use std::sync::LazyLock;

use keydir::Dir;
use proptest::prelude::*;

use super::*;
use crate::credentials::Credentials;
use crate::view::Credential;

type Keys = Vec<Arc<Key<Credential>>>;

const REVISIONS: usize = 4;

/// The same for all cases: what is judged is what happens to them.
static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let files = (0..REVISIONS).map(|number| (format!("r{number}.password"), "canary of a property"));
    let first = std::iter::once(("r9.password.primary".to_owned(), "canary of a property too"));
    let credentials = Credentials::in_dir(&Dir::in_memory(files.chain(first))).unwrap();
    credentials.live().load().iter().take(REVISIONS).cloned().collect()
});

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Somebody wants a connection.
    Pick,
    /// An attempt that is under way ends so: it succeeds, or this is why it does not.
    End(usize, Option<Refused>),
    /// Whoever makes it is gone.
    BreakOff(usize),
    /// This one becomes the primary.
    Promote(usize),
    /// Time goes by.
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let outcome = prop_oneof![
        3 => Just(None),
        3 => Just(Some(Refused::Credential)),
        1 => Just(Some(Refused::Privilege)),
        1 => Just(Some(Refused::Rule)),
        1 => Just(Some(Refused::Other)),
        1 => Just(Some(Refused::Impostor)),
    ];
    let step = prop_oneof![
        6 => Just(Step::Pick),
        6 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Step::End(which, outcome)),
        1 => any::<usize>().prop_map(Step::BreakOff),
        1 => (0..REVISIONS).prop_map(Step::Promote),
        3 => prop_oneof![0..3_000_u64, 0..400_000_u64].prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 1..120)
}

/// An attempt under way; the second says whether it was begun as the only one.
type Attempt = (usize, bool);

struct World {
    tried: Tried<Credential>,
    usable: Keys,
    now: Instant,
    under_way: Vec<Attempt>,
    /// What was heard of each last, and when.
    said: [Option<(Option<Refused>, Instant)>; REVISIONS],
}

fn number(key: &Arc<Key<Credential>>) -> usize {
    KEYS.iter().position(|known| Arc::ptr_eq(known, key)).unwrap()
}

impl World {
    fn new() -> Self {
        Self {
            tried: Tried::default(),
            usable: KEYS.clone(),
            now: Instant::now(),
            under_way: Vec::new(),
            said: [None; REVISIONS],
        }
    }

    fn is_good(&self, number: usize) -> bool {
        matches!(self.said[number], Some((None, _)))
    }

    /// Refused less than the shortest rest ago.
    fn must_rest(&self, number: usize) -> bool {
        let refused = self.said[number].filter(|(outcome, _)| outcome.is_some());
        refused.is_some_and(|(_, at)| self.now < at + FIRST)
    }

    fn begin(&mut self, key: &Arc<Key<Credential>>) {
        let number = number(key);
        assert!(!self.under_way.contains(&(number, true)), "two try r{number}");
        assert!(!self.must_rest(number), "r{number} is not left alone");
        self.under_way.push((number, true));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Pick => self.pick(),
            Step::End(which, outcome) => self.end(which, Some(outcome)),
            Step::BreakOff(which) => self.end(which, None),
            Step::Promote(number) => {
                self.usable.retain(|key| !Arc::ptr_eq(key, &KEYS[number]));
                self.usable.insert(0, Arc::clone(&KEYS[number]));
            }
            Step::Pass(milliseconds) => self.now += Duration::from_millis(milliseconds),
        }
    }

    fn pick(&mut self) {
        let primary = number(&self.usable[0]);
        let some_good = (0..REVISIONS).any(|number| self.is_good(number));
        match self.tried.pick(&self.usable, true, self.now) {
            Pick::Use(key) => {
                let used = number(&key);
                assert!(self.is_good(used), "r{used} has not worked");
                assert!(
                    used == primary || !self.is_good(primary),
                    "a good primary is passed over"
                );
                self.under_way.push((used, false));
            }
            Pick::UseAndTry(key, new) => {
                assert!(self.is_good(number(&key)) && !self.is_good(primary) && number(&new) == primary);
                self.under_way.push((number(&key), false));
                self.begin(&new);
            }
            Pick::Try(key) => {
                assert!(!some_good, "what works is not used");
                self.begin(&key);
            }
            Pick::Wait => {
                assert!(!some_good, "what works is not used");
                assert!(self.under_way.iter().any(|(_, tries)| *tries), "nobody would wake it");
            }
            Pick::Resting(again) => {
                assert!(!some_good && again > self.now && again <= self.now + LIMIT);
                let all_refused = self.said.iter().all(|said| matches!(said, Some((Some(_), _))));
                assert!(all_refused, "there is one to be tried");
            }
        }
    }

    /// Without an outcome, nobody knows.
    fn end(&mut self, which: usize, outcome: Option<Option<Refused>>) {
        if self.under_way.is_empty() {
            return;
        }
        let (number, tries) = self.under_way.swap_remove(which % self.under_way.len());
        let key = &KEYS[number];
        match outcome {
            None => {}
            Some(None) => {
                self.tried.worked(key);
                self.said[number] = Some((None, self.now));
            }
            Some(Some(refused)) => {
                let counts = refused.may_fall_back();
                assert_eq!(self.tried.failed(key, refused, self.now), counts);
                if counts {
                    self.said[number] = Some((Some(refused), self.now));
                }
            }
        }
        if tries {
            self.tried.ended(key, self.now);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_rules_hold_whatever_happens(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        // Whatever has happened, a primary that works from now on is found, within the longest rest.
        let primary = number(&world.usable[0]);
        while !world.under_way.is_empty() {
            world.end(0, Some(Some(Refused::Other)));
        }
        for _ in 0..4 * REVISIONS {
            world.now += LIMIT;
            world.pick();
            while let Some((number, _)) = world.under_way.last().copied() {
                let outcome = (number != primary).then_some(Refused::Credential);
                world.end(world.under_way.len() - 1, Some(outcome));
            }
        }
        prop_assert!(world.is_good(primary));
    }
}

#[test]
fn rests_grow_to_a_limit() {
    for (refused, limit) in [
        (Refused::Credential, LIMIT),
        (Refused::Privilege, LIMIT),
        (Refused::Rule, RULE_LIMIT),
    ] {
        let mut tried = Tried::default();
        let usable = &KEYS[..1];
        let mut now = Instant::now();
        let mut expected = FIRST;
        for _ in 0..12 {
            assert!(matches!(tried.pick(usable, true, now), Pick::Try(_)));
            tried.failed(&usable[0], refused, now);
            tried.ended(&usable[0], now);
            assert!(matches!(tried.pick(usable, true, now), Pick::Resting(again) if again == now + expected));
            now += expected;
            expected = (expected * 2).min(limit);
        }
        assert_eq!(expected, limit);
        // Once it has worked, it begins anew.
        tried.worked(&usable[0]);
        tried.failed(&usable[0], refused, now);
        assert!(matches!(tried.pick(usable, true, now), Pick::Resting(again) if again == now + FIRST));
    }
}
