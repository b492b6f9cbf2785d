//! `keydir rotate`, `promote`, `retire`, `rollback`, `compromise`, `pause`, `resume`: what somebody orders.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use keydir_rotate::{Event, Keeper, Look, Make, Now, Phase, Preview, RotateError, Set, Step};
use serde::Serialize;

use super::run::Policy;
use crate::args::{self, Order};
use crate::failure::{ERRORS, FINE, Failure};
use crate::out::{Out, Style, clean};

#[derive(Default, Serialize)]
struct Report {
    version: u32,
    directory: String,
    /// Only shown, not done.
    planned: bool,
    /// Names that are added, and taken away.
    added: Vec<String>,
    removed: Vec<String>,
    /// Every step that was done in consequence.
    steps: Vec<String>,
    /// What is next.
    next: Option<String>,
    /// Why not now.
    blocked: Vec<String>,
    /// Why it was not done.
    refused: Vec<String>,
}

/// What is to be changed, or every reason why not.
type Change = Result<Box<dyn Fn(&mut Set)>, Vec<String>>;

pub(crate) fn rotate(order: &Order, out: &mut Out) -> Result<u8, Failure> {
    let change = |look: &Look| -> Change {
        let is_quiet = |phase| look.state.in_phase(phase).next().is_none();
        if [Phase::Staged, Phase::Retiring, Phase::Revoked]
            .into_iter()
            .all(is_quiet)
            || order.force
        {
            return Ok(Box::new(Set::request));
        }
        Err(vec![
            "a rotation is under way: keydir status says what it waits for".to_owned(),
        ])
    };
    move_on(order, true, change, out)
}

pub(crate) fn promote(order: &Order, out: &mut Out) -> Result<u8, Failure> {
    let change = |look: &Look| -> Change {
        let staged = look.state.in_phase(Phase::Staged).next().map(|(id, _)| id.clone());
        let Some(id) = staged else {
            return Err(vec![
                "no revision is staged: keydir rotate begins a rotation".to_owned(),
            ]);
        };
        if !order.force {
            is_due(look, &Step::Promote(id.clone()))?;
        }
        Ok(Box::new(move |set| set.promote(&id)))
    };
    move_on(order, false, change, out)
}

pub(crate) fn retire(order: &Order, out: &mut Out) -> Result<u8, Failure> {
    let change = |look: &Look| -> Change {
        let retiring = look.state.in_phase(Phase::Retiring).next().map(|(id, _)| id.clone());
        let Some(id) = retiring else {
            return Err(vec!["no revision is retiring".to_owned()]);
        };
        if !order.force {
            is_due(look, &Step::Retire(id.clone()))?;
        }
        // Whoever looks after it destroys what was made outside.
        Ok(Box::new(move |set| set.leave(&id)))
    };
    move_on(order, true, change, out)
}

pub(crate) fn roll_back(order: &Order, out: &mut Out) -> Result<u8, Failure> {
    let change = |look: &Look| -> Change {
        let retiring = look
            .state
            .in_phase(Phase::Retiring)
            .filter(|(_, stage)| stage.compromised.is_none());
        let latest = retiring.max_by_key(|(_, stage)| stage.since).map(|(id, _)| id.clone());
        match latest {
            Some(id) => Ok(Box::new(move |set| set.promote(&id))),
            None => Err(vec![
                "no revision is retiring that could be the primary again".to_owned(),
            ]),
        }
    };
    move_on(order, false, change, out)
}

pub(crate) fn compromise(args: &args::Compromise, out: &mut Out) -> Result<u8, Failure> {
    let within = args.within.unwrap_or(Duration::ZERO).as_secs();
    let by = Now::of_wall().wall.saturating_add(within);
    let id = args.id.clone();
    let change = |look: &Look| -> Change {
        let id = id.clone();
        match look.state.revisions.contains_key(&id) {
            true => Ok(Box::new(move |set| set.compromise(&id, by))),
            false => Err(vec![format!("there is no revision {id}")]),
        }
    };
    move_on(&args.order, true, change, out)
}

pub(crate) fn pause(args: &args::Pause, out: &mut Out) -> Result<u8, Failure> {
    let reason = args.reason.clone();
    let change = |_: &Look| -> Change {
        let reason = reason.clone();
        Ok(Box::new(move |set| set.pause(Some(reason.clone()))))
    };
    carry_out(&args.order, false, change, out)
}

pub(crate) fn resume(order: &Order, out: &mut Out) -> Result<u8, Failure> {
    carry_out(order, true, |_| Ok(Box::new(|set| set.pause(None))), out)
}

/// Likewise, where the directory moves by itself: anchors follow their CA.
fn move_on(order: &Order, goes_on: bool, change: impl FnOnce(&Look) -> Change, out: &mut Out) -> Result<u8, Failure> {
    let policy = Policy::open(&order.policy)?;
    let directory = policy.settings.of(&order.dir);
    if let Some((Make::Anchors, ca)) = directory.map(|directory| (&directory.make, directory.ca.as_deref())) {
        return Err(Failure::Usage(format!(
            "{} holds the anchors of the CA in {}, and follows it: order it there",
            order.dir.display(),
            ca.unwrap_or(&order.dir).display()
        )));
    }
    carry_out(order, goes_on, change, out)
}

fn is_due(look: &Look, step: &Step) -> Result<(), Vec<String>> {
    match &look.decision.next {
        Some(next) if next == step && look.decision.blocked.is_empty() => Ok(()),
        Some(next) if next == step => Err(look.decision.blocked.iter().map(ToString::to_string).collect()),
        Some(next) => Err(vec![format!("{next} comes first")]),
        None => Err(vec!["nothing is to be done".to_owned()]),
    }
}

/// Makes the change, and with `goes_on` does what may be done then.
fn carry_out(order: &Order, goes_on: bool, change: impl FnOnce(&Look) -> Change, out: &mut Out) -> Result<u8, Failure> {
    let policy = Policy::open(&order.policy)?;
    let mut keeper = Keeper::new(&policy.settings);
    let mut report = Report {
        version: 1,
        directory: order.dir.display().to_string(),
        planned: order.plan,
        ..Report::default()
    };
    let dir = &order.dir;
    let status = keeper.status().into_iter().find(|status| status.path == *dir);
    let Some(status) = status else {
        let known: Vec<String> = policy
            .settings
            .directories
            .iter()
            .map(|one| one.path.display().to_string())
            .collect();
        return Err(Failure::Usage(format!(
            "{} is not in the policy, which has {}",
            dir.display(),
            known.join(", ")
        )));
    };
    let done = status.look.map_err(|error| vec![error.to_string()]).and_then(|look| {
        let change = change(&look)?;
        let preview = keeper.preview(dir, |set| change(set));
        report.foresee(preview.ok_or_else(Vec::new)?)?;
        if order.plan {
            return Ok(());
        }
        let changed = keeper.change(dir, |set| change(set)).ok_or_else(Vec::new)?;
        changed.map_err(|error| vec![error.to_string()])?;
        if goes_on {
            report.steps = go_on(&mut keeper, dir)?;
        }
        let now = keeper.status().into_iter().find(|status| status.path == *dir);
        if let Some(Ok(look)) = now.map(|status| status.look) {
            report.next(&look);
        }
        Ok(())
    });
    report.refused = done.err().unwrap_or_default();
    report.print(order, out)?;
    Ok(if report.refused.is_empty() { FINE } else { ERRORS })
}

/// Every step that may be done now.
fn go_on(keeper: &mut Keeper, dir: &PathBuf) -> Result<Vec<String>, Vec<String>> {
    let (mut steps, mut failed) = (Vec::new(), Vec::new());
    keeper.tick(|event| match event {
        Event::Done(path, step) if path == *dir => steps.push(step.to_string()),
        Event::Done(path, step) => steps.push(format!("{step} in {}", path.display())),
        Event::Failed(path, error) if path == *dir => failed.push(error.to_string()),
        _ => {}
    });
    match failed.is_empty() {
        true => Ok(steps),
        false => Err(failed),
    }
}

impl Report {
    fn foresee(&mut self, preview: Result<Preview, RotateError>) -> Result<(), Vec<String>> {
        let preview = preview.map_err(|error| vec![error.to_string()])?;
        self.added = preview.added;
        self.removed = preview.removed;
        self.next(&preview.look);
        Ok(())
    }

    fn next(&mut self, look: &Look) {
        self.next = look.decision.next.as_ref().map(ToString::to_string);
        self.blocked = look.decision.blocked.iter().map(ToString::to_string).collect();
    }

    fn print(&self, order: &Order, out: &mut Out) -> io::Result<()> {
        if order.json {
            return out.json(self);
        }
        for reason in &self.refused {
            // With standard error gone there is nobody left to tell.
            let _ = writeln!(
                io::stderr(),
                "keydir: {}: not done: {}",
                clean(&self.directory),
                clean(reason)
            );
        }
        if !self.refused.is_empty() {
            return Ok(());
        }
        let head = if self.planned { "would change" } else { "done" };
        out.styled_line(Style::Bold, head, &format!(" {}", self.directory), 2)?;
        for (sign, names) in [("+", &self.added), ("-", &self.removed)] {
            for name in names {
                out.line(&format!("  {sign} {name}"), 4)?;
            }
        }
        for step in &self.steps {
            out.line(&format!("  {step}"), 4)?;
        }
        if let Some(next) = &self.next {
            out.line(&format!("  next: {next}"), 4)?;
            for reason in &self.blocked {
                out.line(&format!("    {reason}"), 6)?;
            }
        }
        Ok(())
    }
}
