//! A CA, its anchors, and the leaves that it issues, in directories of their own: what each means to the others. Pure.
//!
//! At every moment, every leaf that any consumer may present is accepted by every consumer that may meet it: a new CA
//! issues nothing before all trust it, and an old one is trusted until no leaf of it is left.

use std::collections::BTreeMap;
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
        Role::Trust { ca } => of_anchors(known, ca, of(ca), now),
        Role::Leaf { ca } => of_leaf(this, ca, of(ca), now),
    }
}

/// A new revision issues when all trust it; an old one goes when nobody trusts it any more.
fn of_ca(known: &[Known], this: &Known, now: Now) -> Links {
    let Some(state) = this.state(now) else {
        return Links::default();
    };
    let trusting = || {
        known
            .iter()
            .filter(|other| matches!(&other.role, Role::Trust { ca } if *ca == this.path))
    };
    let mut links = Links::default();
    for (next, _) in state.in_phase(Phase::Staged) {
        links
            .promote
            .extend(trusting().flat_map(|trust| is_trusted(trust, next, now)));
    }
    for (old, stage) in &state.revisions {
        if matches!(stage.phase, Phase::Retiring | Phase::Revoked) {
            let still = |trust: &Known| {
                let holds = trust.observed.as_ref()?.holding.revisions.contains_key(old);
                holds.then(|| Reason::StillTrusted(trust.path.clone(), old.clone()))
            };
            links.retire.insert(old.clone(), trusting().filter_map(still).collect());
        }
    }
    links
}

fn is_trusted(trust: &Known, id: &RevisionId, now: Now) -> Vec<Reason> {
    let holds = trust
        .observed
        .as_ref()
        .is_some_and(|observed| observed.holding.revisions.contains_key(id));
    match holds {
        true => trust.reasons(now, Step::Promote(id.clone()), |judge| judge.accepted(id)),
        false => vec![Reason::NotTrusted(trust.path.clone(), id.clone())],
    }
}

/// What the CA has is trusted, until it is retiring and nothing of it is left.
fn of_anchors(known: &[Known], path: &Path, ca: Option<&Known>, now: Now) -> Links {
    let mut links = Links::default();
    let Some((ca, state)) = ca.and_then(|ca| Some((ca, ca.state(now)?))) else {
        links.make.push(Reason::Unreadable(path.to_owned()));
        return links;
    };
    for (id, stage) in &state.revisions {
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

/// A leaf is made with what the CA issues with, and anew when that is another.
fn of_leaf(this: &Known, path: &Path, ca: Option<&Known>, now: Now) -> Links {
    let mut links = Links::default();
    let issuer = ca.and_then(|ca| Some(ca.state(now)?.in_phase(Phase::Primary).next()?.0.clone()));
    let Some(issuer) = issuer else {
        links.make.push(Reason::NoIssuer(path.to_owned()));
        return links;
    };
    let primary = this
        .state(now)
        .and_then(|state| Some(state.in_phase(Phase::Primary).next()?.0.clone()));
    links.renew = primary.is_some_and(|primary| this.issued_by.get(&primary).is_some_and(|by| *by != issuer));
    links
}
