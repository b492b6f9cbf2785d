//! Which revision the next connection is made with, by what has come of those before: a revision that nobody has logged
//! in with is tried by one, and one that was refused is left alone for a while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keydir::Key;

use crate::refused::Refused;

/// A refused revision is left alone for so long at first, and twice as long each time after, up to a limit.
const FIRST: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(300);
/// Where `pg_hba.conf` refuses it: nothing is wrong with the revision, and no password was asked for.
const RULE_LIMIT: Duration = Duration::from_secs(10);
/// Where a try has said nothing about the revision: each costs a pool the place of a session.
const TROUBLE_LIMIT: Duration = Duration::from_secs(60);

/// What is known of the revisions. Pure: it is told the time and what has happened.
#[derive(Debug)]
pub(crate) struct Tried<T> {
    /// By the address of its key, which each keeps alive.
    known: BTreeMap<usize, Known<T>>,
}

#[derive(Debug)]
struct Known<T> {
    key: Arc<Key<T>>,
    standing: Standing,
    /// Somebody is trying it.
    trying: bool,
    until: Option<Instant>,
    wait: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    New,
    Good,
    Refused,
}

/// What to do for a new connection.
#[derive(Debug)]
pub(crate) enum Pick<T> {
    /// Log in with this one, which has worked.
    Use(Arc<Key<T>>),
    /// Log in with this one, which nobody knows yet, and tell when that [has ended](Tried::ended). Nobody else tries it
    /// meanwhile.
    Try(Arc<Key<T>>),
    /// Log in with the first, which has worked; the second is to be tried beside it.
    UseAndTry(Arc<Key<T>>, Arc<Key<T>>),
    /// Somebody is trying the one that comes next.
    Wait,
    /// All were refused; again at this time.
    Resting(Instant),
}

/// What to do about a revision beside a connection that is there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// It has worked, or somebody is trying it.
    Nothing,
    /// To be tried by whoever [begins](Tried::begin).
    Try,
    Later(Instant),
}

impl Beside {
    /// When to come back, if not now.
    pub(crate) fn later(self) -> Option<Instant> {
        match self {
            Self::Later(later) => Some(later),
            Self::Nothing | Self::Try => None,
        }
    }
}

impl<T> Default for Tried<T> {
    fn default() -> Self {
        Self { known: BTreeMap::new() }
    }
}

impl<T> Tried<T> {
    /// `usable` are the revisions in force, the primary first, then in the order in which they are to be tried in its
    /// place. What is no longer among them is forgotten. `beside` says whether a new primary may be tried beside another
    /// that works.
    pub(crate) fn pick(&mut self, usable: &[Arc<Key<T>>], beside: bool, now: Instant) -> Pick<T> {
        self.known
            .retain(|_, known| known.trying || usable.iter().any(|key| Arc::ptr_eq(key, &known.key)));
        let good = usable.iter().find(|key| self.is_good(key)).cloned();
        match (good, usable.first()) {
            (Some(good), Some(primary)) if beside && !Arc::ptr_eq(&good, primary) && self.begin(primary, now) => {
                Pick::UseAndTry(good, Arc::clone(primary))
            }
            (Some(good), _) => Pick::Use(good),
            (None, _) => self.first_that_may(usable, now),
        }
    }

    fn first_that_may(&mut self, usable: &[Arc<Key<T>>], now: Instant) -> Pick<T> {
        let mut again: Option<Instant> = None;
        for key in usable {
            let known = self.known(key);
            if known.trying {
                return Pick::Wait;
            }
            match known.until {
                // A pause after trouble that was not the revision's is for those who have another.
                Some(until) if known.standing == Standing::Refused && until > now => {
                    again = Some(again.map_or(until, |again| again.min(until)));
                }
                _ => {
                    known.trying = true;
                    return Pick::Try(Arc::clone(key));
                }
            }
        }
        again.map_or(Pick::Wait, Pick::Resting)
    }

    pub(crate) fn worked(&mut self, key: &Arc<Key<T>>) {
        let known = self.known(key);
        known.standing = Standing::Good;
        known.until = None;
        known.wait = Duration::ZERO;
    }

    /// Says whether it is left alone from now on.
    pub(crate) fn failed(&mut self, key: &Arc<Key<T>>, refused: Refused, now: Instant) -> bool {
        let limit = match refused {
            Refused::Credential | Refused::Privilege => LIMIT,
            Refused::Rule => RULE_LIMIT,
            Refused::Impostor | Refused::Other => return false,
        };
        let known = self.known(key);
        let rests = known.until.filter(|until| *until > now);
        known.until = Some(match (known.standing, rests) {
            // Several were under way at once, which is one refusal.
            (Standing::Refused, Some(until)) => until.max(now + FIRST),
            _ => {
                known.wait = (known.wait * 2).clamp(FIRST, limit);
                now + known.wait
            }
        });
        known.standing = Standing::Refused;
        true
    }

    /// Whoever tried it is done. If that has said nothing about the revision, it is not tried beside another at once.
    pub(crate) fn ended(&mut self, key: &Arc<Key<T>>, now: Instant) {
        let known = self.known(key);
        known.trying = false;
        if known.standing != Standing::Good && known.until.is_none_or(|until| until <= now) {
            known.wait = (known.wait * 2).clamp(FIRST, TROUBLE_LIMIT);
            known.until = Some(now + known.wait);
        }
    }

    /// What is to be done about this one by whoever has another.
    pub(crate) fn beside(&self, key: &Arc<Key<T>>, now: Instant) -> Beside {
        match self.known.get(&address(key)) {
            Some(known) if known.trying || known.standing == Standing::Good => Beside::Nothing,
            Some(Known { until: Some(until), .. }) if *until > now => Beside::Later(*until),
            _ => Beside::Try,
        }
    }

    pub(crate) fn is_good(&self, key: &Arc<Key<T>>) -> bool {
        let known = self.known.get(&address(key));
        known.is_some_and(|known| known.standing == Standing::Good)
    }

    /// Begins to try a revision, as by [`Pick::Try`], if it is to be tried.
    pub(crate) fn begin(&mut self, key: &Arc<Key<T>>, now: Instant) -> bool {
        let may = self.beside(key, now) == Beside::Try;
        self.known(key).trying |= may;
        may
    }

    fn known(&mut self, key: &Arc<Key<T>>) -> &mut Known<T> {
        self.known.entry(address(key)).or_insert_with(|| Known {
            key: Arc::clone(key),
            standing: Standing::New,
            trying: false,
            until: None,
            wait: Duration::ZERO,
        })
    }
}

fn address<T>(key: &Arc<Key<T>>) -> usize {
    Arc::as_ptr(key).addr()
}

#[cfg(test)]
mod tests;
