//! `keydir ls`: the revisions of a directory, and how each stands for each use.

use std::collections::BTreeMap;
use std::io;
use std::time::SystemTime;

use keydir::{NoPrimary, RevisionId, Usage};
use serde::Serialize;

use super::check::heading;
use crate::args;
use crate::events::why;
use crate::failure::{FINE, Failure};
use crate::listing::Listed;
use crate::moment::{date, rfc3339};
use crate::opened::{Opened, Set};
use crate::out::Out;
use crate::uses;

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    directory: &'a str,
    layout: Option<&'static str>,
    publication: Option<String>,
    /// The uses were guessed.
    assumed: bool,
    uses: Vec<UseReport>,
    revisions: Vec<Row>,
}

#[derive(Serialize)]
struct UseReport {
    #[serde(rename = "use")]
    usage: &'static str,
    /// What a service that starts now presents.
    primary: Option<RevisionId>,
    /// Why that is nothing, or not simply what the mark says.
    no_primary: Option<String>,
}

#[derive(Serialize)]
struct Row {
    id: RevisionId,
    parts: Vec<String>,
    marked: bool,
    revoked: bool,
    /// By use; those that the revision is nothing to are left out.
    states: BTreeMap<&'static str, State>,
}

#[derive(Serialize)]
struct State {
    /// `primary`, `accepted`, `usable`, `unusable` or `revoked`.
    state: &'static str,
    pending: bool,
    expired: bool,
    /// The first end of a validity in it.
    not_after: Option<String>,
    /// Why it is unusable or held.
    reason: Option<String>,
    #[serde(skip)]
    ends: Option<SystemTime>,
}

pub(crate) fn run(args: &args::Ls, out: &mut Out) -> Result<u8, Failure> {
    let opened = Opened::open(&args.source)?;
    let sets = opened.sets();
    let revisions = opened.listing.revisions.iter();
    let report = Report {
        version: 1,
        directory: opened.dir.path(),
        layout: opened.dir.report().layout,
        publication: opened.publication(),
        assumed: opened.assumed,
        uses: sets.iter().map(|(usage, set)| of_use(usage, set)).collect(),
        revisions: revisions.map(|(id, listed)| row(id, listed, &sets)).collect(),
    };
    if args.source.json {
        out.json(&report)?;
    } else {
        print(&report, &opened.uses(), out)?;
    }
    Ok(FINE)
}

fn of_use(usage: &Usage, set: &Set) -> UseReport {
    let reason = set.no_primary().filter(|reason| **reason != NoPrimary::AcceptOnly);
    UseReport {
        usage: usage.name(),
        primary: set.primary().ok().map(|key| key.id().clone()),
        no_primary: reason.map(ToString::to_string),
    }
}

fn row(id: &RevisionId, listed: &Listed, sets: &[(Usage, Set)]) -> Row {
    let states = sets
        .iter()
        .filter_map(|(usage, set)| Some((usage.name(), state(id, listed, usage, set)?)));
    Row {
        id: id.clone(),
        parts: listed.parts.iter().cloned().collect(),
        marked: listed.marked,
        revoked: listed.revoked,
        states: states.collect(),
    }
}

fn state(id: &RevisionId, listed: &Listed, usage: &Usage, set: &Set) -> Option<State> {
    let bare = |state, reason| State {
        state,
        pending: false,
        expired: false,
        not_after: None,
        reason,
        ends: None,
    };
    if listed.revoked {
        let unmarked = Listed {
            revoked: false,
            ..listed.clone()
        };
        return uses::is_candidate(usage, &unmarked).then(|| bare("revoked", None));
    }
    let Some(key) = set.get(id.as_str()) else {
        let mut problems = set.problems().iter();
        let problem = problems.find(|problem| problem.code == "unusable" && *id == *problem.subject)?;
        return Some(bare("unusable", Some(problem.message.clone())));
    };
    let state = set.state(key)?;
    let ends = key.pieces().iter().map(|piece| piece.not_after).min();
    Some(State {
        state: match () {
            () if state.primary => "primary",
            () if usage.accepts_any() => "accepted",
            () => "usable",
        },
        pending: state.pending,
        expired: state.expired,
        not_after: ends.map(rfc3339),
        reason: state.held.as_ref().map(why),
        ends,
    })
}

fn print(report: &Report<'_>, uses: &[&str], out: &mut Out) -> io::Result<()> {
    if out.is_terminal() {
        out.line(&heading(report.directory, report.layout, uses, report.assumed), 2)?;
        if let Some(publication) = &report.publication {
            out.line(&format!("publication {publication}"), 2)?;
        }
        out.line("", 0)?;
    }
    let rows: Vec<_> = report.revisions.iter().flat_map(rows).collect();
    if rows.is_empty() && out.is_terminal() {
        return out.line("no revisions", 0);
    }
    out.table(["ID", "MARK", "USE", "STATE", "NOT AFTER", "PARTS"], &rows)?;
    if out.is_terminal() {
        let unclear = report.uses.iter().filter_map(|of| Some((of, of.no_primary.as_ref()?)));
        for (number, (of, reason)) in unclear.enumerate() {
            if number == 0 {
                out.line("", 0)?;
            }
            let presents = match &of.primary {
                Some(id) => format!("presents {id}, though"),
                None => "presents nothing:".to_owned(),
            };
            out.line(&format!("{} {presents} {reason}", of.usage), 2)?;
        }
    }
    Ok(())
}

/// A revision has a row for each of its uses; on one that has none, its marker or nothing is to be seen.
fn rows(revision: &Row) -> Vec<[String; 6]> {
    let row = |usage: &str, state: String, ends: String| {
        [
            revision.id.to_string(),
            if revision.marked { "marked" } else { "" }.to_owned(),
            usage.to_owned(),
            state,
            ends,
            revision.parts.join(","),
        ]
    };
    if revision.states.is_empty() {
        let state = if revision.revoked { "revoked" } else { "" };
        return vec![row("", state.to_owned(), String::new())];
    }
    let states = revision.states.iter();
    states
        .map(|(usage, state)| {
            let mut words = vec![state.state];
            words.extend(state.pending.then_some("pending"));
            words.extend(state.expired.then_some("expired"));
            row(usage, words.join(","), state.ends.map(date).unwrap_or_default())
        })
        .collect()
}
