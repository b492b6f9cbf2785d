//! A key directory that is open, and how it is opened.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::block::block_on;
use crate::clock::{Clock, SystemClock};
use crate::error::{OpenError, ReadError, ReloadError};
use crate::follower::{Follower, Settings, Source};
use crate::problem::Problem;
use crate::read::{Options, Reader};
use crate::report::{DirReport, Report};
use crate::secret::Secret;

const POLL: Duration = Duration::from_secs(30);
/// A key directory, read live. Cheap to clone; it is watched as long as a clone or a [`Live`](crate::Live) set of it is
/// there.
///
/// Open a directory once, at the start of the service. After `fork`, a child must open it anew: threads do not
/// survive a fork.
///
/// ```no_run
/// let dir = keydir::Dir::open("/run/secrets/mesh")?;
/// # Ok::<(), keydir::OpenError>(())
/// ```
#[derive(Clone)]
pub struct Dir(Arc<Follower>);

/// How a directory is to be read; made by [`Dir::builder`].
#[derive(Clone)]
#[must_use]
pub struct DirBuilder {
    path: PathBuf,
    options: Options,
    settings: Settings,
}

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
            options: Options::default(),
            settings: Settings {
                poll: POLL,
                wait: Duration::ZERO,
                allow_empty: false,
                clock: Arc::new(SystemClock),
            },
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
        let settings = Self::builder("").clock(Arc::new(clock)).settings;
        Self(Follower::start("(memory)", settings, Source::Memory(Mutex::new(files))))
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
        let Source::Memory(memory) = self.0.source() else {
            let error = ReadError::Io {
                action: "publish to it",
                reason: "it is not in memory".to_owned(),
            };
            return Err(ReloadError::new(self.0.name(), Some(error)));
        };
        let files = files
            .into_iter()
            .map(|(name, content)| (name.into(), content.into()))
            .collect();
        *memory.lock().unwrap_or_else(PoisonError::into_inner) = files;
        self.reload()
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
            Some(error) => Err(ReloadError::new(self.0.name(), Some(error.clone()))),
            None if status.unsettled.is_some() => Err(ReloadError::new(self.0.name(), None)),
            None => Ok(()),
        }
    }

    /// Whether the directory was seen as it is within the last `max_age`. Polling sees it every 30 seconds by default,
    /// so ask for more than that.
    pub fn healthy(&self, max_age: Duration) -> bool {
        let status = self.0.status();
        status.fault.is_none() && status.seen.is_some_and(|seen| seen.elapsed() <= max_age)
    }

    pub(crate) fn follower(&self) -> &Arc<Follower> {
        &self.0
    }

    /// The path, as it was given.
    pub fn path(&self) -> &str {
        self.0.name()
    }

    /// The clock by which validity is judged.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.settings().clock
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
            .field("path", self.0.name())
            .finish_non_exhaustive()
    }
}

impl DirBuilder {
    /// How often the directory is looked at though no event came; 30 seconds by default. In the kubelet's layout that
    /// costs one system call.
    pub fn poll(mut self, poll: Duration) -> Self {
        self.settings.poll = poll.max(Duration::from_millis(10));
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
        self.settings.wait = wait;
        self
    }

    /// Starts without a usable set, or even without the directory, and serves what comes.
    pub fn allow_empty(mut self) -> Self {
        self.settings.allow_empty = true;
        self
    }

    /// The clock by which validity is judged.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.settings.clock = clock;
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
            reader: Box::new(Mutex::new(Reader::new(&self.path, self.options))),
            path: self.path.clone(),
        };
        let follower = Follower::start(&self.path.to_string_lossy(), self.settings, source);
        let may_be_missing = follower.settings().allow_empty;
        let ready = || if may_be_missing { Ok(()) } else { follower.read() };
        follower.settle(ready).await?;
        Ok(Dir(follower))
    }
}

impl fmt::Debug for DirBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirBuilder")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// What the process holds: every directory that is open, its live sets, and what rests on each revision. No secrets.
///
/// ```
/// let report = keydir::report();
/// assert_eq!(report.version, 1);
/// ```
pub fn report() -> Report {
    Report {
        version: 1,
        directories: Follower::all().iter().map(|follower| follower.report()).collect(),
    }
}
