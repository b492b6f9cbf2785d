//! What one directory has to wait for: time, and its consumers.

use keydir::RevisionId;

use crate::consumer::Consumer;
use crate::decision::{Decision, Reason, Step, Wait};
use crate::observed::{Now, Observed};
use crate::policy::Policy;
use crate::state::{Phase, State};

/// Judges one directory at one moment.
pub(crate) struct Judge<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) observed: &'a Observed,
    pub(crate) state: &'a State,
    pub(crate) now: Now,
}

impl Judge<'_> {
    pub(crate) fn all(&self, phase: Phase) -> Vec<RevisionId> {
        self.state.in_phase(phase).map(|(id, _)| id.clone()).collect()
    }

    fn clock_behind(&self) -> Option<Reason> {
        let ahead = self
            .state
            .published
            .saturating_sub(self.now.wall.saturating_add(self.policy.skew));
        (ahead > 0).then_some(Reason::ClockBehind(ahead))
    }

    /// Unless somebody has paused the directory, or the clock is behind; an emergency of the CA stops for neither.
    pub(crate) fn unless_paused(&self, mut decision: Decision) -> Decision {
        if decision.next.is_some() && !self.observed.links.emergency {
            let paused = self.state.paused.clone().map(Reason::Paused);
            let reasons = paused.into_iter().chain(self.clock_behind());
            decision.blocked.splice(0..0, reasons);
        }
        decision
    }

    pub(crate) fn in_window(&self, mut decision: Decision) -> Decision {
        let open = self.policy.windows.next(self.now.wall);
        if decision.next.is_some() && open > self.now.wall && !self.observed.links.emergency {
            decision.blocked.push(Reason::Until(open, Wait::Window));
        }
        decision
    }

    /// A step that waits for these reasons, but not beyond this time.
    pub(crate) fn until(&self, by: u64, step: Step, reasons: Vec<Reason>) -> Decision {
        let is_over = self.now.wall >= by;
        let (overdue, blocked) = reasons.into_iter().partition(|_| is_over);
        Decision {
            next: Some(step),
            blocked,
            overdue,
        }
    }

    /// A step that waits for consumers as long as the policy says, and for all else.
    pub(crate) fn with_deadline(&self, step: Step, reasons: Vec<Reason>) -> Decision {
        let deadline = self.policy.deadline;
        let is_over = deadline.is_some_and(|deadline| {
            self.waited(self.state.published, deadline, Wait::Propagation)
                .is_empty()
        });
        let decision = Decision {
            blocked: reasons,
            ..Decision::now(step)
        };
        if is_over {
            decision.without_consumers()
        } else {
            decision
        }
    }

    /// Why not everybody knows yet of the phase that a revision is in.
    pub(crate) fn accepted(&self, id: &RevisionId) -> Vec<Reason> {
        let since = self.since(id);
        [
            self.waited(since, self.policy.propagation, Wait::Propagation),
            self.adopted(),
        ]
        .concat()
    }

    /// Whether nobody uses a retiring revision: everybody presents with another, and what was made before is over.
    pub(crate) fn unused(&self, old: &RevisionId) -> Vec<Reason> {
        let stage = self.state.revisions.get(old);
        let over = match stage.and_then(|stage| stage.released) {
            Some(released) => self.waited(released, self.policy.overlap, Wait::Overlap),
            None => {
                let wait = self.policy.propagation.saturating_add(self.policy.overlap);
                self.waited(self.since(old), wait, Wait::Overlap)
            }
        };
        let uses = |consumer: &Consumer| {
            let uses = *consumer.said.as_ref()?.uses.get(old)?;
            (uses > 0).then(|| Reason::Uses(consumer.name.clone(), old.clone(), uses))
        };
        let used = self.observed.consumers.iter().filter_map(uses).collect();
        [over, self.adopted(), used].concat()
    }

    /// What a consumer made with the old one just before it adopted the new one is good for as long as any other, so that
    /// the overlap counts from the last of them.
    pub(crate) fn release(&self, old: &RevisionId) -> Option<Decision> {
        let stage = self.state.revisions.get(old)?;
        let has_to = stage.released.is_none() && self.policy.overlap > 0 && !self.observed.consumers.is_empty();
        has_to.then(|| self.with_deadline(Step::Release(old.clone()), self.accepted(old)))
    }

    pub(crate) fn since(&self, id: &RevisionId) -> u64 {
        self.state.revisions.get(id).map_or(self.now.wall, |stage| stage.since)
    }

    /// A wait is over when the clock says so, and also if it was seen to jump.
    pub(crate) fn waited(&self, since: u64, wait: u64, what: Wait) -> Vec<Reason> {
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
    pub(crate) fn adopted(&self) -> Vec<Reason> {
        let why_not = |consumer: &Consumer| {
            let name = || consumer.name.clone();
            let Some(said) = &consumer.said else {
                return Some(Reason::Silent(name()));
            };
            let age = self.now.wall.saturating_sub(said.checked);
            let ahead = said.checked.saturating_sub(self.now.wall);
            if ahead > self.policy.skew {
                Some(Reason::Ahead(name(), ahead))
            } else if age > self.policy.fresh {
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
