//! One scheduling thread for the process: it waits, and says when; workers do. It never touches a path itself.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::interest::Interest;
use crate::tick;
use crate::watch::{Happened, Watch};
use crate::workers::{Task, Workers};

/// A task that hangs for longer is written off.
pub(crate) const STUCK: Duration = Duration::from_secs(10);

/// What the scheduler starts.
pub(crate) trait Scheduled: Task {
    /// Something happened to its directory. True if it is to be run now; false if it runs already, and will run again.
    fn wake(&self) -> bool;
    /// Its time has come; likewise.
    fn due(&self) -> bool;
}

/// Threads that serve all directories of the process; they end after the last directory has gone.
pub(crate) struct Scheduler {
    shared: Arc<Shared>,
    watch: Option<Watch>,
}

struct Shared {
    timers: Mutex<Timers>,
    wake: Condvar,
    workers: Workers,
}

#[derive(Default)]
struct Timers {
    tasks: HashMap<u64, (Weak<dyn Scheduled>, Option<Instant>)>,
    due: BTreeSet<(Instant, u64)>,
    next_task: u64,
    /// When to look for hung workers.
    inspect: Option<Instant>,
    tick: Option<Instant>,
    /// When the thread wakes up by itself.
    sleeping_until: Option<Instant>,
    stopped: bool,
}

static CURRENT: Mutex<Weak<Scheduler>> = Mutex::new(Weak::new());

impl Scheduler {
    /// The scheduler of the process; started if there is none.
    pub(crate) fn get() -> std::io::Result<Arc<Self>> {
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scheduler) = current.upgrade() {
            return Ok(scheduler);
        }
        let shared = Arc::new(Shared {
            timers: Mutex::default(),
            wake: Condvar::new(),
            workers: Workers::default(),
        });
        let scheduling = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("keydir-watch".to_owned())
            .spawn(move || scheduling.schedule())?;
        let happened = Arc::downgrade(&shared);
        let watch = Watch::start(Arc::new(move |what| {
            if let Some(shared) = happened.upgrade() {
                shared.happened(what);
            }
        }));
        let scheduler = Arc::new(Self {
            watch: watch
                .inspect_err(|error| tracing::warn!(%error, "changes cannot be watched; key directories are polled"))
                .ok(),
            shared,
        });
        *current = Arc::downgrade(&scheduler);
        let ticking = Arc::downgrade(&scheduler.shared);
        tick::on_start(Box::new(move || {
            if let Some(shared) = ticking.upgrade() {
                let mut timers = shared.lock();
                timers.tick = Some(Instant::now() + tick::PERIOD);
                shared.nudge(&timers);
            }
        }));
        Ok(scheduler)
    }

    /// Takes up a task; it is not run until it is woken or scheduled.
    pub(crate) fn add(&self, task: Weak<dyn Scheduled>) -> u64 {
        let mut timers = self.shared.lock();
        let number = timers.next_task;
        timers.next_task += 1;
        timers.tasks.insert(number, (task, None));
        number
    }

    pub(crate) fn remove(&self, number: u64) {
        let mut timers = self.shared.lock();
        if let Some((_, Some(at))) = timers.tasks.remove(&number) {
            timers.due.remove(&(at, number));
        }
        drop(timers);
        if let Some(watch) = &self.watch {
            watch.set(number, Vec::new());
        }
    }

    /// Runs a task as soon as a worker is free.
    pub(crate) fn run(&self, task: Arc<dyn Scheduled>) {
        self.shared.run([task]);
    }

    /// Sets the task's one alarm.
    pub(crate) fn schedule(&self, number: u64, at: Instant) {
        self.set_alarm(number, |_| at);
    }

    /// Moves the task's alarm, if it is later.
    pub(crate) fn no_later_than(&self, number: u64, at: Instant) {
        self.set_alarm(number, |before| before.map_or(at, |before| before.min(at)));
    }

    fn set_alarm(&self, number: u64, when: impl FnOnce(Option<Instant>) -> Instant) {
        let mut timers = self.shared.lock();
        let Some((_, alarm)) = timers.tasks.get_mut(&number) else {
            return;
        };
        let at = when(*alarm);
        if let Some(before) = alarm.replace(at) {
            timers.due.remove(&(before, number));
        }
        timers.due.insert((at, number));
        self.shared.nudge(&timers);
    }

    /// Says what the task wants to hear of.
    pub(crate) fn watch(&self, number: u64, interests: Vec<Interest>) {
        if let Some(watch) = &self.watch {
            watch.set(number, interests);
        }
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.wake.notify_all();
        self.shared.workers.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Timers> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread if something comes earlier than it knows.
    fn nudge(&self, timers: &Timers) {
        let next = timers.next();
        if next.is_some_and(|next| timers.sleeping_until.is_none_or(|until| next < until)) {
            self.wake.notify_all();
        }
    }

    fn run(&self, tasks: impl IntoIterator<Item = Arc<dyn Scheduled>>) {
        let mut tasks = tasks.into_iter().map(|task| task as Arc<dyn Task>).peekable();
        if tasks.peek().is_none() {
            return;
        }
        self.workers.submit(tasks);
        let mut timers = self.lock();
        if timers.inspect.is_none() {
            timers.inspect = Some(Instant::now() + STUCK);
            self.nudge(&timers);
        }
    }

    fn happened(&self, what: Happened) {
        let timers = self.lock();
        let tasks: Vec<_> = match what {
            Happened::ToAny => timers.tasks.values().filter_map(|(task, _)| task.upgrade()).collect(),
            Happened::To(numbers) => numbers
                .iter()
                .filter_map(|number| timers.tasks.get(number)?.0.upgrade())
                .collect(),
        };
        // A task may be the last of its directory: it must not be dropped under the lock.
        drop(timers);
        self.run(tasks.iter().filter(|task| task.wake()).cloned());
    }

    fn schedule(&self) {
        let mut timers = self.lock();
        while !timers.stopped {
            let now = Instant::now();
            let mut tasks = Vec::new();
            while let Some((at, number)) = timers.due.first().copied().filter(|(at, _)| *at <= now) {
                timers.due.remove(&(at, number));
                if let Some((task, alarm)) = timers.tasks.get_mut(&number) {
                    *alarm = None;
                    tasks.extend(task.upgrade());
                }
            }
            let inspect = timers.inspect.take_if(|at| *at <= now).is_some();
            let tick = timers.tick.take_if(|at| *at <= now).is_some();
            if tasks.is_empty() && !inspect && !tick {
                timers.sleeping_until = timers.next();
                timers = match timers.sleeping_until {
                    Some(next) => {
                        let wait = next.saturating_duration_since(now);
                        self.wake
                            .wait_timeout(timers, wait)
                            .unwrap_or_else(PoisonError::into_inner)
                            .0
                    }
                    None => self.wake.wait(timers).unwrap_or_else(PoisonError::into_inner),
                };
                continue;
            }
            drop(timers);
            self.run(tasks.iter().filter(|task| task.due()).cloned());
            drop(tasks);
            if inspect {
                self.workers.write_off(STUCK);
            }
            let busy = inspect && self.workers.is_busy();
            let ticking = tick && tick::tick();
            timers = self.lock();
            if busy {
                timers.inspect = Some(Instant::now() + STUCK / 10);
            }
            if ticking {
                timers.tick = Some(Instant::now() + tick::PERIOD);
            }
        }
    }
}

impl Timers {
    fn next(&self) -> Option<Instant> {
        let due = self.due.first().map(|(at, _)| *at);
        [due, self.inspect, self.tick].into_iter().flatten().min()
    }
}
