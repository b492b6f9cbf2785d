//! `keydir run`: rotations that run themselves.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use keydir_rotate::{Event, Keeper, Settings, SettingsError};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::args;
use crate::failure::{ERRORS, FINE, Failure};
use crate::moment::rfc3339;
use crate::out::{Out, Style};

/// So often it is asked whether the policy has changed.
const TICK: Duration = Duration::from_millis(500);

/// One line of output.
#[derive(Serialize)]
struct Line {
    time: String,
    directory: Option<String>,
    /// What was done.
    step: Option<String>,
    /// What was not done, and why.
    error: Option<String>,
    /// Consumers that were waited for no longer.
    overdue: Vec<String>,
}

impl Line {
    fn new() -> Self {
        Self {
            time: rfc3339(SystemTime::now()),
            directory: None,
            step: None,
            error: None,
            overdue: Vec::new(),
        }
    }

    fn of(event: &Event) -> Self {
        let (path, line) = match event {
            Event::Done(path, step) => (
                path,
                Self {
                    step: Some(step.to_string()),
                    ..Self::new()
                },
            ),
            Event::Failed(path, error) => (
                path,
                Self {
                    error: Some(error.to_string()),
                    ..Self::new()
                },
            ),
            Event::Overdue(path, reasons) => (
                path,
                Self {
                    overdue: reasons.iter().map(ToString::to_string).collect(),
                    ..Self::new()
                },
            ),
            _ => return Self::new(),
        };
        Self {
            directory: Some(path.display().to_string()),
            ..line
        }
    }

    fn print(&self, json: bool, out: &mut Out) -> io::Result<()> {
        if json {
            return out.json_line(self);
        }
        let directory = self.directory.as_deref().unwrap_or("policy");
        let head = format!("{} {directory}", self.time);
        if let Some(step) = &self.step {
            out.styled_line(Style::Bold, &head, &format!(": {step}"), 2)?;
        }
        if let Some(error) = &self.error {
            out.styled_line(Style::Bold, &head, &format!(": failed: {error}"), 2)?;
        }
        for reason in &self.overdue {
            out.styled_line(Style::Bold, &head, &format!(": waits no longer, though {reason}"), 2)?;
        }
        Ok(())
    }
}

pub(crate) fn run(args: &args::Run, out: &mut Out) -> Result<u8, Failure> {
    let mut policy = Policy::open(&args.policy)?;
    let stop = stop()?;
    let mut keeper = Keeper::new(&policy.settings);
    loop {
        let (mut printed, mut failed) = (Ok(()), false);
        keeper.tick(|event| {
            failed |= matches!(event, Event::Failed(..));
            if printed.is_ok() {
                printed = Line::of(&event).print(args.json, out);
            }
        });
        printed?;
        if args.once {
            return Ok(if failed { ERRORS } else { FINE });
        }
        let left = keeper.next().map(|next| next.saturating_duration_since(Instant::now()));
        if is_stopped(&stop, left.unwrap_or(TICK).min(TICK)) {
            return Ok(FINE);
        }
        match policy.again(&args.policy) {
            Some(Ok(())) => keeper.follow(&policy.settings),
            Some(Err(error)) => {
                let line = Line {
                    error: Some(format!("{error}; the last good policy goes on")),
                    ..Line::new()
                };
                line.print(args.json, out)?;
            }
            None => {}
        }
    }
}

/// A policy, and the text that it was read from.
pub(crate) struct Policy {
    pub(crate) settings: Settings,
    text: String,
}

impl Policy {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::Unreadable(format!("{}: the policy cannot be read: {error}", path.display())))?;
        let settings = Settings::parse(&text, &path.display().to_string());
        Ok(Self {
            settings: settings.map_err(|error| Failure::Unreadable(error.to_string()))?,
            text,
        })
    }

    /// Reads it again, if it has changed. One that is gone has not.
    fn again(&mut self, path: &Path) -> Option<Result<(), SettingsError>> {
        let text = std::fs::read_to_string(path).ok().filter(|text| *text != self.text)?;
        let settings = Settings::parse(&text, &path.display().to_string());
        self.text = text;
        Some(settings.map(|settings| self.settings = settings))
    }
}

/// Hears of SIGINT and SIGTERM.
pub(crate) fn stop() -> Result<Receiver<()>, Failure> {
    let signals = Signals::new([SIGINT, SIGTERM]);
    let mut signals = signals.map_err(|error| Failure::Unreadable(format!("cannot wait for signals: {error}")))?;
    let (sender, stop) = channel();
    let waits = move || {
        if signals.forever().next().is_some() {
            let _ = sender.send(());
        }
    };
    let spawned = thread::Builder::new().spawn(waits);
    spawned.map_err(|error| Failure::Unreadable(format!("cannot start a thread: {error}")))?;
    Ok(stop)
}

/// Waits for a signal; says whether one came.
pub(crate) fn is_stopped(stop: &Receiver<()>, wait: Duration) -> bool {
    !matches!(stop.recv_timeout(wait), Err(RecvTimeoutError::Timeout))
}
