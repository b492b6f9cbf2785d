//! A CA, its anchors, and the leaves that it issues, in directories of their own: what each means to the others. Pure.
//!
//! At every moment, every leaf that any consumer may present is accepted by every consumer that may meet it: a new CA
//! issues nothing before all trust it, and an old one is trusted until no leaf of it is left.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use keydir::RevisionId;

use crate::decision::{Reason, Step, Wait};
use crate::judge::Judge;
use crate::observed::{Links, Now, Observed};
use crate::policy::Policy;
use crate::state::{Phase, State};

/// What a directory is to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing.
    Alone,
    /// The keys of a CA.
    Ca,
    /// Its anchors, for whoever verifies.
    Trust {
        /// The directory of the CA.
        ca: PathBuf,
    },
    /// Leaves that it issues.
    Leaf {
        /// The directory of the CA.
        ca: PathBuf,
    },
}

/// One directory among others.
#[derive(Clone, Debug)]
pub struct Known {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub role: Role,
    /// What is wanted of it.
    pub policy: Policy,
    /// What is known of it; `None` if it cannot be read.
    pub observed: Option<Observed>,
    /// Of leaves: by which revision of the CA each was issued.
    pub issued_by: BTreeMap<RevisionId, RevisionId>,
    /// Of anchors: names of the CA's revisions under which something else lies here.
    pub clashes: BTreeSet<RevisionId>,
}

impl Known {
    fn state(&self, now: Now) -> Option<State> {
        let observed = self.observed.as_ref()?;
        Some(State::of(&observed.holding, observed.state.as_ref(), now.wall))
    }

    /// What has to be waited for here, as others see it.
    fn reasons(&self, now: Now, step: Step, reasons: impl FnOnce(&Judge<'_>) -> Vec<Reason>) -> Vec<Reason> {
        let (Some(observed), Some(state)) = (&self.observed, self.state(now)) else {
            return vec![Reason::Unreadable(self.path.clone())];
        };
        let judge = Judge {
            policy: &self.policy,
            observed,
            state: &state,
            now,
        };
        let decision = judge.with_deadline(step, reasons(&judge));
        let elsewhere = |reason| Reason::Elsewhere(self.path.clone(), Box::new(reason));
        decision.blocked.into_iter().map(elsewhere).collect()
    }
}

/// What the other directories have to do with this one.
pub fn links(known: &[Known], this: &Known, now: Now) -> Links {
    let of = |ca: &Path| known.iter().find(|other| other.path == *ca && other.role == Role::Ca);
    match &this.role {
        Role::Alone => Links::default(),
        Role::Ca => of_ca(known, this, now),
        Role::Trust { ca } => of_anchors(known, this, ca, of(ca), now),
        Role::Leaf { ca } => of_leaf(known, this, ca, of(ca), now),
    }
}

fn trusting<'a>(known: &'a [Known], path: &Path) -> impl Iterator<Item = &'a Known> {
    known
        .iter()
        .filter(move |other| matches!(&other.role, Role::Trust { ca } if *ca == *path))
}

/// A new revision issues when all trust it; an old one goes when nobody trusts it any more.
fn of_ca(known: &[Known], this: &Known, now: Now) -> Links {
    let Some(state) = this.state(now) else {
        return Links::default();
    };
    let mut links = Links::default();
    for (next, _) in state.in_phase(Phase::Staged) {
        links
            .promote
            .extend(trusting(known, &this.path).flat_map(|trust| is_trusted(trust, next, now)));
    }
    for (old, stage) in &state.revisions {
        if matches!(stage.phase, Phase::Retiring | Phase::Revoked) {
            let still = |trust: &Known| match &trust.observed {
                None => Some(Reason::Unreadable(trust.path.clone())),
                Some(observed) => {
                    let holds = observed.holding.revisions.contains_key(old) && !trust.clashes.contains(old);
                    holds.then(|| Reason::StillTrusted(trust.path.clone(), old.clone()))
                }
            };
            let reasons = trusting(known, &this.path).filter_map(still).collect();
            links.retire.insert(old.clone(), reasons);
        }
    }
    links
}

/// Why a directory of anchors does not hold a revision as one that is accepted.
fn is_held(trust: &Known, id: &RevisionId) -> Option<Reason> {
    let held = trust.observed.as_ref().and_then(|seen| seen.holding.revisions.get(id));
    if trust.observed.is_none() {
        Some(Reason::Unreadable(trust.path.clone()))
    } else if trust.clashes.contains(id) {
        Some(Reason::Clash(trust.path.clone(), id.clone()))
    } else if held.is_some_and(|held| held.is_certificate() && !held.revoked) {
        None
    } else {
        Some(Reason::NotTrusted(trust.path.clone(), id.clone()))
    }
}

fn is_trusted(trust: &Known, id: &RevisionId, now: Now) -> Vec<Reason> {
    match is_held(trust, id) {
        None => trust.reasons(now, Step::Promote(id.clone()), |judge| judge.accepted(id)),
        Some(reason) => vec![reason],
    }
}

/// What the CA has is trusted, until it is retiring and nothing of it is left.
fn of_anchors(known: &[Known], this: &Known, path: &Path, ca: Option<&Known>, now: Now) -> Links {
    let mut links = Links::default();
    let Some((ca, state)) = ca.and_then(|ca| Some((ca, ca.state(now)?))) else {
        links.make.push(Reason::Unreadable(path.to_owned()));
        return links;
    };
    links.emergency = is_emergency(&state);
    for (id, stage) in &state.revisions {
        if this.clashes.contains(id) {
            links.make.push(Reason::Clash(this.path.clone(), id.clone()));
        }
        links.anchors.insert(id.clone(), stage.phase);
        let mut reasons = ca.reasons(now, Step::Retire(id.clone()), |judge| {
            // The last leaf that is not in a directory of its own.
            let last = stage
                .last_leaf
                .map(|at| judge.waited(at, judge.policy.skew, Wait::LastLeaf));
            [judge.unused(id), last.unwrap_or_default()].concat()
        });
        let leaves = known
            .iter()
            .filter(|other| matches!(&other.role, Role::Leaf { ca } if *ca == *path));
        for leaf in leaves {
            reasons.extend(no_leaf_of(leaf, id, now));
        }
        links.retire.insert(id.clone(), reasons);
    }
    links
}

/// No leaf of this CA lies in the directory, and no consumer has an older set, with one.
fn no_leaf_of(leaf: &Known, ca: &RevisionId, now: Now) -> Vec<Reason> {
    let of_it = leaf.issued_by.iter().filter(|(_, issuer)| *issuer == ca);
    let left: Vec<Reason> = of_it
        .map(|(id, _)| Reason::LeafOf(leaf.path.clone(), id.clone(), ca.clone()))
        .collect();
    match left.is_empty() {
        true => leaf.reasons(now, Step::Retire(ca.clone()), |judge| {
            let published = judge.state.published;
            [
                judge.waited(published, judge.policy.propagation, Wait::Propagation),
                judge.adopted(),
            ]
            .concat()
        }),
        false => left,
    }
}

/// A leaf is made with what the CA issues with, where that is trusted, and anew when that is another.
fn of_leaf(known: &[Known], this: &Known, path: &Path, ca: Option<&Known>, now: Now) -> Links {
    let mut links = Links::default();
    let state = ca.and_then(|ca| ca.state(now));
    let issuing = state.as_ref().and_then(|state| state.in_phase(Phase::Primary).next());
    let (Some(state), Some((issuer, stage))) = (&state, issuing) else {
        links.make.push(Reason::NoIssuer(path.to_owned()));
        return links;
    };
    let primary = this
        .state(now)
        .and_then(|state| Some(state.in_phase(Phase::Primary).next()?.0.clone()));
    let shown = primary.and_then(|primary| this.issued_by.get(&primary));
    links.renew = shown.is_some_and(|by| by != issuer);
    links.issuer = Some(issuer.clone());
    links.emergency = is_emergency(state);
    // What is shown is refused already: it can only become better.
    let is_refused = shown.is_some_and(|by| state.revisions.get(by).is_none_or(|by| by.phase == Phase::Revoked));
    for trust in trusting(known, path) {
        // What is shown already, the first CA, or one that all trusted before it issued; not so after a roll-back to one
        // that was gone.
        let is_known = shown == Some(issuer)
            || state.revisions.len() == 1
            || trust.state(now).is_some_and(|trusts| {
                let wait = trust.policy.propagation.max(1);
                let anchor = trusts.revisions.get(issuer);
                anchor.is_some_and(|anchor| anchor.since.saturating_add(wait) <= stage.since)
            });
        links.make.extend(match is_refused || is_known {
            true => is_held(trust, issuer).into_iter().collect(),
            false => is_trusted(trust, issuer, now),
        });
    }
    links
}

/// Somebody else may have a key of the CA.
fn is_emergency(state: &State) -> bool {
    let mut stages = state.revisions.values();
    stages.any(|stage| stage.compromised.is_some() && stage.phase != Phase::Gone)
}

#[cfg(test)]
mod tests;
