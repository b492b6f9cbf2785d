//! The one decision: what a directory needs next. Pure.

use std::collections::BTreeSet;

use keydir::RevisionId;

use crate::consumer::Consumer;
use crate::holding::Holding;
use crate::policy::Policy;
use crate::state::{Phase, State};

/// What is known of a directory at one moment.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// What lies in it.
    pub holding: Holding,
    /// What is remembered; `None` if nobody has looked after it yet.
    pub state: Option<State>,
    /// Its consumers. If there are none, the waits alone decide.
    pub consumers: Vec<Consumer>,
    /// The life of the primary, where it has one: from, until.
    pub life: Option<(u64, u64)>,
    /// Somebody wants it to rotate now.
    pub requested: bool,
}

/// The time.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// In seconds since 1970.
    pub wall: u64,
    /// If the clock was seen to jump: how many seconds have passed since then, by a clock that does not. Waits have to last
    /// so long too.
    pub since_jump: Option<u64>,
}

/// What a directory needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is next, if anything is.
    pub next: Option<Step>,
    /// Why not now; if there are none, now.
    pub blocked: Vec<Reason>,
    /// Consumers that are waited for no longer.
    pub overdue: Vec<Reason>,
}

/// One change: one publication.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// To write down what is there.
    Adopt,
    /// To make the first revision, which is presented at once: nobody uses anything yet.
    Begin,
    /// To add the next revision.
    Stage,
    /// To move the mark to this one.
    Promote(RevisionId),
    /// To make anew what was made with this one.
    Migrate(RevisionId),
    /// To take this one away, of which nothing is in use.
    Retire(RevisionId),
    /// To have this one refused.
    Revoke(RevisionId),
}

/// Why something has to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Until then, in seconds since 1970.
    Until(u64, Wait),
    /// The clock has jumped, so that time is counted anew: so many seconds more.
    ClockJumped(u64),
    /// The clock is behind what was published, by so many seconds.
    ClockBehind(u64),
    /// Somebody has paused the directory, and says why.
    Paused(String),
    /// Several revisions bear the mark, or several do not and none does.
    Ambiguous(Vec<RevisionId>),
    /// This consumer says nothing.
    Silent(String),
    /// This consumer has not looked for so many seconds.
    Stale(String, u64),
    /// This consumer has not loaded the publication.
    NotLoaded(String),
    /// This consumer goes on with something else, or has set something aside.
    NotAdopted(String, BTreeSet<String>),
    /// So much rests on a revision at this consumer.
    Uses(String, RevisionId, u64),
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// That it is time for the next rotation.
    Due,
    /// That a window opens.
    Window,
    /// That all who run have loaded the publication.
    Propagation,
    /// That what was made with the old revision is over.
    Overlap,
}

/// What the directory needs next, and why it has to wait if it has to.
pub fn decide(policy: &Policy, observed: &Observed, now: Now) -> Decision {
    let state = State::of(&observed.holding, observed.state.as_ref(), now.wall);
    let judge = Judge {
        policy,
        observed,
        state: &state,
        now,
    };
    judge.decide()
}

struct Judge<'a> {
    policy: &'a Policy,
    observed: &'a Observed,
    state: &'a State,
    now: Now,
}

impl Judge<'_> {
    fn decide(&self) -> Decision {
        let marked: Vec<RevisionId> = self.all(Phase::Primary);
        let (staged, retiring) = (self.all(Phase::Staged), self.all(Phase::Retiring));
        let mut decision = Decision::nothing();
        match marked.as_slice() {
            _ if self.observed.state.as_ref() != Some(self.state) && !self.is_empty() => Decision::now(Step::Adopt),
            [] if self.is_empty() => Decision::now(Step::Begin),
            // The only one there is: whoever has never seen a mark presents it already.
            [] => match (staged.as_slice(), retiring.as_slice()) {
                ([only], []) => Decision::now(Step::Promote(only.clone())),
                _ => Decision {
                    blocked: vec![Reason::Ambiguous([staged, retiring].concat())],
                    ..decision
                },
            },
            [primary] => {
                // No pause, no window and no clock stops this.
                if let Some(decision) = self.compromised(staged.first()) {
                    return decision;
                }
                decision = self.rotation(primary, staged.first(), retiring.first());
                if decision.next.is_some() {
                    let paused = self.state.paused.clone().map(Reason::Paused);
                    decision
                        .blocked
                        .splice(0..0, paused.into_iter().chain(self.clock_behind()));
                }
                decision
            }
            _ => Decision {
                blocked: vec![Reason::Ambiguous(marked)],
                ..decision
            },
        }
    }

    fn all(&self, phase: Phase) -> Vec<RevisionId> {
        self.state.in_phase(phase).map(|(id, _)| id.clone()).collect()
    }

    fn is_empty(&self) -> bool {
        self.state.revisions.is_empty()
    }

    /// What has to be done about revisions that somebody else may have, and that are not refused yet.
    fn compromised(&self, staged: Option<&RevisionId>) -> Option<Decision> {
        let all = self.state.revisions.iter();
        let known = all.filter_map(|(id, stage)| Some((id, stage.phase, stage.compromised?)));
        let decisions: Vec<Decision> = known
            .filter_map(|(id, phase, by)| match (phase, staged) {
                // Nothing was made with it.
                (Phase::Intended | Phase::Staged, _) => Some(Decision::now(Step::Revoke(id.clone()))),
                (Phase::Primary, None) => Some(Decision::now(Step::Stage)),
                (Phase::Primary, Some(next)) => Some(self.until(by, Step::Promote(next.clone()), self.accepted(next))),
                (Phase::Retiring, _) => Some(self.until(by, Step::Revoke(id.clone()), self.unused(id))),
                (Phase::Revoked, _) => None,
            })
            .collect();
        let may = decisions.iter().find(|decision| decision.blocked.is_empty());
        may.or_else(|| decisions.first()).cloned()
    }

    fn clock_behind(&self) -> Option<Reason> {
        let ahead = self
            .state
            .published
            .saturating_sub(self.now.wall.saturating_add(self.policy.skew));
        (ahead > 0).then_some(Reason::ClockBehind(ahead))
    }

    fn rotation(&self, primary: &RevisionId, staged: Option<&RevisionId>, retiring: Option<&RevisionId>) -> Decision {
        if let Some((id, _)) = self.state.in_phase(Phase::Revoked).next() {
            return self.with_deadline(Step::Retire(id.clone()), self.accepted(id));
        }
        if self.state.in_phase(Phase::Intended).next().is_some() {
            return Decision::now(Step::Stage);
        }
        if let Some(next) = staged {
            let decision = self.with_deadline(Step::Promote(next.clone()), self.accepted(next));
            return self.in_window(decision);
        }
        if let Some(old) = retiring {
            let migrated = self.state.revisions.get(old).is_some_and(|stage| stage.migrated);
            if self.policy.migrates && !migrated {
                return self.with_deadline(Step::Migrate(old.clone()), self.adopted());
            }
            return self.in_window(self.with_deadline(Step::Retire(old.clone()), self.unused(old)));
        }
        let due = self.due(primary);
        if self.observed.requested {
            return Decision::now(Step::Stage);
        }
        let Some(due) = due else { return Decision::nothing() };
        let mut decision = Decision::now(Step::Stage);
        if due > self.now.wall {
            decision.blocked.push(Reason::Until(due, Wait::Due));
        }
        self.in_window(decision)
    }

    /// When the next rotation is due.
    fn due(&self, primary: &RevisionId) -> Option<u64> {
        let by_interval = self.policy.every.map(|every| self.state.settled.saturating_add(every));
        // At two thirds of its real life, some earlier so that many do not renew at once.
        let by_life = self.observed.life.map(|(from, until)| {
            let life = until.saturating_sub(from);
            from + life / 3 * 2 - spread(&self.state.publication, primary) % (life / 30 + 1)
        });
        [by_interval, by_life].into_iter().flatten().min()
    }

    /// A step that waits for these reasons, but not beyond this time.
    fn until(&self, by: u64, step: Step, reasons: Vec<Reason>) -> Decision {
        let is_over = self.now.wall >= by;
        let (overdue, blocked) = reasons.into_iter().partition(|_| is_over);
        Decision {
            next: Some(step),
            blocked,
            overdue,
        }
    }

    /// A step that waits for consumers as long as the policy says, and for all else.
    fn with_deadline(&self, step: Step, reasons: Vec<Reason>) -> Decision {
        let deadline = self.policy.deadline;
        let is_over = deadline.is_some_and(|deadline| {
            self.waited(self.state.published, deadline, Wait::Propagation)
                .is_empty()
        });
        let (overdue, blocked) = reasons
            .into_iter()
            .partition(|reason| is_over && reason.is_of_consumer());
        Decision {
            next: Some(step),
            blocked,
            overdue,
        }
    }

    fn in_window(&self, mut decision: Decision) -> Decision {
        let open = self.policy.windows.next(self.now.wall);
        if decision.next.is_some() && open > self.now.wall {
            decision.blocked.push(Reason::Until(open, Wait::Window));
        }
        decision
    }

    /// Why not everybody knows yet of the phase that a revision is in.
    fn accepted(&self, id: &RevisionId) -> Vec<Reason> {
        let since = self.since(id);
        [
            self.waited(since, self.policy.propagation, Wait::Propagation),
            self.adopted(),
        ]
        .concat()
    }

    /// Whether nobody uses a retiring revision: everybody presents with another, and what was made before is over.
    fn unused(&self, old: &RevisionId) -> Vec<Reason> {
        let since = self.since(old);
        let wait = self.policy.propagation.saturating_add(self.policy.overlap);
        let uses = |consumer: &Consumer| {
            let uses = *consumer.said.as_ref()?.uses.get(old)?;
            (uses > 0).then(|| Reason::Uses(consumer.name.clone(), old.clone(), uses))
        };
        let used = self.observed.consumers.iter().filter_map(uses).collect();
        [self.waited(since, wait, Wait::Overlap), self.adopted(), used].concat()
    }

    fn since(&self, id: &RevisionId) -> u64 {
        self.state.revisions.get(id).map_or(self.now.wall, |stage| stage.since)
    }

    /// A wait is over when the clock says so, and also if it was seen to jump.
    fn waited(&self, since: u64, wait: u64, what: Wait) -> Vec<Reason> {
        let until = since.saturating_add(wait);
        let left = self
            .now
            .since_jump
            .and_then(|passed| wait.checked_sub(passed))
            .filter(|left| *left > 0);
        match left {
            _ if until > self.now.wall => vec![Reason::Until(until, what)],
            Some(left) => vec![Reason::ClockJumped(left)],
            None => Vec::new(),
        }
    }

    /// Why not every consumer has adopted what is published now.
    fn adopted(&self) -> Vec<Reason> {
        let why_not = |consumer: &Consumer| {
            let name = || consumer.name.clone();
            let Some(said) = &consumer.said else {
                return Some(Reason::Silent(name()));
            };
            let age = self.now.wall.saturating_sub(said.checked);
            if age > self.policy.fresh {
                Some(Reason::Stale(name(), age))
            } else if said.publication.as_deref() != Some(&*self.state.publication) {
                Some(Reason::NotLoaded(name()))
            } else if !said.not_adopted.is_empty() {
                Some(Reason::NotAdopted(name(), said.not_adopted.clone()))
            } else {
                None
            }
        };
        self.observed.consumers.iter().filter_map(why_not).collect()
    }
}

impl Decision {
    fn nothing() -> Self {
        Self {
            next: None,
            blocked: Vec::new(),
            overdue: Vec::new(),
        }
    }

    fn now(step: Step) -> Self {
        Self {
            next: Some(step),
            ..Self::nothing()
        }
    }

    /// What is to be done now.
    pub fn step(&self) -> Option<&Step> {
        self.next.as_ref().filter(|_| self.blocked.is_empty())
    }
}

impl Reason {
    fn is_of_consumer(&self) -> bool {
        matches!(
            self,
            Self::Silent(_) | Self::Stale(..) | Self::NotLoaded(_) | Self::NotAdopted(..) | Self::Uses(..)
        )
    }
}

/// Any number, another for each publication.
fn spread(publication: &str, id: &RevisionId) -> u64 {
    let bytes = publication.bytes().chain(id.as_str().bytes());
    // FNV-1a.
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
