//! A key directory whose writer waits until each publication is loaded, as a rotator does.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use keydir::{Files, Live, Publisher, View};

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
