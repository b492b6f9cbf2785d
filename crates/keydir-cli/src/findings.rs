//! What `keydir check` finds: what the library reports, and what a strict reader or a careful owner minds besides.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use keydir::{NoPrimary, Piece, Problem, RevisionId, Severity, Usage};
use serde::Serialize;

use crate::listing::Listed;
use crate::moment::{rfc3339, span};
use crate::opened::{Opened, Set};
use crate::{certificate, uses};

/// One thing that somebody should look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    /// Short and stable.
    pub(crate) code: &'static str,
    /// The use that it is about; `None` if it is about names and files, whatever the use.
    #[serde(rename = "use")]
    pub(crate) usage: Option<&'static str>,
    /// The file, revision or use that it is about.
    pub(crate) subject: String,
    pub(crate) message: String,
    pub(crate) advice: String,
}

/// Everything that is to be said of a directory, errors first.
pub(crate) fn find(opened: &Opened, within: Duration) -> Vec<Finding> {
    let now = opened.dir.clock().now();
    let sets = opened.sets();
    let mut found: Vec<Finding> = opened
        .dir
        .problems()
        .iter()
        .map(|problem| known(problem, None))
        .collect();
    for (usage, set) in &sets {
        let name = usage.name();
        found.extend(set.problems().iter().map(|problem| known(problem, Some(name))));
        found.extend(standing(usage, set));
        found.extend(dates(name, set, now, within));
        found.extend(crls(name, set, now));
        found.extend(strictness(name, set));
        found.extend(by_http(name, set));
        if !opened.flat {
            found.extend(missing_mark(usage, opened));
        }
    }
    found.extend(writable(opened));
    if !opened.flat {
        found.extend(names(opened, &sets));
    }
    if sets.is_empty() {
        found.push(Finding {
            severity: Severity::Error,
            code: "no-use",
            usage: None,
            subject: ".".to_owned(),
            message: "no file in it belongs to a use of the convention".to_owned(),
            advice: "publish a revision, or say --use".to_owned(),
        });
    }
    if opened.listing.rotation && !sets.is_empty() && opened.publication().is_none() {
        let message = "it gives no publication id: it is no JSON, or its \"publication\" is no text";
        let advice = "write it anew, so that consumers can report which publication they have";
        found.push(warning("rotation-json", None, ".rotation.json", message, advice));
    }
    if opened.assumed {
        for finding in found
            .iter_mut()
            .filter(|finding| finding.usage == Some("anchors") && finding.code == "unusable")
        {
            finding.advice += "; or say --use pinned, if it is to be accepted by itself";
        }
    }
    found.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.cmp(b)));
    found.dedup();
    found
}

/// A problem of the library, as a finding.
pub(crate) fn known(problem: &Problem, usage: Option<&'static str>) -> Finding {
    Finding {
        severity: problem.severity,
        code: problem.code,
        usage,
        subject: problem.subject.clone(),
        message: problem.message.clone(),
        advice: problem.advice.to_owned(),
    }
}

pub(crate) fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Warning => "warning",
        _ => "error",
    }
}

fn warning(
    code: &'static str,
    usage: Option<&'static str>,
    subject: impl Into<String>,
    message: impl Into<String>,
    advice: &str,
) -> Finding {
    Finding {
        severity: Severity::Warning,
        code,
        usage,
        subject: subject.into(),
        message: message.into(),
        advice: advice.to_owned(),
    }
}

/// Whether a service that starts now would have what its use needs. What the marks say, the library has reported.
fn standing(usage: &Usage, set: &Set) -> Option<Finding> {
    let error = |code, message: String, advice: &str| Finding {
        severity: Severity::Error,
        code,
        usage: Some(usage.name()),
        subject: usage.name().to_owned(),
        message,
        advice: advice.to_owned(),
    };
    if usage.has_primary() {
        let reason = set.primary().err()?;
        let said = matches!(
            reason,
            NoPrimary::Ambiguous { .. } | NoPrimary::Unmarked | NoPrimary::Missing
        );
        let advice = "until then a service that starts has nothing to present";
        return (!said).then(|| error("nothing-to-present", reason.to_string(), advice));
    }
    let valid = |key| set.state(key).is_some_and(|state| !state.pending && !state.expired);
    let any = set.iter().any(|key| valid(key));
    (!any).then(|| {
        let message = "no revision is there that could be accepted now";
        error(
            "nothing-to-accept",
            message.to_owned(),
            "publish one; a service that starts now fails",
        )
    })
}

fn dates(usage: &'static str, set: &Set, now: SystemTime, within: Duration) -> Vec<Finding> {
    let mut found = Vec::new();
    for key in set.iter() {
        let (ended, running): (Vec<&Piece>, Vec<&Piece>) = key.pieces().iter().partition(|piece| piece.not_after < now);
        if !ended.is_empty() && !running.is_empty() {
            let message = format!("{} of its {} certificates have ended", ended.len(), key.pieces().len());
            let advice = "it still counts with the others: take the ended ones out, under a new id";
            found.push(warning(
                "partly-expired",
                Some(usage),
                key.id().as_str(),
                message,
                advice,
            ));
        }
        let Some(next) = running.iter().map(|piece| piece.not_after).min() else {
            continue;
        };
        let left = next.duration_since(now).unwrap_or_default();
        if left <= within {
            let message = format!("its certificate ends {}, in {}", rfc3339(next), span(left));
            let advice = "rotate: stage the next revision now";
            found.push(warning("expires-soon", Some(usage), key.id().as_str(), message, advice));
        }
    }
    found
}

fn crls(usage: &'static str, set: &Set, now: SystemTime) -> Vec<Finding> {
    let mut found = Vec::new();
    for key in set.iter() {
        for crl in key.crls.iter().filter(|crl| crl.next_update <= now) {
            found.push(Finding {
                severity: Severity::Error,
                code: "crl-expired",
                usage: Some(usage),
                subject: key.id().as_str().to_owned(),
                message: format!("its CRL of {} expired {}", crl.issuer, rfc3339(crl.next_update)),
                advice:
                    "publish the current one: what was revoked since is let in, and who enforces the date refuses all"
                        .to_owned(),
            });
        }
    }
    found
}

/// What other TLS libraries would refuse.
fn strictness(usage: &'static str, set: &Set) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut subjects: BTreeMap<Vec<u8>, (String, BTreeSet<&RevisionId>)> = BTreeMap::new();
    for key in set.iter() {
        for (number, der) in key.iter().enumerate() {
            for message in certificate::strictly(der, usage == "anchors") {
                let message = match key.len() {
                    1 => message,
                    _ => format!("certificate {}: {message}", number + 1),
                };
                let advice = "issue it anew if such readers are to take it";
                found.push(warning("strict", Some(usage), key.id().as_str(), message, advice));
            }
            if let Some((raw, shown)) = certificate::subject(der).filter(|_| usage == "anchors") {
                subjects
                    .entry(raw)
                    .or_insert((shown, BTreeSet::new()))
                    .1
                    .insert(key.id());
            }
        }
    }
    for (shown, ids) in subjects.into_values().filter(|(_, ids)| ids.len() > 1) {
        let all: Vec<_> = ids.iter().map(|id| id.as_str()).collect();
        for id in &ids {
            let message = format!("the CAs of {} have the same name ({shown})", all.join(", "));
            let advice = "give each CA a name of its own: some libraries take the first of a name and refuse the rest";
            found.push(warning("same-subject", Some(usage), id.as_str(), message, advice));
        }
    }
    found
}

/// What HTTP clients and servers of this project would set aside; those of another protocol have rules of their own.
fn by_http(usage: &'static str, set: &Set) -> Vec<Finding> {
    let mut found = Vec::new();
    for key in set.iter() {
        if let Some(unusable) = &key.not_by_http {
            let advice = "where it goes by HTTP, publish another: services set this one aside";
            found.push(warning(
                "not-by-http",
                Some(usage),
                key.id().as_str(),
                unusable.to_string(),
                advice,
            ));
        }
    }
    found
}

/// The leniency towards directories that never had a mark is not for those who rotate.
fn missing_mark(usage: &Usage, opened: &Opened) -> Option<Finding> {
    if !usage.has_primary() {
        return None;
    }
    let mut candidates = opened
        .listing
        .revisions
        .iter()
        .filter(|(_, listed)| uses::is_candidate(usage, listed));
    let (id, listed) = candidates.next()?;
    if candidates.next().is_some() || listed.marked {
        return None;
    }
    let message = format!("nothing is marked; {id} is presented because it is the only one");
    let advice = "mark it .primary before a second one is staged: else nothing would say which to present";
    Some(warning("no-mark", Some(usage.name()), id.as_str(), message, advice))
}

fn writable(opened: &Opened) -> impl Iterator<Item = Finding> {
    opened.listing.writable.iter().map(|name| {
        let advice = "take the write permission from others: who may write here decides what is presented and trusted";
        warning("writable", None, name, "anyone may write to it", advice)
    })
}

fn names(opened: &Opened, sets: &[(Usage, Set)]) -> Vec<Finding> {
    let listing = &opened.listing;
    let mut found = Vec::new();
    for (id, listed) in &listing.revisions {
        if is_fixed(id, listed) {
            let message = format!(
                "fixed names ({}): the next content must take the place of this one, so the two cannot overlap",
                listed.files.join(", ")
            );
            let advice = "to rotate without a gap, have the writer give each content an id of its own";
            found.push(warning("fixed-name", None, id.as_str(), message, advice));
        }
        let is_candidate = |listed: &Listed| sets.iter().any(|(usage, _)| uses::is_candidate(usage, listed));
        let unrevoked = Listed {
            revoked: false,
            ..listed.clone()
        };
        if listed.revoked || listed.parts.is_empty() || is_candidate(&unrevoked) {
            continue;
        }
        if listed.marked {
            let message = "it is marked, but it is no candidate of any use, so the mark means nothing";
            let advice = "complete it under a new id, or take the mark away";
            found.push(warning("idle-mark", None, id.as_str(), message, advice));
        }
        let of_a_use = sets.iter().find(|(usage, _)| {
            usage.parts().any(|part| listed.parts.contains(part))
                && !(is_fixed(id, listed) || belongs_elsewhere(listed))
        });
        if let Some((usage, _)) = of_a_use {
            let parts: Vec<_> = listed.parts.iter().map(String::as_str).collect();
            let message = format!("it has {} only, which makes no revision of this use", parts.join(", "));
            let advice = "publish all its parts in one publication, or remove it";
            found.push(warning("incomplete", Some(usage.name()), id.as_str(), message, advice));
        }
    }
    let marked: Vec<_> = listing.marked().map(RevisionId::as_str).collect();
    if marked.len() > 1 {
        let advice = "writers mark at most one revision in a publication; give each use a directory of its own";
        let message = format!("{} are marked", marked.join(", "));
        found.push(warning("several-marks", None, ".", message, advice));
    }
    found
}

/// The names that cert-manager and `kubectl create secret tls` give.
fn is_fixed(id: &RevisionId, listed: &Listed) -> bool {
    let has = |part: &str| listed.parts.contains(part);
    *id == "tls" && (has("crt") || has("key")) || *id == "ca" && has("crt")
}

/// A whole identity where only anchors are looked for, and the like: another use of the directory, not half of this.
fn belongs_elsewhere(listed: &Listed) -> bool {
    let has = |part: &str| listed.parts.contains(part);
    has("crt") && has("key") || has("private")
}
