//! Following one directory: the one place where reading, sets, time and the scheduler meet.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::error::{OpenError, OpenErrorKind, ReadError};
use crate::interest::interests;
use crate::job::Job;
use crate::problem::Problem;
use crate::publication::{Builder, Content, Publication, ROTATION};
use crate::read::{Look, Parts, Reader, Seen};
use crate::report::metrics::Emitted;
use crate::report::{DirReport, Loads, seconds};
use crate::scheduler::{Scheduled, Scheduler};
use crate::secret::Secret;
use crate::slot::{Check, Found, Slot};
use crate::workers::Task;

/// So long a plain directory that is being written to may keep `open` or `reload` waiting.
const UNSETTLED: Duration = Duration::from_secs(10);

/// What may be said about how a directory is followed.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) poll: Duration,
    pub(crate) wait: Duration,
    pub(crate) allow_empty: bool,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Follows one directory, as long as somebody has it open.
pub(crate) struct Follower {
    name: Arc<str>,
    source: Source,
    settings: Settings,
    slots: Mutex<Vec<Weak<dyn Slot>>>,
    status: Mutex<Status>,
    job: Job,
    /// `None` if no thread could be started: then checks run where they are asked for.
    scheduler: Option<(Arc<Scheduler>, u64)>,
    generation: AtomicU64,
    emitted: Emitted,
}

pub(crate) enum Source {
    Path { path: PathBuf, reader: Box<Mutex<Reader>> },
    Memory(Mutex<Vec<(String, Secret)>>),
}

#[derive(Default)]
pub(crate) struct Status {
    pub(crate) layout: Option<&'static str>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) fault: Option<ReadError>,
    /// Since when it has not stood still.
    pub(crate) unsettled: Option<Instant>,
    /// When it was last seen as it is.
    pub(crate) seen: Option<Instant>,
    pub(crate) checked: Option<u64>,
    pub(crate) loaded: Option<u64>,
    pub(crate) loads: Loads,
}

static OPEN: Mutex<Vec<Weak<Follower>>> = Mutex::new(Vec::new());

impl Follower {
    /// `name` is the directory as it is called in errors and events.
    pub(crate) fn start(name: &str, settings: Settings, source: Source) -> Arc<Self> {
        let scheduler = Scheduler::get()
            .inspect_err(
                |error| tracing::error!(%error, "no thread could be started; key directories are read only when asked"),
            )
            .ok();
        let follower = Arc::new_cyclic(|follower: &Weak<Self>| Self {
            name: name.into(),
            source,
            settings,
            slots: Mutex::default(),
            status: Mutex::default(),
            job: Job::default(),
            scheduler: scheduler.map(|scheduler| {
                let number = scheduler.add(follower.clone() as Weak<dyn Scheduled>);
                (scheduler, number)
            }),
            generation: AtomicU64::new(0),
            emitted: Emitted::default(),
        });
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|follower| follower.strong_count() > 0);
        open.push(Arc::downgrade(&follower));
        drop(open);
        follower
    }

    /// Every one there is.
    pub(crate) fn all() -> Vec<Arc<Self>> {
        let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// From now on this set is told of everything.
    pub(crate) fn add(&self, slot: &Arc<dyn Slot>) {
        self.slots().push(Arc::downgrade(slot));
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Weak<dyn Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live_slots(&self) -> Vec<Arc<dyn Slot>> {
        let mut slots = self.slots();
        slots.retain(|slot| slot.strong_count() > 0);
        slots.iter().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the last look could read the directory.
    pub(crate) fn read(&self) -> Result<(), OpenError> {
        let status = self.status();
        let kind = match &status.fault {
            Some(error) => OpenErrorKind::Read(error.clone()),
            None if status.seen.is_none() => OpenErrorKind::Unsettled,
            None => return Ok(()),
        };
        Err(OpenError::new(&self.name, kind))
    }

    /// Looks at the directory, and again whenever something happens, until `ready` or the time to wait is over.
    pub(crate) async fn settle(self: &Arc<Self>, ready: impl Fn() -> Result<(), OpenError>) -> Result<(), OpenError> {
        let deadline = Instant::now().checked_add(self.settings.wait);
        self.look().await;
        loop {
            let next = self.job.next_end();
            let error = match ready() {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
                return Err(error);
            }
            if let (Some((scheduler, number)), Some(deadline)) = (&self.scheduler, deadline) {
                scheduler.no_later_than(*number, deadline.min(self.next_poll()));
                next.await;
            } else {
                return Err(error);
            }
        }
    }

    /// Has the directory read, and waits for the end of a look that began after this call.
    pub(crate) async fn look(self: &Arc<Self>) {
        let (ticket, start) = self.job.request();
        if start {
            self.submit();
        }
        self.job.ended(ticket).await;
    }

    fn submit(self: &Arc<Self>) {
        match &self.scheduler {
            Some((scheduler, _)) => scheduler.run(Arc::clone(self) as Arc<dyn Scheduled>),
            None => Arc::clone(self).run(),
        }
    }

    /// All directories with the same interval are polled at the same moments, so that one wake-up serves them all.
    fn next_poll(&self) -> Instant {
        static START: OnceLock<Instant> = OnceLock::new();
        let (start, now) = (*START.get_or_init(Instant::now), Instant::now());
        let poll = self.settings.poll.as_millis().max(1);
        let since = now.saturating_duration_since(start).as_millis();
        // All directories of an interval are looked at together, at the very same instant.
        let next = u64::try_from((since / poll + 1) * poll).ok();
        let next = next.and_then(|next| start.checked_add(Duration::from_millis(next)));
        next.unwrap_or_else(|| now + Duration::from_secs(u32::MAX.into()))
    }

    fn look_at_source(&self, look: Look, slots: &[Arc<dyn Slot>]) -> Seen {
        match &self.source {
            Source::Path { reader, .. } => {
                let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
                reader.check(look, &slots)
            }
            Source::Memory(_) if look == Look::Poll => Seen::Unchanged,
            Source::Memory(files) => {
                let files = files.lock().unwrap_or_else(PoisonError::into_inner);
                Seen::Publication {
                    publication: in_memory(&files, &slots),
                    layout: "memory",
                    same: false,
                }
            }
        }
    }

    /// Hands what was seen to every set. True if the look is over.
    fn take(&self, seen: Seen, slots: &[Arc<dyn Slot>]) -> Result<(), Duration> {
        let now = self.settings.clock.now();
        let check = |found| Check {
            directory: &self.name,
            now,
            found,
        };
        let good = |status: &mut Status| {
            status.fault = None;
            status.unsettled = None;
            status.seen = Some(Instant::now());
            status.checked = seconds(now);
        };
        match seen {
            Seen::Unchanged => {
                for slot in slots.iter().filter(|slot| slot.is_due(now)) {
                    slot.check(&check(Found::Unchanged));
                }
                let mut status = self.status();
                status.loads.unchanged += 1;
                good(&mut status);
            }
            Seen::Publication {
                publication,
                layout,
                same,
            } => {
                let step = u64::from(!same || self.generation.load(Ordering::Relaxed) == 0);
                let generation = self.generation.fetch_add(step, Ordering::Relaxed) + step;
                for slot in slots {
                    slot.check(&check(Found::Publication {
                        publication: &publication,
                        generation,
                        same,
                    }));
                }
                let mut status = self.status();
                status.layout = Some(layout);
                status.problems = publication.problems;
                good(&mut status);
                if step == 1 {
                    status.loads.ok += 1;
                    status.loaded = status.checked;
                } else {
                    status.loads.unchanged += 1;
                }
            }
            Seen::Wait(time) => {
                let mut status = self.status();
                let since = *status.unsettled.get_or_insert_with(Instant::now);
                return if since.elapsed() < UNSETTLED { Err(time) } else { Ok(()) };
            }
            Seen::Unreadable(error) => {
                let mut status = self.status();
                if status.fault.as_ref() != Some(&error) {
                    tracing::error!(directory = &*self.name, %error, "cannot be read; what is loaded goes on");
                }
                status.fault = Some(error);
                status.loads.fault += 1;
                drop(status);
                for slot in slots {
                    slot.check(&check(Found::Fault));
                }
            }
        }
        Ok(())
    }

    fn next_alarm(&self, slots: &[Arc<dyn Slot>]) -> Instant {
        let now = self.settings.clock.now();
        let boundary = slots.iter().filter_map(|slot| slot.next()).min();
        let boundary = boundary.map(|at| at.duration_since(now).unwrap_or_default());
        let alarm = boundary.and_then(|wait| Instant::now().checked_add(wait));
        let poll = self.next_poll();
        alarm.map_or(poll, |alarm| alarm.min(poll))
    }

    pub(crate) fn report(&self) -> DirReport {
        let sets = self.live_slots().iter().map(|slot| slot.report()).collect();
        let status = self.status();
        DirReport {
            path: self.name.to_string(),
            layout: status.layout,
            generation: self.generation.load(Ordering::Relaxed),
            checked: status.checked,
            loaded: status.loaded,
            loads: status.loads,
            fault: status.fault.as_ref().map(ToString::to_string),
            problems: status.problems.clone(),
            sets,
        }
    }
}

impl Parts for &[Arc<dyn Slot>] {
    fn knows(&self, part: &str) -> bool {
        self.iter().any(|slot| slot.knows(part))
    }

    fn is_foreign(&self, part: &str) -> bool {
        !self.is_empty() && !self.knows(part)
    }

    fn is_private(&self, part: &str) -> bool {
        self.iter().any(|slot| slot.is_private(part))
    }
}

impl Task for Follower {
    fn run(self: Arc<Self>) {
        let look = self.job.begin();
        let slots = self.live_slots();
        let was_unsettled = self.status().unsettled.is_some();
        let seen = self.look_at_source(look, &slots);
        let may_have_moved = matches!(seen, Seen::Publication { .. } | Seen::Unreadable(_));
        let taken = self.take(seen, &slots);
        if let (true, Source::Path { path, .. }, Some((scheduler, number))) =
            (may_have_moved, &self.source, &self.scheduler)
        {
            scheduler.watch(*number, interests(path));
        }
        let alarm = match taken {
            Err(wait) => Instant::now() + wait,
            Ok(()) if was_unsettled && self.status().unsettled.is_some() => Instant::now() + Duration::from_millis(100),
            Ok(()) => self.next_alarm(&slots),
        };
        drop(slots);
        if let Some((scheduler, number)) = &self.scheduler {
            scheduler.schedule(*number, alarm);
        }
        self.emitted.emit(|| self.report());
        let waits = taken.is_err();
        if self.job.end(waits, look) || (waits && self.scheduler.is_none()) {
            self.submit();
        }
    }

    fn stuck(&self, running: Duration) {
        let error = ReadError::Stuck {
            seconds: running.as_secs(),
        };
        let mut status = self.status();
        if !matches!(status.fault, Some(ReadError::Stuck { .. })) {
            tracing::error!(directory = &*self.name, %error, "cannot be read; what is loaded goes on");
            status.loads.fault += 1;
        }
        status.fault = Some(error);
        drop(status);
        self.emitted.emit(|| self.report());
        self.job.give_up();
    }

    fn panicked(&self) {
        let mut status = self.status();
        status.fault = Some(ReadError::Panicked);
        status.loads.fault += 1;
        drop(status);
        self.emitted.emit(|| self.report());
        self.job.end(false, Look::Read);
        if let Some((scheduler, number)) = &self.scheduler {
            scheduler.schedule(*number, self.next_poll());
        }
    }
}

impl Scheduled for Follower {
    fn wake(&self) -> bool {
        self.job.wake(Look::Event)
    }

    fn due(&self) -> bool {
        self.job.due()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some((scheduler, number)) = &self.scheduler {
            scheduler.remove(*number);
        }
    }
}

fn in_memory(files: &[(String, Secret)], parts: &dyn Parts) -> Publication {
    let known = |part: &str| !parts.is_foreign(part);
    let mut builder = Builder::new(false, &known);
    for (name, content) in files {
        if name == ROTATION {
            builder.rotation(content.expose());
        }
        let Ok(()) = builder.add(name.as_bytes(), |part| {
            Ok::<_, std::convert::Infallible>(if parts.knows(part) {
                Content::Bytes(content.clone())
            } else {
                Content::Unread
            })
        });
    }
    builder.finish()
}
