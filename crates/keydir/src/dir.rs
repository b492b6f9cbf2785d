//! A key directory that is open: the one place where reading, views, time and the scheduler meet.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::block::block_on;
use crate::clock::{Clock, SystemClock};
use crate::error::{OpenError, OpenErrorKind, ReadError, ReloadError, StartError};
use crate::interest::interests;
use crate::job::Job;
use crate::live::{Check, Found, Live, Set, Slot};
use crate::problem::Problem;
use crate::publication::{Builder, Content, Publication};
use crate::read::{Look, Options, Parts, Reader, Seen};
use crate::report::{DirReport, seconds};
use crate::scheduler::{Scheduled, Scheduler};
use crate::secret::Secret;
use crate::view::View;
use crate::workers::Task;

const POLL: Duration = Duration::from_secs(30);
/// So long a plain directory that is being written to may keep `open` or `reload` waiting.
const UNSETTLED: Duration = Duration::from_secs(10);

/// A key directory, read live. Cheap to clone; it is watched as long as a clone or a [`Live`] set of it is there.
///
/// Open a directory once, at the start of the service. After `fork`, a child must open it anew: threads do not
/// survive a fork.
///
/// ```no_run
/// let dir = keydir::Dir::open("/run/secrets/mesh")?;
/// # Ok::<(), keydir::OpenError>(())
/// ```
#[derive(Clone)]
pub struct Dir(Arc<Core>);

/// How a directory is to be read; made by [`Dir::builder`].
#[derive(Clone)]
#[must_use]
pub struct DirBuilder {
    path: PathBuf,
    poll: Duration,
    options: Options,
    wait: Duration,
    allow_empty: bool,
    clock: Arc<dyn Clock>,
}

struct Core {
    name: Arc<str>,
    source: Source,
    poll: Duration,
    wait: Duration,
    allow_empty: bool,
    clock: Arc<dyn Clock>,
    slots: Mutex<Vec<Weak<dyn Slot>>>,
    status: Mutex<Status>,
    job: Job,
    /// `None` if no thread could be started: then checks run where they are asked for.
    scheduler: Option<(Arc<Scheduler>, u64)>,
    generation: AtomicU64,
}

enum Source {
    Path { path: PathBuf, reader: Box<Mutex<Reader>> },
    Memory(Mutex<Vec<(String, Secret)>>),
}

#[derive(Default)]
struct Status {
    layout: Option<&'static str>,
    problems: Vec<Problem>,
    fault: Option<ReadError>,
    /// Since when it has not stood still.
    unsettled: Option<Instant>,
    /// When it was last seen as it is.
    seen: Option<Instant>,
    checked: Option<u64>,
}

static OPEN: Mutex<Vec<Weak<Core>>> = Mutex::new(Vec::new());

impl Dir {
    /// Opens a directory and reads it once. What is served comes with [`view`](Self::view).
    ///
    /// # Errors
    /// If it cannot be read; see [`OpenError`]. [`DirBuilder::wait`] waits for it instead.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::builder(path).open()
    }

    /// [`open`](Self::open) for async callers; bound to no runtime. The reading itself happens on threads of keydir.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_async(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::builder(path).open_async().await
    }

    /// Opens a directory with options.
    pub fn builder(path: impl AsRef<Path>) -> DirBuilder {
        DirBuilder {
            path: path.as_ref().to_owned(),
            poll: POLL,
            options: Options::default(),
            wait: Duration::ZERO,
            allow_empty: false,
            clock: Arc::new(SystemClock),
        }
    }

    /// A directory in memory, for tests of what is built on keydir: the same way from the publication on.
    pub fn in_memory<N: Into<String>, C: Into<Secret>>(files: impl IntoIterator<Item = (N, C)>) -> Self {
        Self::in_memory_at(files, SystemClock)
    }

    /// A directory in memory with a clock of its own.
    pub fn in_memory_at<N: Into<String>, C: Into<Secret>>(
        files: impl IntoIterator<Item = (N, C)>,
        clock: impl Clock,
    ) -> Self {
        let files = files
            .into_iter()
            .map(|(name, content)| (name.into(), content.into()))
            .collect();
        let builder = Self::builder("(memory)");
        let builder = DirBuilder {
            clock: Arc::new(clock),
            ..builder
        };
        Core::start(builder, Source::Memory(Mutex::new(files)))
    }

    /// Publishes a whole set of files to a directory [in memory](Self::in_memory); returns when every view has
    /// swapped.
    ///
    /// # Errors
    /// For a directory with a path: that is written by a [`Publisher`](crate::Publisher).
    pub fn publish<N: Into<String>, C: Into<Secret>>(
        &self,
        files: impl IntoIterator<Item = (N, C)>,
    ) -> Result<(), ReloadError> {
        let Source::Memory(memory) = &self.0.source else {
            let error = ReadError::Io {
                action: "publish to it",
                reason: "it is not in memory".to_owned(),
            };
            return Err(ReloadError::new(&self.0.name, Some(error)));
        };
        let files = files
            .into_iter()
            .map(|(name, content)| (name.into(), content.into()))
            .collect();
        *memory.lock().unwrap_or_else(PoisonError::into_inner) = files;
        self.reload()
    }

    /// Reads the directory for one use. Several views of one directory are made of the same publications.
    ///
    /// # Errors
    /// If there is nothing to present, or nothing to accept, for a use that does; see [`OpenError`].
    pub fn view<V: View>(&self, view: V) -> Result<Live<V>, OpenError> {
        block_on(self.view_async(view))
    }

    /// [`view`](Self::view) for async callers.
    ///
    /// # Errors
    /// As [`view`](Self::view).
    pub async fn view_async<V: View>(&self, view: V) -> Result<Live<V>, OpenError> {
        let usage = view.usage().name();
        let fail = |error| OpenError::new(&self.0.name, OpenErrorKind::Start { usage, error });
        let set = Set::new(view, self.0.allow_empty, self.0.clock.now())
            .map_err(|broken| fail(StartError::View(broken.to_string())))?;
        let set = Arc::new(set);
        let slot: Weak<dyn Slot> = Arc::downgrade(&(Arc::clone(&set) as Arc<dyn Slot>));
        self.0.slots().push(slot);
        let start = || match set.started() {
            Ok(()) => Ok(()),
            Err(StartError::Unreadable) => Err(self.0.read().err().unwrap_or_else(|| fail(StartError::Unreadable))),
            Err(error) => Err(fail(error)),
        };
        self.0.settle(start).await?;
        Ok(Live::new(set, self.clone()))
    }

    /// Looks at the directory now, and returns when every view has what is there.
    ///
    /// # Errors
    /// If it cannot be read; what was loaded before goes on.
    pub fn reload(&self) -> Result<(), ReloadError> {
        block_on(self.reload_async())
    }

    /// [`reload`](Self::reload) for async callers.
    ///
    /// # Errors
    /// As [`reload`](Self::reload).
    pub async fn reload_async(&self) -> Result<(), ReloadError> {
        self.0.look().await;
        let status = self.0.status();
        match &status.fault {
            Some(error) => Err(ReloadError::new(&self.0.name, Some(error.clone()))),
            None if status.unsettled.is_some() => Err(ReloadError::new(&self.0.name, None)),
            None => Ok(()),
        }
    }

    /// Whether the directory was seen as it is within the last `max_age`. Polling sees it every 30 seconds by default,
    /// so ask for more than that.
    pub fn healthy(&self, max_age: Duration) -> bool {
        let status = self.0.status();
        status.fault.is_none() && status.seen.is_some_and(|seen| seen.elapsed() <= max_age)
    }

    /// The path, as it was given.
    pub fn path(&self) -> &str {
        &self.0.name
    }

    /// The clock by which validity is judged.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.clock
    }

    /// What is wrong with names and files, whatever the use. What is wrong for one use, its set knows.
    pub fn problems(&self) -> Vec<Problem> {
        self.0.status().problems.clone()
    }

    /// What this directory's sets hold.
    pub fn report(&self) -> DirReport {
        self.0.report()
    }
}

impl fmt::Debug for Dir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dir")
            .field("path", &self.0.name)
            .finish_non_exhaustive()
    }
}

impl DirBuilder {
    /// How often the directory is looked at though no event came; 30 seconds by default. In the kubelet's layout that
    /// costs one system call.
    pub fn poll(mut self, poll: Duration) -> Self {
        self.poll = poll.max(Duration::from_millis(10));
        self
    }

    /// The flat layout: the whole directory is one revision, marked, with the id `flat`; file names are parts.
    pub fn flat(mut self) -> Self {
        self.options.flat = true;
        self
    }

    /// The limits: bytes of a file (1 MiB by default), bytes of all files that are read (64 MiB), entries (100,000).
    pub fn limits(mut self, file: u64, bytes: u64, entries: usize) -> Self {
        self.options.max_file = file;
        self.options.max_bytes = bytes;
        self.options.max_entries = entries;
        self
    }

    /// How long to wait for a directory, and for a usable set in it, that is not there yet. Not at all by default.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Starts without a usable set, or even without the directory, and serves what comes.
    pub fn allow_empty(mut self) -> Self {
        self.allow_empty = true;
        self
    }

    /// The clock by which validity is judged.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Opens the directory.
    ///
    /// # Errors
    /// As [`Dir::open`].
    pub fn open(self) -> Result<Dir, OpenError> {
        block_on(self.open_async())
    }

    /// Opens the directory, for async callers.
    ///
    /// # Errors
    /// As [`Dir::open`].
    pub async fn open_async(self) -> Result<Dir, OpenError> {
        let source = Source::Path {
            reader: Box::new(Mutex::new(Reader::new(&self.path, self.options.clone()))),
            path: self.path.clone(),
        };
        let dir = Core::start(self, source);
        let core = &dir.0;
        core.settle(|| if core.allow_empty { Ok(()) } else { core.read() })
            .await?;
        Ok(dir)
    }
}

impl fmt::Debug for DirBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirBuilder")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Core {
    fn start(builder: DirBuilder, source: Source) -> Dir {
        let scheduler = Scheduler::get()
            .inspect_err(
                |error| tracing::error!(%error, "no thread could be started; key directories are read only when asked"),
            )
            .ok();
        let core = Arc::new_cyclic(|core: &Weak<Self>| Self {
            name: builder.path.to_string_lossy().into(),
            source,
            poll: builder.poll,
            wait: builder.wait,
            allow_empty: builder.allow_empty,
            clock: builder.clock,
            slots: Mutex::default(),
            status: Mutex::default(),
            job: Job::default(),
            scheduler: scheduler.map(|scheduler| {
                let number = scheduler.add(core.clone() as Weak<dyn Scheduled>);
                (scheduler, number)
            }),
            generation: AtomicU64::new(0),
        });
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|core| core.strong_count() > 0);
        open.push(Arc::downgrade(&core));
        drop(open);
        Dir(core)
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Weak<dyn Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live_slots(&self) -> Vec<Arc<dyn Slot>> {
        let mut slots = self.slots();
        slots.retain(|slot| slot.strong_count() > 0);
        slots.iter().filter_map(Weak::upgrade).collect()
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the last look could read the directory.
    fn read(&self) -> Result<(), OpenError> {
        let status = self.status();
        let kind = match &status.fault {
            Some(error) => OpenErrorKind::Read(error.clone()),
            None if status.seen.is_none() => OpenErrorKind::Unsettled,
            None => return Ok(()),
        };
        Err(OpenError::new(&self.name, kind))
    }

    /// Looks at the directory, and again whenever something happens, until `ready` or the time to wait is over.
    async fn settle(self: &Arc<Self>, ready: impl Fn() -> Result<(), OpenError>) -> Result<(), OpenError> {
        let deadline = Instant::now().checked_add(self.wait);
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
                scheduler.schedule(*number, deadline.min(self.next_poll()));
                next.await;
            } else {
                return Err(error);
            }
        }
    }

    /// Has the directory read, and waits for the end of a look that began after this call.
    async fn look(self: &Arc<Self>) {
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
        let poll = self.poll.as_millis().max(1);
        let since = now.saturating_duration_since(start).as_millis();
        let until = poll - since % poll;
        now + Duration::from_millis(u64::try_from(until).unwrap_or(u64::MAX))
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
        let now = self.clock.now();
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
                good(&mut self.status());
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
                if slots.is_empty() {
                    status.problems.retain(|problem| problem.code != "unknown-part");
                }
                good(&mut status);
            }
            Seen::Wait(time) => {
                let mut status = self.status();
                let since = *status.unsettled.get_or_insert_with(Instant::now);
                return if since.elapsed() < UNSETTLED { Err(time) } else { Ok(()) };
            }
            Seen::Unreadable(error) => {
                let mut status = self.status();
                if status.fault.as_ref() != Some(&error) {
                    tracing::error!(directory = &*self.name, %error, "cannot be read; the last good sets go on");
                }
                status.fault = Some(error);
                drop(status);
                for slot in slots {
                    slot.check(&check(Found::Fault));
                }
            }
        }
        Ok(())
    }

    fn next_alarm(&self, slots: &[Arc<dyn Slot>]) -> Instant {
        let now = self.clock.now();
        let boundary = slots.iter().filter_map(|slot| slot.next()).min();
        let boundary = boundary.map(|at| at.duration_since(now).unwrap_or_default());
        let alarm = boundary.and_then(|wait| Instant::now().checked_add(wait));
        let poll = self.next_poll();
        alarm.map_or(poll, |alarm| alarm.min(poll))
    }

    fn report(&self) -> DirReport {
        let sets = self.live_slots().iter().map(|slot| slot.report()).collect();
        let status = self.status();
        DirReport {
            path: self.name.to_string(),
            layout: status.layout,
            generation: self.generation.load(Ordering::Relaxed),
            checked: status.checked,
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

    fn is_private(&self, part: &str) -> bool {
        self.iter().any(|slot| slot.is_private(part))
    }
}

impl Task for Core {
    fn run(self: Arc<Self>) {
        let look = self.job.begin();
        let slots = self.live_slots();
        let was_unsettled = self.status().unsettled.is_some();
        let seen = self.look_at_source(look, &slots);
        let interests = match (&seen, &self.source) {
            (Seen::Publication { .. } | Seen::Unreadable(_), Source::Path { path, .. }) => Some(interests(path)),
            _ => None,
        };
        if let (Some((scheduler, number)), Some(interests)) = (&self.scheduler, interests) {
            scheduler.watch(*number, interests);
        }
        let taken = self.take(seen, &slots);
        let alarm = match taken {
            Err(wait) => Instant::now() + wait,
            Ok(()) if was_unsettled && self.status().unsettled.is_some() => Instant::now() + Duration::from_millis(100),
            Ok(()) => self.next_alarm(&slots),
        };
        drop(slots);
        if let Some((scheduler, number)) = &self.scheduler {
            scheduler.schedule(*number, alarm);
        }
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
            tracing::error!(directory = &*self.name, %error, "cannot be read; the last good sets go on");
        }
        status.fault = Some(error);
        drop(status);
        self.job.give_up();
    }

    fn panicked(&self) {
        self.status().fault = Some(ReadError::Panicked);
        self.job.end(false, Look::Read);
        if let Some((scheduler, number)) = &self.scheduler {
            scheduler.schedule(*number, self.next_poll());
        }
    }
}

impl Scheduled for Core {
    fn wake(&self) -> bool {
        self.job.wake(Look::Event)
    }

    fn due(&self) -> bool {
        self.job.due()
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if let Some((scheduler, number)) = &self.scheduler {
            scheduler.remove(*number);
        }
    }
}

fn in_memory(files: &[(String, Secret)], parts: &dyn Parts) -> Publication {
    let mut builder = Builder::new(false);
    for (name, content) in files {
        if name == crate::publication::ROTATION {
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
    builder.finish(&|part| parts.knows(part))
}

/// What the process holds: every directory that is open, its live sets, and what rests on each revision. No secrets.
///
/// ```
/// let report = keydir::report();
/// assert_eq!(report.version, 1);
/// ```
pub fn report() -> crate::report::Report {
    let open: Vec<_> = {
        let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().filter_map(Weak::upgrade).collect()
    };
    crate::report::Report {
        version: 1,
        directories: open.iter().map(|core| core.report()).collect(),
    }
}
