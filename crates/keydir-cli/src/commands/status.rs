//! `keydir status`: where the directories of a policy stand.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use keydir_rotate::{Keeper, Look, Phase, State, Status};
use serde::Serialize;

use super::run::{Policy, is_stopped, stop};
use crate::args;
use crate::failure::{ERRORS, FINE, Failure};
use crate::moment::rfc3339;
use crate::out::{Out, Style};

/// So often it is looked, with --watch.
const TICK: Duration = Duration::from_secs(1);

#[derive(PartialEq, Eq, Serialize)]
struct Report {
    version: u32,
    directories: Vec<Entry>,
}

#[derive(PartialEq, Eq, Serialize)]
struct Entry {
    directory: String,
    /// Why nothing is known of it.
    error: Option<String>,
    publication: Option<String>,
    revisions: Vec<Revision>,
    paused: Option<String>,
    /// What is next.
    next: Option<String>,
    /// Why not now.
    blocked: Vec<String>,
    consumers: Vec<Consumer>,
    /// Why some consumers say nothing.
    troubles: Vec<String>,
}

#[derive(PartialEq, Eq, Serialize)]
struct Revision {
    id: String,
    phase: Phase,
    since: String,
    /// When it is refused at the latest, since somebody else may have it.
    compromised: Option<String>,
    /// What rests on it, at all consumers.
    uses: u64,
}

#[derive(PartialEq, Eq, Serialize)]
struct Consumer {
    name: String,
    /// Whether it has adopted what is published.
    adopted: bool,
}

pub(crate) fn run(args: &args::Status, out: &mut Out) -> Result<u8, Failure> {
    let policy = Policy::open(&args.policy)?;
    let mut keeper = Keeper::new(&policy.settings);
    let mut report = Report::of(keeper.status());
    report.print(args.json, out)?;
    if !args.watch {
        let failed = report.directories.iter().any(|entry| entry.error.is_some());
        return Ok(if failed { ERRORS } else { FINE });
    }
    let stop = stop()?;
    while !is_stopped(&stop, TICK) {
        let now = Report::of(keeper.status());
        if now != report {
            report = now;
            if !args.json {
                out.line("", 0)?;
            }
            report.print(args.json, out)?;
        }
    }
    Ok(FINE)
}

impl Report {
    fn of(statuses: Vec<Status>) -> Self {
        Self {
            version: 1,
            directories: statuses.into_iter().map(Entry::of).collect(),
        }
    }

    fn print(&self, json: bool, out: &mut Out) -> io::Result<()> {
        if json {
            return out.json(self);
        }
        self.directories.iter().try_for_each(|entry| entry.print(out))
    }
}

impl Entry {
    fn of(status: Status) -> Self {
        let (error, look) = match status.look {
            Ok(look) => (None, Some(look)),
            Err(error) => (Some(error.to_string()), None),
        };
        let state = look.as_ref().map(|look| &look.state);
        let publication = state.map(|state| state.publication.clone());
        let adopted = |consumer: &keydir_rotate::Consumer| {
            let said = consumer.said.as_ref();
            said.is_some_and(|said| said.publication == publication && said.not_adopted.is_empty())
        };
        let uses = |id: &keydir::RevisionId| {
            let said = status.consumers.iter().filter_map(|consumer| consumer.said.as_ref());
            said.filter_map(|said| said.uses.get(id))
                .fold(0, |sum: u64, uses| sum.saturating_add(*uses))
        };
        let revision = |(id, stage): (&keydir::RevisionId, &keydir_rotate::Stage)| Revision {
            id: id.to_string(),
            phase: stage.phase,
            since: at(stage.since),
            compromised: stage.compromised.map(at),
            uses: uses(id),
        };
        let blocked = |look: &Look| look.decision.blocked.iter().map(ToString::to_string).collect();
        Self {
            directory: status.path.display().to_string(),
            revisions: state
                .map(|state| state.revisions.iter().map(revision).collect())
                .unwrap_or_default(),
            paused: state.and_then(|state: &State| state.paused.clone()),
            next: look
                .as_ref()
                .and_then(|look| Some(look.decision.next.as_ref()?.to_string())),
            blocked: look.as_ref().map(blocked).unwrap_or_default(),
            consumers: status
                .consumers
                .iter()
                .map(|consumer| Consumer {
                    name: consumer.name.clone(),
                    adopted: adopted(consumer),
                })
                .collect(),
            troubles: status.troubles,
            publication,
            error,
        }
    }

    fn print(&self, out: &mut Out) -> io::Result<()> {
        out.styled_line(Style::Bold, &self.directory, "", 2)?;
        if let Some(error) = &self.error {
            return out.line(&format!("  {error}"), 4);
        }
        for revision in &self.revisions {
            let phase = serde_json::to_value(revision.phase).ok();
            let phase = phase.as_ref().and_then(|phase| phase.as_str()).unwrap_or_default();
            let mut text = format!("  {}  {phase} since {}", revision.id, revision.since);
            if revision.uses > 0 {
                text += &format!(", {} uses", revision.uses);
            }
            if let Some(by) = &revision.compromised {
                text += &format!(", compromised: refused at {by}, at the latest");
            }
            out.line(&text, 6)?;
        }
        match (&self.next, self.blocked.is_empty()) {
            (None, _) => out.line("  nothing to do", 4)?,
            (Some(next), true) => out.line(&format!("  next: {next}, now"), 4)?,
            (Some(next), false) => {
                out.line(&format!("  next: {next}, but"), 4)?;
                for reason in &self.blocked {
                    out.line(&format!("    {reason}"), 6)?;
                }
            }
        }
        let adopted = self.consumers.iter().filter(|consumer| consumer.adopted).count();
        if !self.consumers.is_empty() {
            let text = format!("  {adopted} of {} consumers have adopted it", self.consumers.len());
            out.line(&text, 4)?;
        }
        self.troubles
            .iter()
            .try_for_each(|trouble| out.line(&format!("  {trouble}"), 4))
    }
}

fn at(seconds: u64) -> String {
    rfc3339(UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799)))
}
