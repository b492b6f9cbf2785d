//! A key directory whose writer waits until each publication is loaded, as a rotator does.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use keydir::{Files, Live, Publisher, View};

use crate::{Ca, Leaf};

const PATIENCE: Duration = Duration::from_secs(20);

/// Returns when a consumer has the publication with this id.
type HasLoaded = Box<dyn FnMut(&str) + Send>;

/// A directory, its writer, and those who must have loaded a publication before the next one.
pub struct Written {
    publisher: Publisher,
    files: Files,
    publications: u64,
    /// The number of the revision that is presented or trusted.
    pub revision: u64,
    consumers: Vec<HasLoaded>,
}

impl Written {
    /// With a first publication.
    pub fn new(path: &Path, files: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut written = Self {
            publisher: Publisher::open(path).unwrap(),
            files: Files::new(),
            publications: 0,
            revision: 0,
            consumers: Vec::new(),
        };
        written.add(files);
        written.publish();
        written
    }

    /// Somebody who must have loaded each publication before the next.
    pub fn consumer<V: View>(&mut self, live: &Live<V>) {
        let (live, mut changes) = (live.clone(), live.subscribe());
        self.consumers.push(Box::new(move |id| {
            while live.load().publication() != Some(id) {
                let change = changes.recv_timeout(PATIENCE);
                assert!(change.is_some(), "publication {id} is not loaded");
            }
        }));
    }

    /// Adds files to the next publication.
    pub fn add(&mut self, files: impl IntoIterator<Item = (String, String)>) {
        let files = files.into_iter().map(|(name, content)| (name, content.into()));
        self.files.extend(files);
    }

    /// Adds a leaf as the next revision; its number, and that of the one before.
    pub fn stage(&mut self, leaf: Leaf) -> [u64; 2] {
        let old = self.revision;
        self.revision += 1;
        self.add(leaf_files(self.revision, leaf, ""));
        [old, self.revision]
    }

    /// Moves the mark from one leaf to another.
    pub fn promote(&mut self, from: u64, to: u64) {
        self.rename(&format!("r{from}.crt.primary"), &format!("r{from}.crt"));
        self.rename(&format!("r{to}.crt"), &format!("r{to}.crt.primary"));
    }

    /// Takes a revision out of the next publication.
    pub fn remove(&mut self, id: &str) {
        let before = self.files.len();
        self.files.retain(|name, _| !name.starts_with(&format!("{id}.")));
        assert!(self.files.len() < before, "there is no {id}");
    }

    /// Gives a file of the next publication another name.
    pub fn rename(&mut self, from: &str, to: &str) {
        let content = self.files.remove(from).unwrap();
        self.files.insert(to.to_owned(), content);
    }

    /// Publishes what was prepared, and returns when every consumer has it.
    pub fn publish(&mut self) {
        self.publications += 1;
        let id = format!("p{}", self.publications);
        let rotation = format!("{{\"publication\":\"{id}\"}}");
        self.files.insert(".rotation.json".to_owned(), rotation.into());
        self.publisher.publish(&self.files).unwrap();
        self.consumers.iter_mut().for_each(|has_loaded| has_loaded(&id));
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Written")
            .field("publications", &self.publications)
            .finish_non_exhaustive()
    }
}

/// The file of a CA.
pub fn ca_file(number: u64, ca: &Ca) -> [(String, String); 1] {
    [(format!("c{number}.crt"), ca.pem())]
}

/// The files of a leaf; `mark` is `.primary` or nothing.
pub fn leaf_files(number: u64, leaf: Leaf, mark: &str) -> [(String, String); 2] {
    [
        (format!("r{number}.crt{mark}"), leaf.crt),
        (format!("r{number}.key"), leaf.key),
    ]
}

/// A folder in memory where there is such a place: the publisher syncs each file, and a disk would only make it slower.
pub fn folder_in_memory() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    let folder = if shm.is_dir() {
        tempfile::tempdir_in(shm)
    } else {
        tempfile::tempdir()
    };
    folder.unwrap()
}
