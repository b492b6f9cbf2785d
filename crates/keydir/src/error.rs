//! Why a directory cannot be opened, read or published to: who must do what.

use std::fmt;
use std::sync::Arc;

use crate::problem::{Problem, Severity};
use crate::standing::NoPrimary;

/// Why a directory cannot be read at all. The last good set goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// The operating system refused.
    Io {
        /// What was tried.
        action: &'static str,
        /// The system's words.
        reason: String,
    },
    /// `..data` is not what the kubelet's layout makes of it.
    Data(&'static str),
    /// More entries than the limit.
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// More bytes in all than the limit.
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// A read has hung for this long (a dead network file system?).
    Stuck {
        /// Seconds.
        seconds: u64,
    },
    /// Reading panicked; please report it.
    Panicked,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { action, reason } => write!(
                f,
                "cannot {action}: {reason}: check that it exists, its owner and its mode"
            ),
            Self::Data(what) => write!(f, "..data {what}: publish again, in the kubelet's layout"),
            Self::TooMany { limit } => write!(
                f,
                "it has more than {limit} entries: remove what does not belong there, or raise the limit"
            ),
            Self::TooLarge { limit } => write!(
                f,
                "its files have more than {limit} bytes in all: remove what does not belong there, or raise the limit"
            ),
            Self::Stuck { seconds } => write!(f, "reading it has hung for {seconds} s: check the storage under it"),
            Self::Panicked => f.write_str("reading it panicked: please report this"),
        }
    }
}

impl std::error::Error for ReadError {}

/// Why a set cannot start.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartError {
    /// The directory cannot be read.
    Unreadable,
    /// There is nothing to present, and what is wrong with what is there.
    NothingToPresent(NoPrimary, Vec<Problem>),
    /// There is nothing to accept, and what is wrong with what is there.
    NothingToAccept(Vec<Problem>),
    /// The view cannot combine even an empty set.
    View(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (said, problems) = match self {
            Self::Unreadable => return f.write_str("it cannot be read"),
            Self::View(reason) => return write!(f, "the view refuses an empty set: {reason}"),
            Self::NothingToPresent(reason, problems) => (format!("nothing to present: {reason}"), problems),
            Self::NothingToAccept(problems) => ("nothing to accept: publish a usable revision".to_owned(), problems),
        };
        f.write_str(&said)?;
        let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
        for problem in errors.filter(|problem| !said.contains(&problem.message)) {
            write!(f, "; {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for StartError {}

/// Why [`Dir::open`](crate::Dir::open) or [`Dir::view`](crate::Dir::view) failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpenError {
    directory: Arc<str>,
    /// What is the matter.
    pub kind: OpenErrorKind,
}

/// What kept a directory from being opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenErrorKind {
    /// It cannot be read.
    Read(ReadError),
    /// It can be read, but does not hold what the use needs.
    Start {
        /// The name of the use.
        usage: &'static str,
        /// What is missing.
        error: StartError,
    },
    /// It does not stand still: it was written to all the time. Only in a plain directory.
    Unsettled,
}

impl OpenError {
    pub(crate) fn new(directory: &Arc<str>, kind: OpenErrorKind) -> Self {
        Self {
            directory: Arc::clone(directory),
            kind,
        }
    }

    /// The directory, as it was given.
    pub fn directory(&self) -> &str {
        &self.directory
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key directory {}: ", self.directory)?;
        match &self.kind {
            OpenErrorKind::Read(error) => error.fmt(f),
            OpenErrorKind::Start { usage, error } => write!(f, "as {usage}: {error}"),
            OpenErrorKind::Unsettled => {
                f.write_str("it is being written to all the time: publish atomically, in the kubelet's layout")
            }
        }
    }
}

impl std::error::Error for OpenError {}

/// Why [`Dir::reload`](crate::Dir::reload) did not load what is there; the last good set goes on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReloadError {
    directory: Arc<str>,
    /// What is the matter; `None` if it does not stand still.
    pub read: Option<ReadError>,
}

impl ReloadError {
    pub(crate) fn new(directory: &Arc<str>, read: Option<ReadError>) -> Self {
        Self {
            directory: Arc::clone(directory),
            read,
        }
    }
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key directory {}: ", self.directory)?;
        match &self.read {
            Some(error) => write!(f, "{error}; the last good set goes on"),
            None => f.write_str("it is being written to all the time; the last good set goes on"),
        }
    }
}

impl std::error::Error for ReloadError {}
