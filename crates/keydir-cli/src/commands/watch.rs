//! `keydir watch`: what each publication changes, live.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use keydir::{Dir, Problem, RevisionId, Usage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::check::heading;
use crate::args;
use crate::events::{Event, difference};
use crate::failure::{FINE, Failure};
use crate::findings::known;
use crate::listing::Listing;
use crate::moment::rfc3339;
use crate::opened::{Opened, Set};
use crate::out::{Out, Style};

/// So often it is asked whether anyone still reads, and whether the directory itself has changed.
const TICK: Duration = Duration::from_millis(200);

enum Message {
    Changed(usize, Set),
    Stop,
}

/// One line of output.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    directory: &'a str,
    /// `None`: about the directory, whatever the use.
    #[serde(rename = "use")]
    usage: Option<&'static str>,
    generation: u64,
    publication: Option<&'a str>,
    /// What is presented now.
    primary: Option<&'a RevisionId>,
    /// What is in force now.
    revisions: Vec<&'a RevisionId>,
    /// Whether the publication is loaded with nothing held and nothing set aside.
    adopted: Option<bool>,
    events: Vec<Event>,
}

struct Watcher<'a> {
    dir: &'a Dir,
    path: &'a Path,
    flat: bool,
    json: bool,
    out: &'a mut Out,
    sets: Vec<(Usage, Set)>,
    /// The last generation that a line was printed for.
    told: u64,
    /// The generation at the last tick.
    seen: u64,
    problems: Vec<Problem>,
    fault: Option<String>,
}

pub(crate) fn run(args: &args::Watch, out: &mut Out) -> Result<u8, Failure> {
    let opened = Opened::open(&args.source)?;
    let sets = opened.sets();
    let (sender, messages) = channel();
    let signals = Signals::new([SIGINT, SIGTERM]);
    let mut signals = signals.map_err(|error| Failure::Unreadable(format!("cannot wait for signals: {error}")))?;
    let stop = sender.clone();
    spawn(move || {
        if signals.forever().next().is_some() {
            let _ = stop.send(Message::Stop);
        }
    })?;
    for (index, live) in opened.views.iter().enumerate() {
        let (mut changes, sender) = (live.subscribe(), sender.clone());
        let set = live.snapshot();
        spawn(move || {
            // The set may have changed before anyone was subscribed: it is sent in any case.
            let mut set = set;
            while tell(&sender, index, set) {
                set = changes.recv().now;
            }
        })?;
    }
    if !args.source.json && out.is_terminal() {
        let layout = opened.dir.report().layout;
        out.line(&heading(opened.dir.path(), layout, &opened.uses(), opened.assumed), 2)?;
    }
    let mut watcher = Watcher {
        dir: &opened.dir,
        path: &args.source.dir,
        flat: args.source.flat,
        json: args.source.json,
        out,
        told: opened.dir.report().generation,
        seen: 0,
        sets,
        problems: Vec::new(),
        fault: None,
    };
    watcher.begin()?;
    loop {
        match messages.recv_timeout(TICK) {
            Ok(Message::Changed(index, set)) => watcher.changed(index, set)?,
            Err(RecvTimeoutError::Timeout) if nobody_reads() => return Ok(FINE),
            Err(RecvTimeoutError::Timeout) => watcher.idle()?,
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(FINE),
        }
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let spawned = thread::Builder::new().spawn(work);
    spawned
        .map(drop)
        .map_err(|error| Failure::Unreadable(format!("cannot start a thread: {error}")))
}

fn tell(sender: &Sender<Message>, index: usize, set: Set) -> bool {
    sender.send(Message::Changed(index, set)).is_ok()
}

impl Watcher<'_> {
    /// What is there at the start.
    fn begin(&mut self) -> io::Result<()> {
        for index in 0..self.sets.len() {
            let Some((usage, set)) = self.sets.get(index) else {
                continue;
            };
            let problem = |problem| Event::problem("problem", known(problem, Some(usage.name())));
            let mut events = vec![Event::simple("loaded")];
            events.extend(set.problems().iter().map(problem));
            self.line(Some(index), events)?;
        }
        self.idle()
    }

    fn changed(&mut self, index: usize, now: Set) -> io::Result<()> {
        let Some((usage, last)) = self.sets.get_mut(index) else {
            return Ok(());
        };
        if Arc::ptr_eq(last, &now) {
            return Ok(());
        }
        let before = std::mem::replace(last, Arc::clone(&now));
        let usage = *usage;
        let listing = Listing::read(self.path, self.flat).unwrap_or_default();
        let events = difference(&usage, Some(&before), &now, |id| listing.is_revoked(id));
        if events.is_empty() {
            return Ok(());
        }
        self.line(Some(index), events)
    }

    /// What concerns the directory itself, and publications that changed nothing for any use.
    fn idle(&mut self) -> io::Result<()> {
        let report = self.dir.report();
        let mut events = Vec::new();
        if report.fault != self.fault {
            events.push(match &report.fault {
                Some(reason) => Event::because("unreadable", reason.clone()),
                None => Event::simple("readable"),
            });
        }
        let old = std::mem::replace(&mut self.problems, report.problems);
        let fresh = self.problems.iter().filter(|problem| !old.contains(problem));
        events.extend(fresh.map(|problem| Event::problem("problem", known(problem, None))));
        let gone = old.iter().filter(|problem| !self.problems.contains(problem));
        events.extend(gone.map(|problem| Event::problem("solved", known(problem, None))));
        self.fault = report.fault;
        // The sets of a publication come after its number, so it is given one more tick.
        let settled = std::mem::replace(&mut self.seen, report.generation) == report.generation;
        if events.is_empty() && settled && report.generation > self.told {
            events.push(Event::simple("unchanged"));
        }
        if events.is_empty() {
            return Ok(());
        }
        if settled {
            self.told = self.told.max(report.generation);
        }
        self.line(None, events)
    }

    fn line(&mut self, index: Option<usize>, events: Vec<Event>) -> io::Result<()> {
        let (usage, set) = match index.and_then(|index| self.sets.get(index)) {
            Some((usage, set)) => (Some(usage.name()), Some(set)),
            None => (None, None),
        };
        let any = set.or_else(|| self.sets.first().map(|(_, set)| set));
        let generation = set.map_or(self.told, |set| set.generation());
        self.told = self.told.max(generation);
        let line = Line {
            time: rfc3339(self.dir.clock().now()),
            directory: self.dir.path(),
            usage,
            generation,
            publication: any.and_then(|set| set.publication()),
            primary: set.and_then(|set| set.primary().ok()).map(|key| key.id()),
            revisions: set
                .map(|set| set.iter().map(|key| key.id()).collect())
                .unwrap_or_default(),
            adopted: set.map(|set| set.is_adopted()),
            events,
        };
        if self.json {
            return self.out.json_line(&line);
        }
        let head = line.time.as_str();
        let mut texts = Vec::new();
        for event in &line.events {
            texts.push(match event.event {
                "loaded" => loaded(&line),
                "unchanged" => "published: nothing changed".to_owned(),
                "readable" => "the directory can be read again".to_owned(),
                "unreadable" => format!(
                    "the directory is unreadable: {}",
                    event.reason.as_deref().unwrap_or("-")
                ),
                _ => event.text(),
            });
        }
        let rest = format!(" {}: {}", line.usage.unwrap_or("directory"), texts.join("; "));
        self.out.styled_line(Style::Dim, head, &rest, 21)
    }
}

fn loaded(line: &Line<'_>) -> String {
    let ids: Vec<_> = line.revisions.iter().map(|id| id.as_str()).collect();
    let ids = if ids.is_empty() {
        "nothing".to_owned()
    } else {
        ids.join(", ")
    };
    match line.primary {
        Some(id) => format!("loaded {ids}; primary {id}"),
        None => format!("loaded {ids}"),
    }
}

/// Whether the other end of standard output is gone, which else only the next line would tell.
fn nobody_reads() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let polled = poll(&mut fds, Some(&now));
    polled.is_ok()
        && fds
            .iter()
            .any(|fd| fd.revents().intersects(PollFlags::ERR | PollFlags::HUP))
}
