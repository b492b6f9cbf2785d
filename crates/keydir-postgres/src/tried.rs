//! Which revision the next connection is made with, by what has come of those before: a revision that nobody has logged
//! in with is tried by one, and one that was refused is left alone for a while.

use std::sync::Arc;
use std::time::{Duration, Instant};

use keydir::Key;

use crate::refused::Refused;

/// A refused revision is left alone for so long at first, and twice as long each time after, up to the limit.
const FIRST: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(300);

/// What is known of the revisions. Pure: it is told the time and what has happened.
#[derive(Debug)]
pub(crate) struct Tried<T> {
    known: Vec<(Arc<Key<T>>, State)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    /// Somebody is trying it; what it was before.
    Trying {
        wait: Duration,
    },
    Good,
    Resting {
        until: Instant,
        wait: Duration,
    },
}

/// What to do for a new connection.
#[derive(Debug)]
pub(crate) enum Pick<T> {
    /// Log in with this one, which has worked.
    Use(Arc<Key<T>>),
    /// Log in with this one, which nobody knows yet, and tell what came of it. Nobody else tries it meanwhile.
    Try(Arc<Key<T>>),
    /// Log in with the first, which has worked; the second is to be tried beside it.
    UseAndTry(Arc<Key<T>>, Arc<Key<T>>),
    /// Somebody is trying the only one there is.
    Wait,
    /// All that could be tried was refused; again at this time.
    Resting(Instant),
}

impl<T> Default for Tried<T> {
    fn default() -> Self {
        Self { known: Vec::new() }
    }
}

impl<T> Tried<T> {
    /// `usable` are the revisions in force, the primary first, then in the order in which they are to be tried in its
    /// place. What is no longer among them is forgotten.
    pub(crate) fn pick(&mut self, usable: &[Arc<Key<T>>], now: Instant) -> Pick<T> {
        self.known.retain(|(key, state)| {
            matches!(state, State::Trying { .. }) || usable.iter().any(|own| Arc::ptr_eq(own, key))
        });
        let Some(primary) = usable.first() else {
            return Pick::Wait;
        };
        let good = usable.iter().skip(1).find(|key| self.state(key) == State::Good);
        match (self.state(primary), good) {
            (State::Good, _) => Pick::Use(Arc::clone(primary)),
            (state, Some(good)) if self.begin(primary, state, now) => {
                Pick::UseAndTry(Arc::clone(good), Arc::clone(primary))
            }
            (_, Some(good)) => Pick::Use(Arc::clone(good)),
            (state, None) if self.begin(primary, state, now) => Pick::Try(Arc::clone(primary)),
            (State::Resting { .. }, None) => self.another(usable, now),
            (_, None) => Pick::Wait,
        }
    }

    /// The one that may be tried in the primary's place.
    fn another(&mut self, usable: &[Arc<Key<T>>], now: Instant) -> Pick<T> {
        let mut again: Option<Instant> = None;
        for key in usable {
            match self.state(key) {
                state if self.begin(key, state, now) => return Pick::Try(Arc::clone(key)),
                State::Trying { .. } => return Pick::Wait,
                State::Resting { until, .. } => again = Some(again.map_or(until, |again| again.min(until))),
                State::New | State::Good => {}
            }
        }
        again.map_or(Pick::Wait, Pick::Resting)
    }

    /// After a refusal: the one other revision that this attempt may send.
    pub(crate) fn other(&mut self, usable: &[Arc<Key<T>>], refused: &Arc<Key<T>>, now: Instant) -> Option<Arc<Key<T>>> {
        let others = || usable.iter().filter(|key| !Arc::ptr_eq(key, refused));
        if let Some(good) = others().find(|key| self.state(key) == State::Good) {
            return Some(Arc::clone(good));
        }
        others().find(|key| self.begin(key, self.state(key), now)).cloned()
    }

    pub(crate) fn worked(&mut self, key: &Arc<Key<T>>) {
        self.set(key, State::Good);
    }

    /// Says whether it is left alone from now on.
    pub(crate) fn failed(&mut self, key: &Arc<Key<T>>, refused: Refused, now: Instant) -> bool {
        let before = self.state(key);
        if refused.backs_off() {
            let wait = match before {
                // Several were under way at once.
                State::Resting { until, .. } if until > now => return true,
                State::Trying { wait } | State::Resting { wait, .. } => (wait * 2).clamp(FIRST, LIMIT),
                State::New | State::Good => FIRST,
            };
            self.set(
                key,
                State::Resting {
                    until: now + wait,
                    wait,
                },
            );
            return true;
        }
        // It says nothing about the revision.
        if let State::Trying { wait } = before {
            let state = match wait.is_zero() {
                true => State::New,
                false => State::Resting { until: now, wait },
            };
            self.set(key, state);
        }
        false
    }

    fn state(&self, key: &Arc<Key<T>>) -> State {
        let known = self.known.iter().find(|(known, _)| Arc::ptr_eq(known, key));
        known.map_or(State::New, |(_, state)| *state)
    }

    fn set(&mut self, key: &Arc<Key<T>>, state: State) {
        match self.known.iter_mut().find(|(known, _)| Arc::ptr_eq(known, key)) {
            Some((_, known)) => *known = state,
            None => self.known.push((Arc::clone(key), state)),
        }
    }

    /// Begins to try a revision, if it is its time.
    fn begin(&mut self, key: &Arc<Key<T>>, state: State, now: Instant) -> bool {
        let wait = match state {
            State::New => Duration::ZERO,
            State::Resting { until, wait } if until <= now => wait,
            _ => return false,
        };
        self.set(key, State::Trying { wait });
        true
    }
}
