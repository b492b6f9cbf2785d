//! The one decision: what a directory needs next. Pure.

use keydir::RevisionId;

use crate::decision::{Decision, Reason, Step, Wait};
use crate::judge::Judge;
use crate::observed::{Now, Observed};
use crate::policy::Policy;
use crate::state::{Phase, State};

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

impl Judge<'_> {
    fn decide(&self) -> Decision {
        let marked: Vec<RevisionId> = self.all(Phase::Primary);
        let (staged, retiring) = (self.all(Phase::Staged), self.all(Phase::Retiring));
        let mut decision = Decision::nothing();
        match marked.as_slice() {
            _ if self.observed.state.as_ref() != Some(self.state) && !self.is_empty() => Decision::now(Step::Adopt),
            [] if self.is_empty() => self.make(Step::Begin),
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

    /// Nothing is there, or nothing but an intent.
    fn is_empty(&self) -> bool {
        self.observed.holding.revisions.is_empty()
    }

    /// What has to be done about revisions that somebody else may have, and that are not refused yet.
    fn compromised(&self, staged: Option<&RevisionId>) -> Option<Decision> {
        let all = self.state.revisions.iter();
        let known = all.filter_map(|(id, stage)| Some((id, stage.phase, stage.compromised?)));
        let decisions: Vec<Decision> = known
            .filter_map(|(id, phase, by)| match (phase, staged) {
                // Nothing was made with it.
                (Phase::Intended | Phase::Staged, _) => Some(Decision::now(Step::Revoke(id.clone()))),
                (Phase::Primary, None) => Some(self.make(Step::Stage)),
                (Phase::Primary, Some(next)) => {
                    Some(self.until(by, Step::Promote(next.clone()), self.may_promote(next)))
                }
                (Phase::Retiring, _) => Some(self.until(by, Step::Revoke(id.clone()), self.may_go(id))),
                (Phase::Revoked | Phase::Gone, _) => None,
            })
            .collect();
        let may = decisions.iter().find(|decision| decision.blocked.is_empty());
        may.or_else(|| decisions.first()).cloned()
    }

    fn rotation(&self, primary: &RevisionId, staged: Option<&RevisionId>, retiring: Option<&RevisionId>) -> Decision {
        if let Some((id, _)) = self.state.in_phase(Phase::Gone).next() {
            return Decision::now(Step::Destroy(id.clone()));
        }
        if let Some((id, _)) = self.state.in_phase(Phase::Revoked).next() {
            return self.with_deadline(Step::Retire(id.clone()), [self.accepted(id), self.kept(id)].concat());
        }
        if self.state.in_phase(Phase::Intended).next().is_some() {
            return self.make(Step::Stage);
        }
        if let Some(next) = staged {
            let decision = self.with_deadline(Step::Promote(next.clone()), self.may_promote(next));
            return self.in_window(decision);
        }
        if let Some(old) = retiring {
            let migrated = self.state.revisions.get(old).is_some_and(|stage| stage.migrated);
            if self.policy.migrates && !migrated {
                return self.with_deadline(Step::Migrate(old.clone()), self.adopted());
            }
            return self.in_window(self.with_deadline(Step::Retire(old.clone()), self.may_go(old)));
        }
        let life = self.end_of_life(primary);
        let is_urgent =
            self.state.requested || self.observed.links.renew || life.is_some_and(|end| end <= self.now.wall);
        if is_urgent {
            return self.make(Step::Stage);
        }
        let by_interval = self.policy.every.map(|every| self.state.settled.saturating_add(every));
        let decision = match [by_interval, life].into_iter().flatten().min() {
            Some(due) if due > self.now.wall => Decision {
                blocked: vec![Reason::Until(due, Wait::Due)],
                ..Decision::now(Step::Stage)
            },
            Some(_) => self.make(Step::Stage),
            None => return Decision::nothing(),
        };
        self.in_window(decision)
    }

    fn make(&self, step: Step) -> Decision {
        Decision {
            blocked: self.observed.links.make.clone(),
            ..Decision::now(step)
        }
    }

    fn may_promote(&self, next: &RevisionId) -> Vec<Reason> {
        [self.accepted(next), self.observed.links.promote.clone()].concat()
    }

    fn may_go(&self, old: &RevisionId) -> Vec<Reason> {
        [self.unused(old), self.kept(old)].concat()
    }

    fn kept(&self, old: &RevisionId) -> Vec<Reason> {
        self.observed.links.retire.get(old).cloned().unwrap_or_default()
    }

    /// When a certificate is to be renewed: at two thirds of its real life, some earlier so that many do not renew at
    /// once.
    fn end_of_life(&self, primary: &RevisionId) -> Option<u64> {
        let (from, until) = self.observed.life?;
        let life = until.saturating_sub(from);
        Some(from + life / 3 * 2 - spread(&self.state.publication, primary) % (life / 30 + 1))
    }

    fn in_window(&self, mut decision: Decision) -> Decision {
        let open = self.policy.windows.next(self.now.wall);
        if decision.next.is_some() && open > self.now.wall {
            decision.blocked.push(Reason::Until(open, Wait::Window));
        }
        decision
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
