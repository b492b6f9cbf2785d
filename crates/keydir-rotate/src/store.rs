//! Where a directory's files are kept: read, and replaced as a whole.

use std::error::Error;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use keydir::{Files, PublishError, Publisher};

/// Where the files of one directory are kept.
///
/// A local directory is one ([`LocalStore`]), with a lock; a Kubernetes Secret could be another, whose update is guarded
/// by its resourceVersion, and begun again if somebody else was first.
pub trait Store {
    /// For people: which directory it is.
    fn name(&self) -> String;

    /// What is there now.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read(&mut self) -> Result<Files, StoreError>;

    /// Asks what is to take the place of what is there, and publishes it in one atomic step; nothing changes if the answer
    /// is `None`. Nobody else writes in between. The question may be asked more than once.
    ///
    /// # Errors
    /// If it cannot be read or written; then the old set is still there, unless [`StoreError::is_published`].
    fn update(&mut self, next: &mut dyn FnMut(&Files) -> Option<Files>) -> Result<(), StoreError>;
}

/// Why a store was not read or written.
#[derive(Debug)]
pub struct StoreError {
    published: bool,
    error: Box<dyn Error + Send + Sync>,
}

impl StoreError {
    /// What was to be published was not.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            published: false,
            error: error.into(),
        }
    }

    /// What was to be published is; only what comes after failed, and the next publication does it.
    pub fn is_published(&self) -> bool {
        self.published
    }
}

impl From<PublishError> for StoreError {
    fn from(error: PublishError) -> Self {
        Self {
            published: error.published(),
            error: error.into(),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

/// A directory on this machine, in the kubelet's layout. A plain one becomes one of that layout by its first publication.
#[derive(Clone, Debug)]
pub struct LocalStore {
    path: PathBuf,
    group_readable: bool,
}

impl LocalStore {
    /// The directory at this path, which need not be there yet.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            group_readable: false,
        }
    }

    /// Lets the group read too; see [`Publisher::group_readable`].
    #[must_use]
    pub fn group_readable(mut self) -> Self {
        self.group_readable = true;
        self
    }

    fn open(&self) -> Result<Publisher, PublishError> {
        let publisher = Publisher::open(&self.path)?.convert();
        Ok(match self.group_readable {
            true => publisher.group_readable(),
            false => publisher,
        })
    }
}

impl Store for LocalStore {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn read(&mut self) -> Result<Files, StoreError> {
        // Only what is not there is empty: not what may not be seen, or a link to nowhere.
        match self.path.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Files::new()),
            _ => Ok(Publisher::read(&self.path)?),
        }
    }

    fn update(&mut self, next: &mut dyn FnMut(&Files) -> Option<Files>) -> Result<(), StoreError> {
        let mut publisher = self.open()?;
        if let Some(files) = next(&publisher.current()?) {
            publisher.publish(&files)?;
        }
        Ok(())
    }
}
