//! Directories with anything in them, and publications as the kubelet makes them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};

/// What lies under a name.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A regular file, mode 0600.
    File(Vec<u8>),
    /// A regular file that nobody may read; see [`without_read_override`].
    Unreadable,
    /// A symbolic link.
    Link(String),
    /// A directory.
    Dir(BTreeMap<String, Self>),
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
}

impl From<&str> for Entry {
    fn from(text: &str) -> Self {
        Self::File(text.as_bytes().to_vec())
    }
}

/// A temporary directory.
#[derive(Debug)]
pub struct Tree {
    root: tempfile::TempDir,
    publications: u32,
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            publications: 0,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Removes what is there and makes what is wanted; of the same names, the same files with new content would be
    /// made, so nothing is reused.
    pub fn replace(&self, entries: &BTreeMap<String, Entry>) {
        for entry in fs::read_dir(self.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                fs::remove_dir_all(path).unwrap();
            } else {
                fs::remove_file(path).unwrap();
            }
        }
        make_all(self.path(), entries);
    }

    /// Publishes as the kubelet does: a new directory, and `..data` renamed to it.
    pub fn publish(&mut self, entries: &BTreeMap<String, Entry>) {
        let old = self.path().join("..data").read_link().ok();
        let name = format!("..{}", self.publications);
        self.publications += 1;
        let dir = self.path().join(&name);
        fs::create_dir(&dir).unwrap();
        make_all(&dir, entries);
        self.point_to(&name);
        // Only what a publication made: a test may have put any link there.
        let ours = |old: &PathBuf| {
            let number = old.to_str().and_then(|old| old.strip_prefix(".."));
            number.is_some_and(|number| number.parse::<u32>().is_ok())
        };
        if let Some(old) = old.filter(ours) {
            let _ = fs::remove_dir_all(self.path().join(old));
        }
    }

    /// Leaves `..data` dangling.
    pub fn break_link(&self) {
        self.point_to("..gone");
    }

    fn point_to(&self, name: &str) {
        let next = self.path().join("..data_tmp");
        symlink(name, &next).unwrap();
        fs::rename(next, self.path().join("..data")).unwrap();
    }
}

fn make_all(dir: &Path, entries: &BTreeMap<String, Entry>) {
    // Many empty files are links to a few: a file system makes those much quicker.
    let mut empty: Option<(PathBuf, u32)> = None;
    for (name, entry) in entries {
        let path = dir.join(name);
        match (entry, &mut empty) {
            (Entry::File(content), Some((first, links))) if content.is_empty() && *links < 30_000 => {
                fs::hard_link(first, path).unwrap();
                *links += 1;
            }
            (Entry::File(content), _) if content.is_empty() => {
                make(path.clone(), entry);
                empty = Some((path, 1));
            }
            _ => make(path, entry),
        }
    }
}

fn make(path: PathBuf, entry: &Entry) {
    let write = |content: &[u8]| {
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        std::io::Write::write_all(&mut file.unwrap(), content).unwrap();
    };
    match entry {
        Entry::File(content) => write(content),
        Entry::Unreadable => {
            write(b"nobody reads this");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        }
        Entry::Link(target) => symlink(target, path).unwrap(),
        Entry::Dir(entries) => {
            fs::create_dir(&path).unwrap();
            make_all(&path, entries);
        }
        Entry::Fifo => mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap(),
        Entry::Socket => drop(UnixListener::bind(path).unwrap()),
    }
}

/// Takes from this thread, and from those that it starts, root's right to read what the mode forbids, so that
/// unreadable files are unreadable for root too. Call it before the process opens its first directory.
pub fn without_read_override() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let mut sets = capabilities(None).unwrap();
    let reads = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
    sets.effective.remove(reads);
    sets.permitted.remove(reads);
    sets.inheritable.remove(reads);
    set_capabilities(None, sets).unwrap();
}
