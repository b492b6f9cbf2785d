//! The writer's side: one atomic step from one whole set to the next, in the layout that the kubelet uses.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, flock, fsync, mkdirat, openat, readlinkat, renameat, statat,
    symlinkat, unlinkat,
};
use rustix::io::Errno;

use crate::beneath::{self, Place};
use crate::name::FileName;
use crate::publication::{Content, ROTATION};
use crate::secret::Secret;

/// The files of one publication: whole names, and their content.
pub type Files = BTreeMap<String, Secret>;

const MAX_FILE: u64 = 1 << 20;
const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_next";
/// Directories of the publisher; the kubelet's begin with the date.
const PREFIX: &str = "..keydir_";

/// The one writer of a key directory, while it is alive.
///
/// Each publication is a new directory with all files; the link `..data` is renamed over the old one, so that a reader
/// sees the whole old set or the whole new one. Files are written to disk before they are published. What an
/// interrupted publication left behind is removed by the next one.
///
/// ```
/// # let temp = tempfile::tempdir()?;
/// # let path = temp.path();
/// let mut publisher = keydir::Publisher::open(path)?;
/// publisher.publish(&[("r1.token.primary".to_owned(), "one".into())].into())?;
///
/// // Stage: the next one is there, and the first is still the primary.
/// let mut files = publisher.current()?;
/// files.insert("r2.token".to_owned(), "two".into());
/// publisher.publish(&files)?;
///
/// // A second writer gets a clear error.
/// assert!(matches!(keydir::Publisher::open(path), Err(error) if error.is_locked()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Publisher {
    path: PathBuf,
    /// Locked as long as it is open.
    root: OwnedFd,
    mode: u32,
    convert: bool,
}

/// Why a set was not published. Unless [`published`](Self::published) says otherwise, the old set is still the current
/// one, whole.
#[derive(Debug)]
#[non_exhaustive]
pub struct PublishError {
    directory: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Locked,
    Plain(String),
    Name(String),
    Two(String, String),
    TooLarge(String),
    Unreadable(String, String),
    Io(&'static str, Errno),
    CleanUp(&'static str, Errno),
}

impl PublishError {
    /// Another writer has the directory.
    pub fn is_locked(&self) -> bool {
        matches!(self.kind, Kind::Locked)
    }

    /// The new set is published all the same; only the clean-up after it failed.
    pub fn published(&self) -> bool {
        matches!(self.kind, Kind::CleanUp(..))
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key directory {}: ", self.directory.display())?;
        match &self.kind {
            Kind::Locked => f.write_str("another writer has it locked: let it finish"),
            Kind::Plain(name) => write!(
                f,
                "it is a plain directory (it holds {name:?} and no ..data): publishing would hide what lies in it; \
                 convert it on purpose, with what is to stay"
            ),
            Kind::Name(name) => write!(
                f,
                "{name:?} is no name of the convention: <revision>.<part>[.primary] or <revision>.revoked"
            ),
            Kind::Two(a, b) => write!(f, "the ids {a:?} and {b:?} differ only in case: rename one"),
            Kind::TooLarge(name) => write!(f, "{name:?} has more than {MAX_FILE} bytes: readers would refuse it"),
            Kind::Unreadable(name, reason) => write!(f, "{name:?}: {reason}"),
            Kind::Io(action, error) => {
                write!(
                    f,
                    "cannot {action}: {}: nothing was changed",
                    std::io::Error::from(*error)
                )
            }
            Kind::CleanUp(action, error) => write!(
                f,
                "published, but cannot {action}: {}: the next publication tries again",
                std::io::Error::from(*error)
            ),
        }
    }
}

impl std::error::Error for PublishError {}

impl Publisher {
    /// Takes the directory for writing; creates it if it is missing.
    ///
    /// # Errors
    /// If another writer has it, or if it cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, PublishError> {
        let path = path.as_ref();
        let fail = |kind| PublishError {
            directory: path.to_owned(),
            kind,
        };
        match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(fail(Kind::Io("create it", error))),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty()).map_err(|error| fail(Kind::Io("open it", error)))?;
        match flock(&root, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(fail(Kind::Locked)),
            Err(error) => return Err(fail(Kind::Io("lock it", error))),
        }
        Ok(Self {
            path: path.to_owned(),
            root,
            mode: 0o600,
            convert: false,
        })
    }

    /// The set that is published in a directory, also while somebody publishes the next one. Of a plain
    /// directory, what lies in it, as far as it stands still.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(path: impl AsRef<Path>) -> Result<Files, PublishError> {
        let path = path.as_ref();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty()).map_err(|error| PublishError {
            directory: path.to_owned(),
            kind: Kind::Io("open it", error),
        })?;
        let reader = Self {
            path: path.to_owned(),
            root,
            mode: 0o600,
            convert: false,
        };
        loop {
            let before = reader.data()?;
            let files = reader.current();
            // Else it was of two sets, or the old one was removed under it.
            if reader.data()? == before {
                return files;
            }
        }
    }

    /// Lets the group read too (files 0640, directories 0750), for consumers that run as another user.
    #[must_use]
    pub fn group_readable(mut self) -> Self {
        self.mode = 0o640;
        self
    }

    /// Turns a plain directory into one of the kubelet's layout: the files that lie in it are hidden by the first
    /// publication, and removed where their names are published. Say in that publication what is to stay.
    #[must_use]
    pub fn convert(mut self) -> Self {
        self.convert = true;
        self
    }

    /// The set that is published now; of a plain directory, what lies in it; empty if there is none.
    ///
    /// # Errors
    /// If a file of it cannot be read.
    pub fn current(&self) -> Result<Files, PublishError> {
        let dir = match self.data()? {
            Some(target) => self.open_dir(&target).map_err(self.io("open the current set"))?,
            None => self.open_dir(".").map_err(self.io("open it"))?,
        };
        let mut files = Files::new();
        for name in self.names(&dir)? {
            let known = matches!(
                FileName::parse(name.as_bytes()),
                FileName::File { .. } | FileName::Marker { .. }
            );
            if !known && name != ROTATION {
                continue;
            }
            let place = beneath::look(dir.as_fd(), name.as_bytes());
            let content = place.map_or_else(Content::Fault, |entry| {
                beneath::read(dir.as_fd(), &entry.place, MAX_FILE).0
            });
            let bytes = match content {
                Content::Bytes(bytes) => bytes,
                Content::Fault(fault) => return Err(self.fail(Kind::Unreadable(name, fault.to_string()))),
                Content::Unread => continue,
            };
            files.insert(name, bytes);
        }
        Ok(files)
    }

    /// Publishes `files` as the whole set, in one atomic step.
    ///
    /// # Errors
    /// If a name is not of the convention, or if writing fails: then the old set is still the current one. If only the
    /// clean-up fails, [`PublishError::published`] says so.
    pub fn publish(&mut self, files: &Files) -> Result<(), PublishError> {
        self.check(files)?;
        let old = self.data()?;
        if old.is_none()
            && !self.convert
            && let Some(name) = self.names(&self.root)?.into_iter().find(|name| !name.starts_with(".."))
        {
            return Err(self.fail(Kind::Plain(name)));
        }
        self.remove_leftovers(old.as_deref())
            .map_err(self.io("remove what an interrupted publication left"))?;
        let new = self.write(files).map_err(self.io("write the new set"))?;
        self.step();
        self.switch(&new).map_err(self.io("switch to the new set"))?;
        self.step();
        let done = self
            .link(files)
            .map_err(|error| ("make the visible links", error))
            .and_then(|()| {
                let leftovers = self.remove_leftovers(Some(&new));
                leftovers.map_err(|error| ("remove the old set", error))
            });
        done.map_err(|(action, error)| self.fail(Kind::CleanUp(action, error)))
    }

    fn check(&self, files: &Files) -> Result<(), PublishError> {
        let mut ids = BTreeMap::new();
        for (name, content) in files {
            let id = match FileName::parse(name.as_bytes()) {
                FileName::File { id, .. } | FileName::Marker { id } => id,
                FileName::Hidden if name == ROTATION => continue,
                FileName::Hidden | FileName::Stray { .. } => return Err(self.fail(Kind::Name(name.clone()))),
            };
            if content.expose().len() as u64 > MAX_FILE {
                return Err(self.fail(Kind::TooLarge(name.clone())));
            }
            let lower = id.as_str().to_ascii_lowercase();
            if let Some(other) = ids.insert(lower, id.clone()).filter(|other| *other != id) {
                return Err(self.fail(Kind::Two(other.to_string(), id.to_string())));
            }
        }
        Ok(())
    }

    /// A new directory with all files, on disk.
    fn write(&self, files: &Files) -> Result<String, Errno> {
        let name = self.new_dir()?;
        let dir = self.open_dir(&name)?;
        for (name, content) in files {
            self.step();
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file = openat(&dir, name, flags, Mode::from_raw_mode(self.mode))?;
            // The umask may have taken what was asked for.
            rustix::fs::fchmod(&file, Mode::from_raw_mode(self.mode))?;
            self.step();
            let mut rest = content.expose();
            while !rest.is_empty() {
                match rustix::io::write(&file, rest) {
                    Ok(0) => return Err(Errno::IO),
                    Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error),
                }
            }
            self.step();
            fsync(&file)?;
        }
        fsync(&dir)?;
        Ok(name)
    }

    /// A directory with a name that was never used before: the time, and random bits for clocks that stand still.
    fn new_dir(&self) -> Result<String, Errno> {
        use crate::clock::Clock;
        use std::hash::BuildHasher;
        let mode = Mode::from_raw_mode(if self.mode == 0o600 { 0o700 } else { 0o750 });
        loop {
            let now = crate::clock::SystemClock
                .now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap_or_default();
            let random = std::hash::RandomState::new().hash_one(now);
            let name = format!("{PREFIX}{}_{random:016x}", now.as_nanos());
            match mkdirat(&self.root, &name, mode) {
                Ok(()) => {
                    rustix::fs::chmodat(&self.root, &name, mode, AtFlags::empty())?;
                    return Ok(name);
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The one atomic step.
    fn switch(&self, new: &str) -> Result<(), Errno> {
        match unlinkat(&self.root, DATA_NEXT, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        symlinkat(new, &self.root, DATA_NEXT)?;
        self.step();
        renameat(&self.root, DATA_NEXT, &self.root, DATA)?;
        self.step();
        fsync(&self.root)
    }

    /// The links that people and other programs see; readers of the convention do not need them.
    fn link(&self, files: &Files) -> Result<(), Errno> {
        let wanted: BTreeSet<&str> = files
            .keys()
            .map(String::as_str)
            .filter(|name| !name.starts_with('.'))
            .collect();
        for name in self.raw_names(&self.root)? {
            if name.starts_with('.') || wanted.contains(name.as_str()) {
                continue;
            }
            if readlinkat(&self.root, &name, Vec::new()).is_ok_and(|target| target.as_bytes().starts_with(b"..data/")) {
                self.step();
                unlinkat(&self.root, &name, AtFlags::empty())?;
            }
        }
        for name in wanted {
            let target = format!("{DATA}/{name}");
            if readlinkat(&self.root, name, Vec::new()).is_ok_and(|old| old.as_bytes() == target.as_bytes()) {
                continue;
            }
            self.step();
            let next = "..link_next";
            match unlinkat(&self.root, next, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
            symlinkat(target, &self.root, next)?;
            renameat(&self.root, next, &self.root, name)?;
        }
        fsync(&self.root)
    }

    /// Removes directories of the publisher (and of the kubelet) that are not the current one.
    fn remove_leftovers(&self, current: Option<&str>) -> Result<(), Errno> {
        for name in self.raw_names(&self.root)? {
            let ours = name.starts_with(PREFIX) || name.starts_with("..20");
            if name == DATA_NEXT || name == "..link_next" {
                unlinkat(&self.root, &name, AtFlags::empty())?;
            } else if ours && Some(name.as_str()) != current && self.is_dir(&name) {
                let dir = self.open_dir(&name)?;
                for file in self.raw_names(&dir)? {
                    self.step();
                    unlinkat(&dir, &file, AtFlags::empty())?;
                }
                self.step();
                unlinkat(&self.root, &name, AtFlags::REMOVEDIR)?;
            }
        }
        Ok(())
    }

    /// The name of the directory behind `..data`, if there is one.
    fn data(&self) -> Result<Option<String>, PublishError> {
        match readlinkat(&self.root, DATA, Vec::new()) {
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.fail(Kind::Io("read the link ..data", error))),
            Ok(_) => {}
        }
        let reason = match beneath::look(self.root.as_fd(), DATA.as_bytes()) {
            Ok(entry) => match entry.place {
                Place::Directory(_) => {
                    let target = readlinkat(&self.root, DATA, Vec::new()).map_err(self.io("read the link ..data"))?;
                    return Ok(target.into_string().ok());
                }
                _ => "it leads to no directory".to_owned(),
            },
            // What it led to was lost: the next publication mends it.
            Err(_) => return Ok(Some(String::new())),
        };
        Err(self.fail(Kind::Unreadable(DATA.to_owned(), reason)))
    }

    fn open_dir(&self, name: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.root, name, flags, Mode::empty())
    }

    fn is_dir(&self, name: &str) -> bool {
        statat(&self.root, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    fn names(&self, dir: &OwnedFd) -> Result<Vec<String>, PublishError> {
        self.raw_names(dir).map_err(self.io("list it"))
    }

    /// Names that are no UTF-8 are none of ours.
    fn raw_names(&self, dir: &OwnedFd) -> Result<Vec<String>, Errno> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(dir)? {
            let entry = entry?;
            if let Ok(name) = OsStr::from_bytes(entry.file_name().to_bytes())
                .to_os_string()
                .into_string()
                && name != "."
                && name != ".."
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn io(&self, action: &'static str) -> impl Fn(Errno) -> PublishError {
        move |error| self.fail(Kind::Io(action, error))
    }

    fn fail(&self, kind: Kind) -> PublishError {
        PublishError {
            directory: self.path.clone(),
            kind,
        }
    }

    /// Between two steps of a publication: where the tests kill the process.
    #[allow(clippy::unused_self, reason = "only tests do something here")]
    fn step(&self) {
        #[cfg(test)]
        tests::step();
    }
}

impl Drop for Publisher {
    /// To close it would not be enough: a child process has it open too, between its fork and its exec.
    fn drop(&mut self) {
        let _ = flock(&self.root, FlockOperation::Unlock);
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
