//! How the demo shows itself: a few lines redrawn in place on a terminal, one line after another elsewhere.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::directories::Publication;
use super::load::Counters;
use super::{Plan, Side};

const FRAME: Duration = Duration::from_millis(200);
const PLAIN_LINE: Duration = Duration::from_secs(1);
/// Nothing is wider, so that it fits in a terminal of 80 columns.
const WIDTH: usize = 79;

pub(super) struct Screen {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

struct Shared {
    plan: Plan,
    begun: Instant,
    server: Side,
    clients: Vec<Side>,
    counters: Arc<Counters>,
    now: Mutex<Now>,
    style: Style,
}

#[derive(Clone, Debug, Default)]
struct Now {
    rotation: u32,
    doing: String,
    done: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    InPlace { colour: bool },
}

/// Requests so far and in the last while.
#[derive(Debug)]
struct Rate {
    at: Instant,
    requests: u64,
    a_second: u64,
}

impl Screen {
    pub(super) fn start(plan: Plan, server: Side, clients: Vec<Side>, counters: Arc<Counters>) -> Self {
        let shared = Arc::new(Shared {
            plan,
            begun: Instant::now(),
            server,
            clients,
            counters,
            now: Mutex::default(),
            style: Style::of_stdout(),
        });
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(Arc::clone(&shared).draw(stopped));
        Self { shared, stop, task }
    }

    pub(super) fn rotation(&self, rotation: u32) {
        self.shared.now().rotation = rotation;
    }

    pub(super) fn doing(&self, what: &str) {
        self.shared.now().doing = what.to_owned();
        self.shared.plain(what);
    }

    /// Each consumer holds what was published.
    pub(super) fn done(&self, what: &str, publications: &[Publication]) {
        let ids: Vec<_> = publications.iter().filter_map(|it| it.id.get(..8)).collect();
        let held = format!("everyone holds it ({})", ids.join(", "));
        self.shared.now().done = what.to_owned();
        self.shared.plain(&format!("  {held}"));
        self.shared.plain(&format!("  {}", self.shared.sides()));
        self.shared.now().doing = held;
    }

    /// Draws for the last time.
    pub(super) async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.task.await;
    }
}

impl Style {
    fn of_stdout() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if !io::stdout().is_terminal() || dumb {
            return Self::Plain;
        }
        // Lines that wrap, or scroll, cannot be redrawn in place. A size of 0 says that nobody knows.
        let size = rustix::termios::tcgetwinsize(io::stdout());
        let too_small = |size: rustix::termios::Winsize| {
            (1..=WIDTH).contains(&usize::from(size.ws_col)) || (1..10).contains(&size.ws_row)
        };
        match size {
            Ok(size) if too_small(size) => Self::Plain,
            _ => Self::InPlace {
                colour: !set("NO_COLOR"),
            },
        }
    }
}

impl Shared {
    fn now(&self) -> std::sync::MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn draw(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        let mut ticks = interval(match self.style {
            Style::Plain => PLAIN_LINE,
            Style::InPlace { .. } => FRAME,
        });
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rate = Rate {
            at: self.begun,
            requests: 0,
            a_second: 0,
        };
        let mut drawn = 0;
        if self.style == Style::Plain {
            self.plain(&self.title());
            self.plain(&self.sides());
            ticks.tick().await;
        }
        loop {
            let last = tokio::select! {
                _ = stopped.changed() => true,
                _ = ticks.tick() => false,
            };
            rate.follow(self.counters.requests.load(Ordering::Relaxed));
            match self.style {
                // At the end there is a summary.
                Style::Plain if last => {}
                Style::Plain => self.plain(&self.load(&rate)),
                Style::InPlace { colour } => drawn = self.frame(&rate, colour, drawn),
            }
            if last {
                return;
            }
        }
    }

    /// Draws over what was drawn before; gives back the number of lines.
    fn frame(&self, rate: &Rate, colour: bool, drawn: usize) -> usize {
        let now = self.now().clone();
        let failed = self.counters.failed.load(Ordering::Relaxed);
        let rows = [
            ("keydir demo", self.title(), "1"),
            ("", String::new(), ""),
            ("done", now.done, "2"),
            ("now", now.doing, "1"),
            (
                "server",
                side("presents", "trusts", std::slice::from_ref(&self.server)),
                "36",
            ),
            ("clients", side("present ", "trust ", &self.clients), "36"),
            ("load", self.load(rate), ""),
            ("failed", failed.to_string(), if failed == 0 { "32" } else { "1;31" }),
        ];
        let mut text = String::new();
        if drawn > 0 {
            // Writing to a String does not fail.
            let _ = write!(text, "\x1b[{drawn}A");
        }
        let count = rows.len();
        for (label, content, code) in rows {
            let line: String = format!("{label:<12} {content}").chars().take(WIDTH).collect();
            match code {
                "" => text.push_str(line.trim_end()),
                code if colour => {
                    let _ = write!(text, "\x1b[{code}m{}\x1b[0m", line.trim_end());
                }
                _ => text.push_str(line.trim_end()),
            }
            // Clears what a longer line has left.
            text.push_str("\x1b[K\n");
        }
        print(&text);
        count
    }

    fn plain(&self, line: &str) {
        if self.style == Style::Plain {
            print(&format!("{:6.1} s  {line}\n", self.begun.elapsed().as_secs_f64()));
        }
    }

    fn title(&self) -> String {
        let many = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let rotations = usize::try_from(self.plan.rotations).unwrap_or(usize::MAX);
        let clients = many(self.clients.len(), "client");
        match self.style {
            Style::Plain => format!(
                "mutual TLS on loopback, {clients}, {} of the CA",
                many(rotations, "complete rotation")
            ),
            Style::InPlace { .. } => format!(
                "{clients}, mutual TLS, CA rotation {} of {rotations}, {:.1} s",
                self.now().rotation,
                self.begun.elapsed().as_secs_f64()
            ),
        }
    }

    fn load(&self, rate: &Rate) -> String {
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let text = format!(
            "{} requests/s, {} in all; {} handshakes, {} resumed",
            rate.a_second,
            count(&self.counters.requests),
            count(&self.counters.handshakes),
            count(&self.counters.resumed),
        );
        match self.style {
            Style::Plain => format!("{text}; {} failed", count(&self.counters.failed)),
            Style::InPlace { .. } => text,
        }
    }

    fn sides(&self) -> String {
        format!(
            "server {}; clients {}",
            side("presents", "trusts", std::slice::from_ref(&self.server)),
            side("present", "trust", &self.clients)
        )
    }
}

/// What one side presents and trusts at this moment. If not all of it do the same, all that some do is named.
fn side(presents: &str, trusts: &str, members: &[Side]) -> String {
    let mut presented = BTreeSet::new();
    let mut trusted = BTreeSet::new();
    for member in members {
        let primary = member.identity.primary();
        presented.insert(primary.map_or_else(|_| "nothing".to_owned(), |key| key.id().to_string()));
        let set = member.anchors.live().snapshot();
        let ids: Vec<_> = set.iter().map(|key| key.id().to_string()).collect();
        trusted.insert(ids.join(" "));
    }
    let join = |all: BTreeSet<String>| all.into_iter().collect::<Vec<_>>().join(" or ");
    format!("{presents} {}, {trusts} {}", join(presented), join(trusted))
}

impl Rate {
    fn follow(&mut self, requests: u64) {
        let now = Instant::now();
        let elapsed = now.duration_since(self.at);
        // Shorter whiles would make the number jump about.
        if elapsed >= Duration::from_millis(900) {
            let new = requests.saturating_sub(self.requests);
            self.a_second = u64::try_from(u128::from(new) * 1000 / elapsed.as_millis().max(1)).unwrap_or(u64::MAX);
            self.at = now;
            self.requests = requests;
        }
    }
}

/// Nobody may be reading; the demo goes on, and its exit code tells.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
