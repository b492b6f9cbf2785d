//! Opening what lies in a directory, and only that: links hop by hop, nothing that blocks or acts, no way out.

use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsStr};
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
    /// Of the regular file that it is, or leads to.
    pub(crate) target: Option<Stat>,
    /// Where its links lead.
    pub(crate) place: Place,
}

pub(crate) enum Place {
    /// `dir` is the directory that it lies in; `None` means the one that was asked.
    Regular {
        dir: Option<OwnedFd>,
        name: Vec<u8>,
    },
    Directory(OwnedFd),
    Other(&'static str),
}

/// Looks where `name` leads, without opening anything for reading.
pub(crate) fn look(root: BorrowedFd<'_>, name: &[u8]) -> Result<Entry, Fault> {
    let own = stat(root, name)?;
    let (place, target) = match FileType::from_raw_mode(own.st_mode) {
        FileType::Symlink => follow(root, &read_link(root, name)?)?,
        FileType::Directory => (Place::Directory(open_dir(root, name)?), None),
        FileType::RegularFile => (Place::here(name), Some(own)),
        other => (Place::Other(kind(other)), None),
    };
    Ok(Entry { own, target, place })
}

impl Place {
    /// What the listing of the directory calls a regular file.
    pub(crate) fn here(name: &[u8]) -> Self {
        Self::Regular {
            dir: None,
            name: name.to_vec(),
        }
    }
}

/// Where a link in `root` that reads `text` leads, component by component; every hop must stay below `root`.
pub(crate) fn follow(root: BorrowedFd<'_>, text: &CStr) -> Result<(Place, Option<Stat>), Fault> {
    let mut way = VecDeque::new();
    add_hop(&mut way, text)?;
    let mut below: Vec<OwnedFd> = Vec::new();
    let mut hops = 1;
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
        let Ok(stat) = stat(here, &step) else {
            return Err(Fault::Link("leads nowhere"));
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                hops += 1;
                if hops > MAX_HOPS {
                    return Err(Fault::Link("loops"));
                }
                add_hop(&mut way, &read_link(here, &step)?)?;
            }
            FileType::Directory => below.push(open_dir(here, &step)?),
            FileType::RegularFile if way.iter().all(|rest| rest.is_empty()) => {
                let dir = below.pop();
                return Ok((Place::Regular { dir, name: step }, Some(stat)));
            }
            FileType::RegularFile => return Err(Fault::Link("leads nowhere")),
            other => return Ok((Place::Other(kind(other)), None)),
        }
    }
    match below.pop() {
        Some(dir) => Ok((Place::Directory(dir), None)),
        None => Ok((Place::Other("directory"), None)),
    }
}

fn add_hop(way: &mut VecDeque<Vec<u8>>, text: &CStr) -> Result<(), Fault> {
    let text = text.to_bytes();
    if text.starts_with(b"/") {
        return Err(Fault::Link("leaves the directory"));
    }
    for part in text.rsplit(|b| *b == b'/') {
        way.push_front(part.to_vec());
    }
    Ok(())
}

/// Reads a whole regular file, never more than `limit` bytes. The mode comes with it.
pub(crate) fn read(root: BorrowedFd<'_>, place: &Place, limit: u64) -> (Content, Option<u32>) {
    match place {
        Place::Directory(_) => (Content::Fault(Fault::NotRegular("directory")), None),
        Place::Other(kind) => (Content::Fault(Fault::NotRegular(kind)), None),
        Place::Regular { dir, name } => {
            let dir = dir.as_ref().map_or(root, |dir| dir.as_fd());
            match read_regular(dir, name, limit) {
                Ok((content, mode)) => (content, Some(mode)),
                Err(fault) => (Content::Fault(fault), None),
            }
        }
    }
}

fn read_regular(dir: BorrowedFd<'_>, name: &[u8], limit: u64) -> Result<(Content, u32), Fault> {
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
            return Ok((Content::Bytes(Secret::new(bytes)), stat.st_mode));
        }
    }
    Err(Fault::Unreadable("it grows while it is read".to_owned()))
}

/// `None` if there are more bytes than `size`. One buffer of the right size, so that no copy is left behind; one call,
/// since of a regular file only its end cuts a read short.
fn read_at_most(file: &OwnedFd, size: usize) -> Result<Option<Vec<u8>>, Fault> {
    let mut bytes = Zeroizing::new(vec![0; size.saturating_add(1)]);
    loop {
        match rustix::io::pread(file, bytes.as_mut_slice(), 0) {
            Ok(count) if count > size => return Ok(None),
            Ok(count) => {
                bytes.truncate(count);
                return Ok(Some(std::mem::take(&mut *bytes)));
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
}

fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Stat, Fault> {
    statat(dir, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW).map_err(unreadable)
}

fn read_link(dir: BorrowedFd<'_>, name: &[u8]) -> Result<CString, Fault> {
    readlinkat(dir, OsStr::from_bytes(name), Vec::new()).map_err(unreadable)
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
