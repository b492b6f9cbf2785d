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
        if self.observed.state.as_ref() != Some(self.state) && !self.is_empty() {
            return Decision::now(Step::Adopt);
        }
        let marked = self.all(Phase::Primary);
        let unmarked = [self.all(Phase::Staged), self.all(Phase::Retiring)].concat();
        match (marked.as_slice(), unmarked.as_slice()) {
            ([], []) if self.is_empty() => self.unless_paused(self.make(Step::Begin)),
            // All that is there is refused.
            ([], []) => self.make(Step::Begin),
            // The only one there is: whoever has never seen a mark presents it already.
            ([], [only]) if self.all(Phase::Staged).contains(only) => Decision::now(Step::Promote(only.clone())),
            ([primary], _) => Decision::first(self.compromised(&marked).into_iter().chain(self.rotation(primary))),
            _ => {
                let ambiguous = Decision {
                    blocked: vec![self.ambiguous()],
                    ..Decision::nothing()
                };
                Decision::first(self.compromised(&marked).into_iter().chain([ambiguous]))
            }
        }
    }

    /// Nothing is there, or nothing but an intent.
    fn is_empty(&self) -> bool {
        self.observed.holding.revisions.is_empty()
    }

    fn ambiguous(&self) -> Reason {
        let marked = self.all(Phase::Primary);
        Reason::Ambiguous(match marked.is_empty() {
            true => [self.all(Phase::Staged), self.all(Phase::Retiring)].concat(),
            false => marked,
        })
    }

    /// What has to be done about revisions that somebody else may have, and that are not refused yet. No pause, no window
    /// and no clock stops it.
    fn compromised(&self, marked: &[RevisionId]) -> Vec<Decision> {
        let all = self.state.revisions.iter();
        let known = all.filter_map(|(id, stage)| Some((id, stage.phase, stage.compromised?)));
        known
            .filter_map(|(id, phase, by)| match (phase, self.next()) {
                // Nothing was made with it.
                (Phase::Intended | Phase::Staged, _) => Some(Decision::now(Step::Revoke(id.clone()))),
                (Phase::Primary, _) if marked.len() > 1 => {
                    Some(self.until(by, Step::Revoke(id.clone()), vec![self.ambiguous()]))
                }
                (Phase::Primary, None) => Some(self.make(Step::Stage)),
                (Phase::Primary, Some(next)) => {
                    Some(self.until(by, Step::Promote(next.clone()), self.may_promote(next)))
                }
                (Phase::Retiring, _) => Some(match self.before_it_goes(id).filter(|_| self.now.wall < by) {
                    Some(decision) => decision,
                    None => self.until(by, Step::Revoke(id.clone()), self.may_go(id)),
                }),
                (Phase::Revoked | Phase::Gone, _) => None,
            })
            .collect()
    }

    /// What may be done otherwise, the most urgent first. A certificate does not wait for the end of a rotation, in which
    /// it might expire.
    fn rotation(&self, primary: &RevisionId) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let in_phase = |phase| self.state.in_phase(phase);
        let in_peace = |phase| in_phase(phase).filter(|(_, stage)| stage.compromised.is_none());
        let end = self.end_of_life(primary);
        let is_urgent = self.observed.links.renew || end.is_some_and(|end| end <= self.now.wall);
        let is_begun = in_peace(Phase::Intended).next().is_some();
        if is_begun || (is_urgent && self.next().is_none()) {
            decisions.push(self.make(Step::Stage));
        }
        if let Some(next) = self.next() {
            let decision = self.promotion(primary, next);
            decisions.push(if is_urgent { decision } else { self.in_window(decision) });
        }
        for (id, _) in in_phase(Phase::Revoked) {
            decisions.push(match self.is_to_migrate(id) {
                true => self.migration(id),
                false => self.with_deadline(Step::Retire(id.clone()), [self.accepted(id), self.kept(id)].concat()),
            });
        }
        for (id, _) in in_peace(Phase::Retiring) {
            let retire = || self.in_window(self.with_deadline(Step::Retire(id.clone()), self.may_go(id)));
            decisions.push(self.before_it_goes(id).unwrap_or_else(retire));
        }
        let gone = in_phase(Phase::Gone).map(|(id, _)| Decision::now(Step::Destroy(id.clone())));
        decisions.extend(gone);
        if decisions.is_empty() {
            decisions.extend(self.due(end));
        }
        decisions
            .into_iter()
            .map(|decision| self.unless_paused(decision))
            .collect()
    }

    /// The next rotation, if there is to be one.
    fn due(&self, end: Option<u64>) -> Option<Decision> {
        if self.state.requested {
            return Some(self.make(Step::Stage));
        }
        let by_interval = self.policy.every.map(|every| self.state.settled.saturating_add(every));
        let due = [by_interval, end].into_iter().flatten().min()?;
        let decision = match due > self.now.wall {
            true => Decision {
                blocked: vec![Reason::Until(due, Wait::Due)],
                ..Decision::now(Step::Stage)
            },
            false => self.make(Step::Stage),
        };
        Some(self.in_window(decision))
    }

    /// What is to be the next primary.
    fn next(&self) -> Option<&RevisionId> {
        let mut staged = self.state.in_phase(Phase::Staged);
        staged.find(|(_, stage)| stage.compromised.is_none()).map(|(id, _)| id)
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

    /// A certificate that is about to expire harms more than a consumer that is not ready for the next one.
    fn promotion(&self, primary: &RevisionId, next: &RevisionId) -> Decision {
        let late = self.observed.lives.get(primary).map(|(from, until)| {
            let life = until.saturating_sub(*from);
            from.saturating_add(life / 6 * 5)
        });
        let is_late = late.is_some_and(|late| late <= self.now.wall);
        let decision = self.with_deadline(Step::Promote(next.clone()), self.may_promote(next));
        if is_late {
            decision.without_consumers()
        } else {
            decision
        }
    }

    fn is_to_migrate(&self, old: &RevisionId) -> bool {
        self.policy.migrates && self.state.revisions.get(old).is_some_and(|stage| !stage.migrated)
    }

    fn migration(&self, old: &RevisionId) -> Decision {
        self.with_deadline(Step::Migrate(old.clone()), self.adopted())
    }

    fn before_it_goes(&self, old: &RevisionId) -> Option<Decision> {
        let migration = || self.is_to_migrate(old).then(|| self.migration(old));
        let release = self.release(old).filter(|_| !self.is_over(old));
        release.or_else(migration)
    }

    /// Nobody takes a certificate that has expired, whoever shows it.
    fn is_over(&self, old: &RevisionId) -> bool {
        let life = self.observed.lives.get(old);
        life.is_some_and(|(_, until)| until.saturating_add(self.policy.skew) <= self.now.wall)
    }

    fn may_go(&self, old: &RevisionId) -> Vec<Reason> {
        let unused = if self.is_over(old) {
            Vec::new()
        } else {
            self.unused(old)
        };
        [unused, self.kept(old)].concat()
    }

    fn kept(&self, old: &RevisionId) -> Vec<Reason> {
        self.observed.links.retire.get(old).cloned().unwrap_or_default()
    }

    /// When a certificate is to be renewed: at two thirds of its real life, some earlier so that many do not renew at
    /// once.
    fn end_of_life(&self, primary: &RevisionId) -> Option<u64> {
        let (from, until) = self.observed.lives.get(primary)?;
        let life = until.saturating_sub(*from);
        let jitter = spread(&self.state.publication, primary) % (life / 30 + 1);
        Some(from.saturating_add(life / 3 * 2).saturating_sub(jitter))
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
