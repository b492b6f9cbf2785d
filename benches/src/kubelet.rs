//! Publications as the kubelet makes them.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A directory in the kubelet's layout, in a temporary folder of its own: who watches it watches the folder too.
#[derive(Debug)]
pub(crate) struct Kubelet {
    path: PathBuf,
    _folder: tempfile::TempDir,
    publications: u32,
}

/// Names and their content.
pub(crate) type Files = Vec<(String, String)>;

impl Kubelet {
    pub(crate) fn with(files: &Files) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        fs::create_dir(&path).unwrap();
        let mut kubelet = Self {
            path,
            _folder: folder,
            publications: 0,
        };
        kubelet.publish(files);
        kubelet.tidy(files);
        kubelet
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a new directory and renames `..data` to it; gives the moment just before the rename.
    pub(crate) fn publish(&mut self, files: &Files) -> Instant {
        self.publications += 1;
        let name = format!("..{}", self.publications);
        let dir = self.file(&name);
        fs::create_dir(&dir).unwrap();
        for (name, content) in files {
            let mut file = fs::OpenOptions::new();
            let mut file = file
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(dir.join(name))
                .unwrap();
            std::io::Write::write_all(&mut file, content.as_bytes()).unwrap();
        }
        let (next, data) = (self.file("..data_tmp"), self.file("..data"));
        symlink(&name, &next).unwrap();
        let before = Instant::now();
        fs::rename(next, data).unwrap();
        before
    }

    /// What the kubelet does after the rename: a link for each name, none for what has gone, and the old directory
    /// removed.
    pub(crate) fn tidy(&self, files: &Files) {
        for entry in fs::read_dir(self.path()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let is_current = name == "..data" || name == format!("..{}", self.publications);
            if name.starts_with("..") && !is_current {
                fs::remove_dir_all(self.file(&name)).unwrap();
            } else if !is_current && !files.iter().any(|(file, _)| *file == name) {
                fs::remove_file(self.file(&name)).unwrap();
            }
        }
        // Of thousands of files the links are of no interest to anybody.
        for (name, _) in files.iter().take(100) {
            let link = self.file(name);
            if link.symlink_metadata().is_err() {
                symlink(format!("..data/{name}"), link).unwrap();
            }
        }
    }
}
