//! What one publication changed for one use, in the words of the convention: the difference of two sets.

use std::sync::Arc;

use keydir::{Hold, KeySet, KeyState, RevisionId, Usage};
use serde::Serialize;

use crate::findings::{Finding, known, word};
use crate::view::AnyView;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Event {
    /// `staged`, `promoted`, `retiring`, `retired`, `revoked`, `replaced`, `updated`, `returned`, `held`, `released`,
    /// `began`, `expired`, `no-primary`, `problem` or `solved`; of `watch` also `loaded`, `unchanged`, `unreadable`
    /// and `readable`.
    pub(crate) event: &'static str,
    /// The revision, if it is about one.
    pub(crate) id: Option<String>,
    /// Why: the marker or the absence of a revocation, the reason of a hold.
    pub(crate) reason: Option<String>,
    /// The problem, of `problem` and `solved`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<Finding>,
}

impl Event {
    fn new(event: &'static str, id: Option<&RevisionId>, reason: Option<String>) -> Self {
        Self {
            event,
            id: id.map(ToString::to_string),
            reason,
            problem: None,
        }
    }

    /// One that says all by its name.
    pub(crate) fn simple(event: &'static str) -> Self {
        Self::new(event, None, None)
    }

    pub(crate) fn because(event: &'static str, reason: String) -> Self {
        Self::new(event, None, Some(reason))
    }

    pub(crate) fn problem(event: &'static str, problem: Finding) -> Self {
        Self {
            event,
            id: None,
            reason: None,
            problem: Some(problem),
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        if let Some(problem) = &self.problem {
            let Finding {
                severity,
                code,
                subject,
                message,
                ..
            } = problem;
            return match self.event {
                "solved" => format!("no more: {subject}: {message} ({code})"),
                _ => format!("{}: {subject}: {message} ({code})", word(*severity)),
            };
        }
        let subject = self.id.as_deref().unwrap_or("everything");
        let reason = self.reason.as_deref();
        match (self.event, reason) {
            ("retiring", _) => format!("{subject} is retiring"),
            ("returned", _) => format!("{subject} has returned after its revocation"),
            ("released", _) => format!("{subject} is no longer held"),
            ("began", _) => format!("the validity of {subject} has begun"),
            ("expired", _) => format!("{subject} has expired"),
            ("no-primary", Some(reason)) => format!("nothing to present: {reason}"),
            ("updated", _) => format!("updated {subject} (its crl)"),
            (event, Some(reason)) => format!("{event} {subject} ({reason})"),
            (event, None) => format!("{event} {subject}"),
        }
    }
}

/// The difference of two sets of one use. `before` is `None` for a first publication; `has_marker` says of an id that
/// is gone whether it was revoked by a marker.
pub(crate) fn difference(
    usage: &Usage,
    before: Option<&KeySet<AnyView>>,
    now: &KeySet<AnyView>,
    has_marker: impl Fn(&RevisionId) -> bool,
) -> Vec<Event> {
    let mut events = Vec::new();
    let old_primary = before.and_then(|before| before.primary().ok());
    let new_primary = now.primary().ok();
    for key in before.iter().flat_map(|before| before.iter()) {
        if now.get(key.id().as_str()).is_some() {
            continue;
        }
        let was_primary = old_primary.is_some_and(|old| old.id() == key.id());
        let (event, reason) = match (has_marker(key.id()), was_primary) {
            (true, _) => ("revoked", Some("by its marker")),
            (false, true) => ("revoked", Some("it was the primary, and is gone")),
            (false, false) => ("retired", None),
        };
        events.push(Event::new(event, Some(key.id()), reason.map(str::to_owned)));
    }
    for key in now.iter() {
        let id = key.id();
        let notice = |code| {
            now.problems()
                .iter()
                .any(|problem| problem.code == code && *id == *problem.subject)
        };
        let old = before.and_then(|before| before.get(id.as_str()));
        let old_state = old.and_then(|old| before?.state(old));
        let was_held = old_state.is_some_and(|state| state.held.is_some());
        match old {
            None if notice("returned") => events.push(Event::new("returned", Some(id), None)),
            None => events.push(Event::new("staged", Some(id), None)),
            Some(old) if Arc::ptr_eq(old, key) => {}
            Some(_) if notice("reused-id") => events.push(Event::new("replaced", Some(id), None)),
            // The one part that is no content; a key that is made anew after it was held is no event of its own.
            Some(_) if usage.name() == "anchors" && !was_held => events.push(Event::new("updated", Some(id), None)),
            Some(_) => {}
        }
        if let (Some(old), Some(state)) = (old_state, now.state(key)) {
            events.extend(changed_state(id, old, state));
        }
    }
    events.extend(everything_held(before, now));
    match (old_primary, new_primary) {
        (old, Some(new)) if old.map(|old| old.id()) != Some(new.id()) => {
            events.push(Event::new("promoted", Some(new.id()), None));
            if let Some(old) = old.filter(|old| now.get(old.id().as_str()).is_some()) {
                events.push(Event::new("retiring", Some(old.id()), None));
            }
        }
        (Some(_), None) => {
            let reason = now.no_primary().map(ToString::to_string);
            events.push(Event::new("no-primary", None, reason));
        }
        (None, None) if usage.has_primary() && before.and_then(|before| before.no_primary()) != now.no_primary() => {
            let reason = now.no_primary().map(ToString::to_string);
            events.push(Event::new("no-primary", None, reason));
        }
        _ => {}
    }
    // These two are told as what happened.
    let told = |code: &str| matches!(code, "returned" | "reused-id");
    let old_problems = before.map(KeySet::problems).unwrap_or_default();
    let fresh = now.problems().iter().filter(|problem| !old_problems.contains(problem));
    for problem in fresh.filter(|problem| !told(problem.code)) {
        events.push(Event::problem("problem", known(problem, Some(usage.name()))));
    }
    let gone = old_problems.iter().filter(|problem| !now.problems().contains(problem));
    for problem in gone.filter(|problem| !told(problem.code)) {
        events.push(Event::problem("solved", known(problem, Some(usage.name()))));
    }
    events
}

/// Of a revision that stays.
fn changed_state(id: &RevisionId, old: &KeyState, now: &KeyState) -> Vec<Event> {
    let mut events = Vec::new();
    match (&old.held, &now.held) {
        // That everything is held is one event.
        (_, Some(Hold::Unreadable)) => {}
        (old, Some(hold)) if old.as_ref() != Some(hold) => {
            events.push(Event::new("held", Some(id), Some(why(hold))));
        }
        (Some(_), None) => events.push(Event::new("released", Some(id), None)),
        _ => {}
    }
    if old.pending && !now.pending {
        events.push(Event::new("began", Some(id), None));
    }
    if !old.expired && now.expired {
        events.push(Event::new("expired", Some(id), None));
    }
    events
}

fn everything_held(before: Option<&KeySet<AnyView>>, now: &KeySet<AnyView>) -> Option<Event> {
    let unreadable = |set: &KeySet<AnyView>| {
        let mut states = set.iter().filter_map(|key| set.state(key));
        states.any(|state| state.held == Some(Hold::Unreadable))
    };
    let fresh = unreadable(now) && !before.is_some_and(unreadable);
    fresh.then(|| Event::new("held", None, Some(why(&Hold::Unreadable))))
}

/// Why a revision is held, in words.
pub(crate) fn why(hold: &Hold) -> String {
    match hold {
        Hold::Unreadable => "the directory cannot be read".to_owned(),
        Hold::Unusable(reason) | Hold::Replacement(reason) => reason.clone(),
        Hold::Gone => "it is gone, and nothing else that is usable is left".to_owned(),
        _ => "see its problems".to_owned(),
    }
}
