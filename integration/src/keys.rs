//! A key directory that a test writes, as one of keydir's publishers does.

use std::path::{Path, PathBuf};

use keydir::{Files, Publisher};

use crate::Leaf;

/// A key directory in a temporary folder.
#[derive(Debug)]
pub struct KeyDir {
    folder: tempfile::TempDir,
    path: PathBuf,
    publisher: Publisher,
    files: Files,
}

impl KeyDir {
    /// One with these files.
    pub fn with<N: Into<String>, C: Into<String>>(files: impl IntoIterator<Item = (N, C)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let publisher = Publisher::open(&path).unwrap();
        let mut dir = Self {
            folder,
            path,
            publisher,
            files: Files::new(),
        };
        dir.publish(files);
        dir
    }

    /// One revision, marked.
    pub fn identity(id: &str, leaf: &Leaf) -> Self {
        Self::with(marked(id, leaf))
    }

    /// CA certificates.
    pub fn cas(cas: &[(&str, &crate::Ca)]) -> Self {
        let files: Vec<_> = cas.iter().map(|(id, ca)| (format!("{id}.crt"), ca.pem())).collect();
        Self::with(files)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A folder for other files of the test, outside the directory.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Publishes a whole set.
    pub fn publish<N: Into<String>, C: Into<String>>(&mut self, files: impl IntoIterator<Item = (N, C)>) {
        let files = files.into_iter().map(|(name, content)| {
            let content: String = content.into();
            (name.into(), content.into())
        });
        self.files = files.collect();
        self.publisher.publish(&self.files).unwrap();
    }

    /// Adds files to the current set.
    pub fn add<N: Into<String>, C: Into<String>>(&mut self, files: impl IntoIterator<Item = (N, C)>) {
        for (name, content) in files {
            let content: String = content.into();
            self.files.insert(name.into(), content.into());
        }
        self.publisher.publish(&self.files).unwrap();
    }

    /// Takes a revision away.
    pub fn remove(&mut self, id: &str) {
        let before = self.files.len();
        self.files.retain(|name, _| !name.starts_with(&format!("{id}.")));
        assert!(self.files.len() < before, "there is no {id}");
        self.publisher.publish(&self.files).unwrap();
    }

    /// Moves the mark.
    pub fn promote(&mut self, id: &str) {
        let files = std::mem::take(&mut self.files);
        // A token or a password is marked where a certificate would be.
        let marked = ["crt", "token", "password"].map(|part| format!("{id}.{part}"));
        self.files = files
            .into_iter()
            .map(|(name, content)| {
                let name = name.trim_end_matches(".primary").to_owned();
                let mark = if marked.contains(&name) { ".primary" } else { "" };
                (name + mark, content)
            })
            .collect();
        self.publisher.publish(&self.files).unwrap();
    }
}

fn marked(id: &str, leaf: &Leaf) -> [(String, String); 2] {
    [
        (format!("{id}.crt.primary"), leaf.crt.clone()),
        (format!("{id}.key"), leaf.key.clone()),
    ]
}
