//! Reading a directory: one publication from one handle, or the reason why not (convention, section 6).

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};
use rustix::io::Errno;

use crate::beneath::{self, Place};
use crate::error::ReadError;
use crate::problem::Problem;
use crate::publication::{Builder, Content, Fault, Publication, ROTATION};

/// What may be said about how a directory is read.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) flat: bool,
    pub(crate) max_file: u64,
    pub(crate) max_bytes: u64,
    pub(crate) max_entries: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            flat: false,
            max_file: 1 << 20,
            max_bytes: 64 << 20,
            max_entries: 100_000,
        }
    }
}

/// What the uses of a directory want to know of a part.
pub(crate) trait Parts {
    /// Some use has it, so it is read.
    fn knows(&self, part: &str) -> bool;
    /// There are uses, and none has it.
    fn is_foreign(&self, part: &str) -> bool;
    /// It should be readable for the service alone.
    fn is_private(&self, part: &str) -> bool;
}

/// How much a check must look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing if the stamp is the same.
    Poll,
    /// Something happened there: compare the link's text too.
    Event,
    /// Read, whatever the stamp says.
    Read,
}

pub(crate) enum Seen {
    Unchanged,
    /// `same`: it is the publication that was read last.
    Publication {
        publication: Publication,
        layout: &'static str,
        same: bool,
    },
    /// Not yet: look again after this time.
    Wait(Duration),
    Unreadable(ReadError),
}

/// The time that a plain directory must stand still.
const SETTLE: Duration = Duration::from_millis(100);
/// How often a read that a new publication overtook is repeated at once.
const ATTEMPTS: usize = 16;
const OVERTAKEN: Duration = Duration::from_millis(10);
/// A link that was younger than this when it was read might have been replaced within one tick of the file system.
const YOUNG: Duration = Duration::from_secs(1);

/// Reads one directory again and again, and remembers what it saw.
pub(crate) struct Reader {
    path: PathBuf,
    data: PathBuf,
    options: Options,
    last: Option<Stamp>,
    /// Of a plain directory that has to stand still first.
    settling: Option<(Listing, Instant)>,
}

enum Stamp {
    Link {
        link: Link,
        /// When it was read, or last found the same by its text too.
        read: Instant,
    },
    Listing(Listing),
}

/// Two links that are equal in this are the same publication.
#[derive(Clone, PartialEq, Eq)]
struct Link {
    text: CString,
    file: FileStamp,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    size: i64,
    changed: (i64, i64),
    modified: (i64, i64),
}

type Listing = BTreeMap<Vec<u8>, (FileStamp, Option<FileStamp>)>;

impl FileStamp {
    #[allow(clippy::unnecessary_cast, reason = "the fields differ between platforms")]
    fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            size: stat.st_size as i64,
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        }
    }
}

impl Reader {
    pub(crate) fn new(path: &Path, options: Options) -> Self {
        Self {
            path: path.to_owned(),
            data: path.join("..data"),
            options,
            last: None,
            settling: None,
        }
    }

    pub(crate) fn check(&mut self, look: Look, parts: &dyn Parts) -> Seen {
        let seen = self.look(look, parts).unwrap_or_else(Seen::Unreadable);
        if matches!(seen, Seen::Unreadable(_)) {
            // After a fault it is read, whatever the stamp says.
            self.last = None;
            self.settling = None;
        }
        seen
    }

    fn look(&mut self, look: Look, parts: &dyn Parts) -> Result<Seen, ReadError> {
        if look != Look::Read && self.is_same_link(look) {
            return Ok(Seen::Unchanged);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, &self.path, flags, Mode::empty()).map_err(io("open it"))?;
        for _ in 0..ATTEMPTS {
            let Some(link) = read_link(root.as_fd())? else {
                return self.read_plain(&root, look, parts);
            };
            let (place, _) = beneath::follow(root.as_fd(), &link.text).map_err(|fault| match fault {
                Fault::Link(what) => ReadError::Data(what),
                fault => ReadError::Io {
                    action: "follow ..data",
                    reason: fault.to_string(),
                },
            })?;
            let Place::Directory(inside) = place else {
                return Err(ReadError::Data("leads to no directory"));
            };
            let read = Instant::now();
            let publication = self.read_all(inside.as_fd(), parts);
            if read_link(root.as_fd())?.as_ref() != Some(&link) {
                continue;
            }
            let publication = publication?;
            let same = matches!(&self.last, Some(Stamp::Link { link: last, .. }) if *last == link);
            self.last = Some(Stamp::Link { link, read });
            self.settling = None;
            return Ok(Seen::Publication {
                publication,
                layout: "kubelet",
                same,
            });
        }
        Ok(Seen::Wait(OVERTAKEN))
    }

    /// One system call where nothing has changed. A link that was young when it was read costs a second one, until it
    /// has been found the same when it no longer was.
    fn is_same_link(&mut self, look: Look) -> bool {
        let Some(Stamp::Link { link, read }) = &mut self.last else {
            return false;
        };
        let asked = Instant::now();
        let Ok(stat) = statat(CWD, &self.data, AtFlags::SYMLINK_NOFOLLOW) else {
            return false;
        };
        if FileStamp::of(&stat) != link.file {
            return false;
        }
        let was_young = link.file.is_younger_than(YOUNG, read.elapsed());
        if look == Look::Poll && !was_young {
            return true;
        }
        let same = readlinkat(CWD, &self.data, Vec::new()).is_ok_and(|text| text == link.text);
        if same {
            *read = asked;
        }
        same
    }

    fn read_plain(&mut self, root: &OwnedFd, look: Look, parts: &dyn Parts) -> Result<Seen, ReadError> {
        let before = self.list(root.as_fd())?;
        let same = matches!(&self.last, Some(Stamp::Listing(last)) if *last == before);
        if same && look != Look::Read {
            self.settling = None;
            return Ok(Seen::Unchanged);
        }
        match self.settling.take() {
            Some((listing, since)) if listing == before => {
                if let Some(rest) = SETTLE.checked_sub(since.elapsed()).filter(|rest| !rest.is_zero()) {
                    self.settling = Some((listing, since));
                    return Ok(Seen::Wait(rest));
                }
            }
            _ => {
                self.settling = Some((before, Instant::now()));
                return Ok(Seen::Wait(SETTLE));
            }
        }
        let publication = self.read_all(root.as_fd(), parts);
        let after = self.list(root.as_fd())?;
        if after != before {
            self.settling = Some((after, Instant::now()));
            return Ok(Seen::Wait(SETTLE));
        }
        self.last = Some(Stamp::Listing(after));
        Ok(Seen::Publication {
            publication: publication?,
            layout: "plain",
            same,
        })
    }

    /// Every file that counts, with what would show that it has changed.
    fn list(&self, dir: BorrowedFd<'_>) -> Result<Listing, ReadError> {
        let mut listing = Listing::new();
        for (name, _) in names(dir, self.options.max_entries)? {
            if name.first() == Some(&b'.') && name != ROTATION.as_bytes() {
                continue;
            }
            let stamps = match beneath::look(dir, &name) {
                Ok(entry) => (FileStamp::of(&entry.own), entry.target.as_ref().map(FileStamp::of)),
                Err(_) => match statat(dir, OsStr::from_bytes(&name), AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => (FileStamp::of(&stat), None),
                    // Gone since it was listed: the other listing will tell.
                    Err(_) => continue,
                },
            };
            listing.insert(name, stamps);
        }
        Ok(listing)
    }

    fn read_all(&self, dir: BorrowedFd<'_>, parts: &dyn Parts) -> Result<Publication, ReadError> {
        let known = |part: &str| !parts.is_foreign(part);
        let mut builder = Builder::new(self.options.flat, &known);
        let mut bytes: u64 = 0;
        let mut read = |place: &Place| {
            let (content, mode) = beneath::read(dir, place, self.options.max_file);
            if let Content::Bytes(secret) = &content {
                bytes = bytes.saturating_add(secret.expose().len() as u64);
                if bytes > self.options.max_bytes {
                    return Err(ReadError::TooLarge {
                        limit: self.options.max_bytes,
                    });
                }
            }
            Ok((content, mode))
        };
        let mut exposed = Vec::new();
        for (name, kind) in names(dir, self.options.max_entries)? {
            // What is listed as a regular file need not be looked at before it is opened.
            let place = || match kind {
                FileType::RegularFile => Ok(Place::here(&name)),
                _ => beneath::look(dir, &name).map(|entry| entry.place),
            };
            if name == ROTATION.as_bytes() {
                if let Ok(place) = place()
                    && let (Content::Bytes(json), _) = read(&place)?
                {
                    builder.rotation(json.expose());
                }
                continue;
            }
            builder.add(&name, |part| {
                let place = match place() {
                    Ok(Place::Regular { .. }) if !parts.knows(part) => return Ok(Content::Unread),
                    Ok(place) => place,
                    Err(fault) => return Ok(Content::Fault(fault)),
                };
                let (content, mode) = read(&place)?;
                let open_to_others = mode.filter(|mode| mode & 0o044 != 0 && parts.is_private(part));
                exposed.extend(open_to_others.map(|mode| (name.clone(), mode & 0o777)));
                Ok(content)
            })?;
        }
        for (name, mode) in exposed {
            let message = format!("others than its owner may read it (mode {mode:04o})");
            builder.problem(Problem::new("exposed", String::from_utf8_lossy(&name), message));
        }
        Ok(builder.finish())
    }
}

impl FileStamp {
    /// Whether the file was changed less than `age` before a moment that is `ago`.
    #[allow(
        clippy::disallowed_methods,
        reason = "compared with the file system's own times, never with a test's"
    )]
    fn is_younger_than(&self, age: Duration, ago: Duration) -> bool {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let (seconds, nanos) = self.changed;
        let changed = u64::try_from(seconds).map_or(Duration::ZERO, |seconds| {
            Duration::new(seconds, u32::try_from(nanos).unwrap_or(0))
        });
        changed + age + ago > now
    }
}

/// The link `..data`; `None` if there is nothing of that name.
fn read_link(root: BorrowedFd<'_>) -> Result<Option<Link>, ReadError> {
    let text = match readlinkat(root, "..data", Vec::new()) {
        Ok(text) => text,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::INVAL) => return Err(ReadError::Data("is no link")),
        Err(error) => return Err(io("read the link ..data")(error)),
    };
    let stat = statat(root, "..data", AtFlags::SYMLINK_NOFOLLOW).map_err(io("look at ..data"))?;
    Ok(Some(Link {
        text,
        file: FileStamp::of(&stat),
    }))
}

/// The names of all entries and what they were when they were listed, in no order.
fn names(dir: BorrowedFd<'_>, limit: usize) -> Result<Vec<(Vec<u8>, FileType)>, ReadError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listed = openat(dir, ".", flags, Mode::empty()).map_err(io("list it"))?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(listed).map_err(io("list it"))? {
        let entry = entry.map_err(io("list it"))?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        if names.len() == limit {
            return Err(ReadError::TooMany { limit });
        }
        names.push((name.to_vec(), entry.file_type()));
    }
    Ok(names)
}

fn io(action: &'static str) -> impl Fn(Errno) -> ReadError {
    move |error| ReadError::Io {
        action,
        reason: std::io::Error::from(error).to_string(),
    }
}
