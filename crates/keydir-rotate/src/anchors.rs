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
    let is_missing = |id: &&RevisionId| held.get(id).is_none_or(|held| !held.revoked && !held.is_certificate());
    // What issues comes first: else nobody would trust anything for a moment. What was retired stays away.
    let is_shown = |id: &RevisionId| {
        let reasons = observed.links.retire.get(id);
        reasons.is_some_and(|reasons| reasons.iter().any(|reason| matches!(reason, Reason::LeafOf(..))))
    };
    let shown = of_phase(&[Phase::Retiring]).into_iter().filter(is_shown).collect();
    let wanted: Vec<RevisionId> = [of_phase(&[Phase::Primary]), of_phase(&[Phase::Staged]), shown].concat();
    let missing = wanted.iter().find(is_missing);
    let mut decisions = Vec::new();
    if let Some(id) = missing {
        decisions.push(judge.unless_paused(Decision::now(Step::Trust(id.clone()))));
    }
    let is_held = |id: &&RevisionId| held.get(id).is_some_and(|held| !held.revoked);
    decisions.extend(
        refused
            .iter()
            .filter(is_held)
            .map(|id| Decision::now(Step::Revoke(id.clone()))),
    );
    if missing.is_none() {
        for id in [of_phase(&[Phase::Retiring]), refused.clone()].concat() {
            let Some(held) = held.get(&id) else { continue };
            let reasons = match held.revoked {
                // Nobody takes it any more; that all know is enough.
                true => judge.accepted(&id),
                false => observed.links.retire.get(&id).cloned().unwrap_or_default(),
            };
            let decision = judge.in_window(judge.with_deadline(Step::Retire(id), reasons));
            decisions.push(judge.unless_paused(decision));
        }
    }
    let mut decision = Decision::first(decisions);
    if decision.next.is_some() {
        decision.blocked.extend(observed.links.make.iter().cloned());
    }
    decision
}
