//! The names in a key directory, with their modes: what the program says of files that no use needs to read.
//!
//! What is in them, and what counts, is read by the library alone; here nothing is opened but directories.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use keydir::{FileName, RevisionId};

/// As many entries as a reader looks at.
const MAX_ENTRIES: usize = 100_000;
pub(crate) const ROTATION: &str = ".rotation.json";

/// Everything that lies in the set that is published now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) revisions: BTreeMap<RevisionId, Listed>,
    /// Names that are none of the convention, shown as text.
    pub(crate) strays: Vec<String>,
    /// There is a `.rotation.json`.
    pub(crate) rotation: bool,
    /// What anyone may write to.
    pub(crate) writable: Vec<String>,
}

/// The names of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) parts: BTreeSet<String>,
    /// Names of files, markers not included.
    pub(crate) files: Vec<String>,
    pub(crate) marked: bool,
    pub(crate) revoked: bool,
}

impl Listing {
    pub(crate) fn read(path: &Path, flat: bool) -> io::Result<Self> {
        let data = path.join("..data");
        let inside = if fs::symlink_metadata(&data).is_ok() {
            data
        } else {
            path.to_owned()
        };
        let mut listing = Self::default();
        for (what, dir) in BTreeMap::from([(".", path.to_owned()), ("..data", inside.clone())]) {
            // With the sticky bit, as on the kubelet's own mounts, nobody can replace what is another's.
            if mode(&dir).is_some_and(|mode| mode & 0o002 != 0 && mode & 0o1000 == 0) && (what == "." || inside != path)
            {
                listing.writable.push(what.to_owned());
            }
        }
        for entry in fs::read_dir(&inside)?.take(MAX_ENTRIES) {
            let name = entry?.file_name();
            listing.add(name.as_bytes(), flat);
            if is_open_to_write(&inside, &name) && name.as_bytes().first() != Some(&b'.') {
                listing.writable.push(name.to_string_lossy().into_owned());
            }
        }
        listing.strays.sort();
        listing.writable.sort();
        Ok(listing)
    }

    /// The listing of a set that lies in memory.
    pub(crate) fn of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut listing = Self::default();
        for name in names {
            listing.add(name.as_bytes(), false);
        }
        listing
    }

    pub(crate) fn is_revoked(&self, id: &RevisionId) -> bool {
        self.revisions.get(id).is_some_and(|listed| listed.revoked)
    }

    /// The ids whose mark counts.
    pub(crate) fn marked(&self) -> impl Iterator<Item = &RevisionId> {
        let revisions = self.revisions.iter();
        revisions
            .filter(|(_, listed)| listed.marked && !listed.revoked)
            .map(|(id, _)| id)
    }

    fn add(&mut self, name: &[u8], flat: bool) {
        let shown = || String::from_utf8_lossy(name).into_owned();
        let parsed = if flat {
            FileName::parse_flat(name)
        } else {
            FileName::parse(name)
        };
        match parsed {
            FileName::File { id, part, primary } => {
                let listed = self.revisions.entry(id).or_default();
                listed.parts.insert(part.to_string());
                listed.files.push(shown());
                listed.files.sort();
                listed.marked |= primary;
            }
            FileName::Marker { id } => self.revisions.entry(id).or_default().revoked = true,
            FileName::Hidden => self.rotation |= name == ROTATION.as_bytes(),
            FileName::Stray { .. } => self.strays.push(shown()),
        }
    }
}

fn mode(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|metadata| metadata.mode())
}

fn is_open_to_write(dir: &Path, name: &OsStr) -> bool {
    let path: PathBuf = dir.join(name);
    let metadata = fs::symlink_metadata(&path).ok();
    metadata.is_some_and(|metadata| metadata.is_file() && metadata.mode() & 0o002 != 0)
}
