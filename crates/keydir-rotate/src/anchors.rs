//! What a directory of anchors needs next. Pure.

use keydir::RevisionId;

use crate::decision::{Decision, Reason, Step};
use crate::judge::Judge;
use crate::observed::{Now, Observed};
use crate::policy::Policy;
use crate::state::{Phase, State};

/// What a directory of a CA's anchors needs next: every revision of the CA that may issue or has issued, and no other of
/// it. What the CA knows nothing of stays.
pub fn decide_anchors(policy: &Policy, observed: &Observed, now: Now) -> Decision {
    let state = State::of(&observed.holding, observed.state.as_ref(), now.wall);
    let judge = Judge {
        policy,
        observed,
        state: &state,
        now,
    };
    let held = &observed.holding.revisions;
    if observed.state.as_ref() != Some(&state) && !held.is_empty() {
        return Decision::now(Step::Adopt);
    }
    let anchors = &observed.links.anchors;
    let of_phase = |wanted: &[Phase]| {
        anchors
            .iter()
            .filter(|(_, phase)| wanted.contains(phase))
            .map(|(id, _)| id.clone())
            .collect::<Vec<RevisionId>>()
    };
    let refused = of_phase(&[Phase::Revoked]);
    let is_held = |id: &&RevisionId| held.get(id).is_some_and(|held| !held.revoked);
    if let Some(id) = refused.iter().find(is_held) {
        return Decision::now(Step::Revoke(id.clone()));
    }
    let wanted = of_phase(&[Phase::Staged, Phase::Primary, Phase::Retiring]);
    let missing = wanted.iter().find(|id| !held.contains_key(id));
    let decisions = match missing {
        Some(id) => vec![Decision::now(Step::Trust(id.clone()))],
        None => {
            let gone = [of_phase(&[Phase::Retiring]), refused].concat();
            let may_go = |id: &RevisionId| {
                let reasons = match held.get(id)?.revoked {
                    // Nobody takes it any more; that all know is enough.
                    true => judge.accepted(id),
                    false => observed.links.retire.get(id).cloned().unwrap_or_default(),
                };
                Some(judge.with_deadline(Step::Retire(id.clone()), reasons))
            };
            gone.iter().filter_map(may_go).collect()
        }
    };
    let may = decisions.iter().find(|decision| decision.blocked.is_empty());
    let mut decision = may
        .or_else(|| decisions.first())
        .cloned()
        .unwrap_or_else(Decision::nothing);
    if decision.next.is_some() {
        decision.blocked.extend(observed.links.make.iter().cloned());
        decision.blocked.extend(state.paused.clone().map(Reason::Paused));
        decision.blocked.extend(judge.clock_behind());
    }
    decision
}
