//! Opening what lies in a directory, and only that: links hop by hop, nothing that blocks or acts, no way out.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::publication::{Content, Fault};
use crate::secret::Secret;

const MAX_HOPS: usize = 40;
/// How often a file that grows while it is read is read again.
const MAX_GROWTHS: usize = 8;

/// What an entry is in the end, after its links.
pub(crate) struct Entry {
    /// Of the entry itself.
    pub(crate) own: Stat,
    /// Where its links lead.
    pub(crate) place: Place,
}

pub(crate) enum Place {
    /// `dir` is the directory that it lies in; `None` means the one that was asked.
    Regular {
        dir: Option<OwnedFd>,
        name: Vec<u8>,
        stat: Stat,
    },
    Directory(OwnedFd),
    Other(&'static str),
}

/// Looks where `name` leads, without opening anything for reading.
pub(crate) fn look(root: BorrowedFd<'_>, name: &[u8]) -> Result<Entry, Fault> {
    let own = stat(root, name)?;
    let place = match FileType::from_raw_mode(own.st_mode) {
        FileType::Symlink => follow(root, name)?,
        FileType::Directory => Place::Directory(open_dir(root, name)?),
        FileType::RegularFile => Place::Regular {
            dir: None,
            name: name.to_vec(),
            stat: own,
        },
        other => Place::Other(kind(other)),
    };
    Ok(Entry { own, place })
}

/// Walks a link component by component; every hop must stay below `root`.
fn follow(root: BorrowedFd<'_>, name: &[u8]) -> Result<Place, Fault> {
    let mut way: VecDeque<Vec<u8>> = VecDeque::from([name.to_vec()]);
    let mut below: Vec<OwnedFd> = Vec::new();
    let mut hops = 0;
    while let Some(step) = way.pop_front() {
        let here = below.last().map_or(root, |dir| dir.as_fd());
        match step.as_slice() {
            b"" | b"." => continue,
            b".." => {
                if below.pop().is_none() {
                    return Err(Fault::Link("leaves the directory"));
                }
                continue;
            }
            _ => {}
        }
        let stat = match stat(here, &step) {
            Err(Fault::Unreadable(_)) if hops > 0 => return Err(Fault::Link("leads nowhere")),
            other => other?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                hops += 1;
                if hops > MAX_HOPS {
                    return Err(Fault::Link("loops"));
                }
                let target = readlinkat(here, OsStr::from_bytes(&step), Vec::new()).map_err(unreadable)?;
                let target = target.as_bytes();
                if target.starts_with(b"/") {
                    return Err(Fault::Link("leaves the directory"));
                }
                for part in target.rsplit(|b| *b == b'/') {
                    way.push_front(part.to_vec());
                }
            }
            FileType::Directory => below.push(open_dir(here, &step)?),
            FileType::RegularFile if way.iter().all(|rest| rest.is_empty()) => {
                return Ok(Place::Regular {
                    dir: below.pop(),
                    name: step,
                    stat,
                });
            }
            FileType::RegularFile => return Err(Fault::Link("leads nowhere")),
            other => return Ok(Place::Other(kind(other))),
        }
    }
    match below.pop() {
        Some(dir) => Ok(Place::Directory(dir)),
        None => Ok(Place::Other("directory")),
    }
}

/// Reads a whole regular file that [`look`] found, never more than `limit` bytes.
pub(crate) fn read(root: BorrowedFd<'_>, place: &Place, limit: u64) -> Content {
    match place {
        Place::Directory(_) => Content::Fault(Fault::NotRegular("directory")),
        Place::Other(kind) => Content::Fault(Fault::NotRegular(kind)),
        Place::Regular { dir, name, .. } => {
            let dir = dir.as_ref().map_or(root, |dir| dir.as_fd());
            read_regular(dir, name, limit).unwrap_or_else(Content::Fault)
        }
    }
}

fn read_regular(dir: BorrowedFd<'_>, name: &[u8], limit: u64) -> Result<Content, Fault> {
    // O_NONBLOCK and the second look: what was a file a moment ago may be a FIFO now.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(dir, OsStr::from_bytes(name), flags, Mode::empty()).map_err(unreadable)?;
    for _ in 0..MAX_GROWTHS {
        let stat = fstat(&file).map_err(unreadable)?;
        let file_type = FileType::from_raw_mode(stat.st_mode);
        if file_type != FileType::RegularFile {
            return Err(Fault::NotRegular(kind(file_type)));
        }
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if size > limit {
            return Err(Fault::TooLarge { size, limit });
        }
        if let Some(bytes) = read_at_most(&file, usize::try_from(size).unwrap_or(usize::MAX))? {
            return Ok(Content::Bytes(Secret::new(bytes)));
        }
    }
    Err(Fault::Unreadable("it grows while it is read".to_owned()))
}

/// `None` if there are more bytes than `size`. One buffer of the right size, so that no copy is left behind.
fn read_at_most(file: &OwnedFd, size: usize) -> Result<Option<Vec<u8>>, Fault> {
    let mut bytes = Zeroizing::new(vec![0; size.saturating_add(1)]);
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let offset = u64::try_from(filled).unwrap_or(u64::MAX);
        match rustix::io::pread(file, rest, offset) {
            Ok(0) => {
                bytes.truncate(filled);
                return Ok(Some(std::mem::take(&mut *bytes)));
            }
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    Ok(None)
}

fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Stat, Fault> {
    statat(dir, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW).map_err(unreadable)
}

fn open_dir(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Fault> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, OsStr::from_bytes(name), flags, Mode::empty()).map_err(unreadable)
}

fn unreadable(error: Errno) -> Fault {
    Fault::Unreadable(std::io::Error::from(error).to_string())
}

fn kind(file_type: FileType) -> &'static str {
    match file_type {
        FileType::Directory => "directory",
        FileType::Fifo => "FIFO",
        FileType::Socket => "socket",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        FileType::Symlink => "link",
        FileType::RegularFile => "file",
        FileType::Unknown => "thing of unknown kind",
    }
}
