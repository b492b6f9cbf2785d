//! Which directories have to be watched to hear of every change to what a path leads to.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A directory, and the name in it that matters; without a name all do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Interest {
    pub(crate) dir: PathBuf,
    pub(crate) name: Option<OsString>,
    pub(crate) identity: Identity,
}

/// Device and inode: a directory that was replaced has to be watched anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity(u64, u64);

#[cfg(test)]
impl Identity {
    pub(crate) fn for_tests(inode: u64) -> Self {
        Self(0, inode)
    }
}

const MAX_HOPS: usize = 40;

/// The directory itself, the place of each link on the way to it, and the place where it would appear again. Of a
/// path that leads nowhere: the nearest directory on the way that exists.
pub(crate) fn interests(path: &Path) -> Vec<Interest> {
    let mut interests = Vec::new();
    let mut path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for _ in 0..MAX_HOPS {
        let Some((place, target, rest)) = first_link(&path) else {
            break;
        };
        add(&mut interests, &place, true);
        let base = place.parent().unwrap_or_else(|| Path::new("/"));
        path = base.join(target).join(rest);
    }
    if let Ok(real) = path.canonicalize() {
        add(&mut interests, &real, true);
        add(&mut interests, &real, false);
    } else {
        let missing = path
            .ancestors()
            .find(|ancestor| ancestor.symlink_metadata().is_err() && ancestor.parent().is_some_and(Path::is_dir));
        add(&mut interests, missing.unwrap_or(&path), true);
    }
    interests.sort();
    interests.dedup();
    interests
}

/// The first component that is a link: its place, where it leads, and what follows it in the path.
fn first_link(path: &Path) -> Option<(PathBuf, PathBuf, PathBuf)> {
    let mut place = PathBuf::new();
    let mut components = path.components();
    while let Some(component) = components.next() {
        place.push(component);
        if let Ok(target) = place.read_link() {
            return Some((place, target, components.as_path().to_owned()));
        }
    }
    None
}

fn add(interests: &mut Vec<Interest>, path: &Path, by_parent: bool) {
    let (dir, name) = match (by_parent, path.parent(), path.file_name()) {
        (true, Some(parent), Some(name)) => (parent, Some(name.to_owned())),
        (true, ..) => return,
        (false, ..) => (path, None),
    };
    // Two names of one directory would share one inotify watch, and its events would come under the later name.
    let Ok(dir) = dir.canonicalize() else { return };
    let Ok(metadata) = dir.metadata() else { return };
    interests.push(Interest {
        dir,
        name,
        identity: Identity(metadata.dev(), metadata.ino()),
    });
}
