//! What readers make of the step from one set of files to the next, and whether that is what a publication may do.
//!
//! Readers in memory take the step, by the library's own rules; nothing is guessed but the uses.

use keydir::{Dir, Files, Hold, NoPrimary, OpenErrorKind, Secret, Severity, Usage, uses as known};
use serde::Serialize;

use crate::events::{Event, difference};
use crate::listing::Listing;
use crate::opened::Set;
use crate::uses;
use crate::view::AnyView;

/// What came of it.
#[derive(Default)]
pub(crate) struct Verdict {
    pub(crate) uses: Vec<UseReport>,
    pub(crate) warnings: Vec<String>,
    pub(crate) refused: Vec<String>,
}

/// What a publication changes for one use.
#[derive(Serialize)]
pub(crate) struct UseReport {
    #[serde(rename = "use")]
    pub(crate) usage: &'static str,
    pub(crate) events: Vec<Event>,
}

/// Judges the step for the uses that were given, or else for those that the names of both sets suggest.
pub(crate) fn judge(given: &[Usage], current: &Files, next: &Files, force: bool) -> Verdict {
    let [before, after] = [current, next].map(|files| Listing::of_names(files.keys().map(String::as_str)));
    let assumed = given.is_empty();
    let is_wanted = |usage: &Usage| match assumed {
        true => uses::detect(&before).contains(usage) || uses::detect(&after).contains(usage),
        false => given.contains(usage),
    };
    // Revoking is for emergencies: it is told what it leaves behind, and not kept from it.
    let is_new = |name: &&String| name.ends_with(".revoked") && !current.contains_key(*name);
    let may_hurt = force || next.keys().any(|name| is_new(&name));
    let wanted: Vec<Usage> = known::ALL.into_iter().filter(is_wanted).collect();
    let steps: Vec<_> = wanted.iter().map(|usage| (usage, step(usage, current, next))).collect();
    let is_identity = |usage: &Usage| matches!(usage.name(), "tls-identity" | "certificate-login");
    let has_identity = steps.iter().any(|(usage, step)| is_identity(usage) && step.now.is_ok());
    let mut verdict = Verdict::default();
    for (usage, Step { before, now }) in &steps {
        let name = usage.name();
        let mut against = Vec::new();
        match now {
            // As in `check`: a certificate without a key beside identities is half of one, and no anchor.
            Err(_) if assumed && has_identity && name == "anchors" => {
                let warning = "a certificate is there without its key, and is no CA's".to_owned();
                verdict.warnings.push(warning);
            }
            Err(reason) => against.push(reason.clone()),
            Ok(now) => {
                let events = difference(usage, before.as_deref(), now, |id| after.is_revoked(id));
                against.extend(objections(before.as_ref(), now, &events));
                let warnings = events.iter().filter(|event| is_warning(event));
                let warnings = warnings.map(|event| format!("as {name}: {}", event.text()));
                verdict.warnings.extend(warnings);
                let steps = events.into_iter().filter(|event| event.problem.is_none());
                verdict.uses.push(UseReport {
                    usage: name,
                    events: steps.collect(),
                });
            }
        }
        let guessed = if assumed { " (guessed: --use says it)" } else { "" };
        for reason in against {
            if may_hurt {
                verdict.warnings.push(format!("as {name}: {reason}"));
            } else {
                let reason = format!("as {name}{guessed}: {reason} (--force allows it)");
                verdict.refused.push(reason);
            }
        }
    }
    verdict
}

struct Step {
    /// `None` if nothing could be made of the old set.
    before: Option<Set>,
    now: Result<Set, String>,
}

/// What a reader of one use makes of the two sets, the one after the other.
fn step(usage: &Usage, current: &Files, next: &Files) -> Step {
    let dir = in_memory(current);
    if let Ok(live) = dir.view(AnyView::new(*usage)) {
        let before = live.snapshot();
        let published = dir.publish(pairs(next)).map_err(|error| error.to_string());
        return Step {
            before: Some(before),
            now: published.map(|()| live.snapshot()),
        };
    }
    let now = in_memory(next).view(AnyView::new(*usage)).map(|live| live.snapshot());
    Step {
        before: None,
        now: now.map_err(|error| match error.kind {
            OpenErrorKind::Start { error, .. } => error.to_string(),
            _ => error.to_string(),
        }),
    }
}

fn in_memory(files: &Files) -> Dir {
    Dir::in_memory(pairs(files))
}

fn pairs(files: &Files) -> impl Iterator<Item = (String, Secret)> {
    files.iter().map(|(name, content)| (name.clone(), content.clone()))
}

fn is_warning(event: &Event) -> bool {
    let problem = event.problem.as_ref().filter(|_| event.event == "problem");
    problem.is_some_and(|problem| problem.severity == Severity::Warning)
}

/// Why readers would not do what the publication means.
fn objections(before: Option<&Set>, now: &Set, events: &[Event]) -> Vec<String> {
    let mut states = now.iter().filter_map(|key| now.state(key));
    if !now.is_empty() && states.all(|state| state.held == Some(Hold::Gone)) {
        let reason = "nothing usable would be left: readers would hold what they have, and new ones would fail";
        return vec![reason.to_owned()];
    }
    let mut against = Vec::new();
    let unclear = |set: &Set| {
        set.no_primary()
            .filter(|reason| **reason != NoPrimary::AcceptOnly)
            .cloned()
    };
    if let (Some(reason), true) = (unclear(now), before.is_none_or(|before| unclear(before).is_none())) {
        against.push(format!("no primary would be left: {reason}"));
    }
    for problem in events.iter().filter(|event| event.event == "problem") {
        match &problem.problem {
            // Told above, in other words.
            Some(problem) if matches!(problem.code, "ambiguous" | "unmarked" | "missing") => {}
            Some(problem) if problem.severity == Severity::Error => {
                against.push(format!("{}: {}: {}", problem.subject, problem.message, problem.advice));
            }
            _ => {}
        }
    }
    against
}
