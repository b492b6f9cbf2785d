//! The rules of the book, one by one and for any sequence.

use proptest::prelude::*;

use super::*;

fn print(name: &str) -> Fingerprint {
    Fingerprint::of(name.as_bytes())
}

/// A book with the time at which it is asked, and credentials by name.
struct Played {
    book: Book,
    now: Instant,
}

impl Played {
    fn new() -> Self {
        Self {
            book: Book::default(),
            now: Instant::now(),
        }
    }

    fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    fn turn(&self, primary: &str, others: &[&str]) -> Turn {
        let others: Vec<_> = others.iter().copied().map(print).collect();
        self.book.turn(self.now, print(primary), &others)
    }

    fn attempt(&self, name: &str, probe: bool) -> Attempt {
        Attempt {
            credential: print(name),
            sent: self.now,
            probe,
        }
    }

    fn accept(&mut self, name: &str) -> bool {
        self.book.accepted(self.now, self.attempt(name, false))
    }

    fn refuse(&mut self, name: &str) -> Option<u64> {
        self.answer_refused(self.attempt(name, false))
    }

    fn answer_refused(&mut self, attempt: Attempt) -> Option<u64> {
        self.book.refused(self.now, attempt).map(|pause| pause.as_secs())
    }

    fn probe(&mut self, name: &str) -> Attempt {
        self.book.claim(self.now, print(name));
        self.attempt(name, true)
    }
}

#[test]
fn it_is_the_primary_as_long_as_nothing_speaks_against_it() {
    let mut played = Played::new();
    assert_eq!(played.turn("new", &["old"]), Turn::Primary, "nothing is known");
    assert!(played.accept("new"));
    assert_eq!(played.turn("new", &["old"]), Turn::Primary);
    assert!(!played.accept("new"), "that is nothing new");
    assert_eq!(played.turn("new", &[]), Turn::Primary);
}

#[test]
fn a_refused_primary_is_left_alone_and_probed_once_a_step() {
    let mut played = Played::new();
    assert_eq!(played.refuse("new"), Some(1));
    assert_eq!(played.turn("new", &["old"]), Turn::Other(print("old")));
    for pause in [2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        while played.turn("new", &["old"]) != Turn::Probe {
            assert_eq!(played.turn("new", &["old"]), Turn::Other(print("old")));
            played.wait(500);
        }
        let probe = played.probe("new");
        assert_eq!(played.turn("new", &["old"]), Turn::Other(print("old")), "one is enough");
        played.wait(100);
        assert_eq!(played.answer_refused(probe), Some(pause));
    }
    played.wait(300_000);
    let probe = played.probe("new");
    assert!(played.book.accepted(played.now, probe));
    assert_eq!(played.turn("new", &["old"]), Turn::Primary);
    assert_eq!(played.refuse("new"), Some(1), "the next time begins anew");
}

#[test]
fn a_new_primary_is_tried_by_one_while_another_is_accepted() {
    let mut played = Played::new();
    played.accept("old");
    assert_eq!(played.turn("new", &["old"]), Turn::Probe);
    let lost = played.probe("new");
    assert_eq!(played.turn("new", &["old"]), Turn::Other(print("old")));
    played.wait(1_000);
    assert_eq!(
        played.turn("new", &["old"]),
        Turn::Probe,
        "nothing was heard of the first"
    );
    let probe = played.probe("new");
    assert_eq!(
        played.answer_refused(lost),
        None,
        "it was sent before the second, which will tell"
    );
    assert_eq!(played.answer_refused(probe), Some(1));
    assert_eq!(played.turn("new", &[]), Turn::Primary, "the other is gone");
}

#[test]
fn what_was_sent_before_the_last_verdict_says_nothing_more() {
    let mut played = Played::new();
    let early = played.attempt("new", false);
    played.wait(1);
    played.accept("new");
    assert_eq!(played.answer_refused(early), None);
    let early = played.attempt("new", false);
    played.wait(1);
    assert_eq!(played.refuse("new"), Some(1));
    assert_eq!(played.answer_refused(early), None, "one of many that were under way");
    assert!(!played.book.accepted(played.now, early));
    assert_eq!(played.turn("new", &["old"]), Turn::Other(print("old")));
}

#[test]
fn with_nothing_else_the_primary_is_presented_and_a_step_counts_one_refusal() {
    let mut played = Played::new();
    assert_eq!(played.refuse("new"), Some(1));
    played.wait(10);
    assert_eq!(played.turn("new", &[]), Turn::Primary);
    assert_eq!(played.refuse("new"), None);
    assert_eq!(played.refuse("old"), Some(1));
    assert_eq!(played.turn("new", &["old"]), Turn::Primary, "both are left alone");
    assert_eq!(played.turn("new", &["old", "oldest"]), Turn::Other(print("oldest")));
    played.wait(1_000);
    assert_eq!(played.refuse("new"), Some(2));
}

#[test]
fn the_other_is_one_that_is_accepted_or_else_the_first() {
    let mut played = Played::new();
    let other = |played: &Played, others: &[&str]| {
        let others: Vec<_> = others.iter().copied().map(print).collect();
        played.book.other(played.now, &others)
    };
    assert_eq!(other(&played, &["r3", "r1"]), Some(print("r3")));
    played.accept("r1");
    assert_eq!(other(&played, &["r3", "r1"]), Some(print("r1")));
    played.refuse("r1");
    played.refuse("r3");
    assert_eq!(other(&played, &["r3", "r1"]), None);
    played.wait(1_000);
    assert_eq!(other(&played, &["r3", "r1"]), Some(print("r3")));
}

#[test]
fn the_oldest_verdicts_are_forgotten() {
    let mut played = Played::new();
    for number in 0..=MOST {
        played.accept(&number.to_string());
    }
    assert_eq!(played.book.verdicts.len(), MOST);
    assert!(!played.book.accepts(print("0")) && played.book.accepts(print("1")));
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Send,
    Answer(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..1_500_u64).prop_map(Step::Wait),
        Just(Step::Send),
        (0..8_usize).prop_map(Step::Answer),
    ]
}

proptest! {
    /// The old one is accepted and the new one refused, whatever the order in which answers come.
    #[test]
    fn a_bad_rotation_costs_at_most_one_refusal_a_step(steps in prop::collection::vec(step(), 0..200)) {
        let mut played = Played::new();
        played.accept("old");
        let mut under_way = Vec::new();
        let mut earliest = played.now;
        for step in steps {
            match step {
                Step::Wait(millis) => played.wait(millis),
                Step::Send => {
                    let attempt = match played.turn("new", &["old"]) {
                        Turn::Other(other) => {
                            prop_assert_eq!(other, print("old"));
                            played.attempt("old", false)
                        }
                        Turn::Probe => {
                            prop_assert!(played.now >= earliest, "too early");
                            earliest = played.now + FIRST;
                            played.probe("new")
                        }
                        Turn::Primary => return Err(TestCaseError::fail("nobody knows that it is accepted")),
                    };
                    under_way.push(attempt);
                }
                Step::Answer(index) if index < under_way.len() => {
                    let attempt = under_way.swap_remove(index);
                    if attempt.credential == print("old") {
                        played.book.accepted(played.now, attempt);
                    } else if let Some(pause) = played.book.refused(played.now, attempt) {
                        earliest = played.now + pause;
                    }
                }
                Step::Answer(_) => {}
            }
        }
    }
}
