//! The demo's key directories: what is published, and who holds it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use keydir::{Files, Publisher, Secret, SetReport};
use tokio::time::{Instant, sleep};

use super::Role;
use crate::authority::{Authority, Leaf, random};
use crate::failure::Failure;

/// Each consumer has so much time to load a publication.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the report is asked.
const ASK: Duration = Duration::from_millis(5);

/// Three key directories in one folder.
pub(super) struct Directories {
    cas: Directory,
    server: Directory,
    client: Directory,
}

struct Directory {
    path: PathBuf,
    publisher: Publisher,
    files: Files,
}

/// A set that was published, by the id that its consumers report.
pub(super) struct Publication {
    pub(super) id: String,
    path: PathBuf,
    /// The clients and the server trust the same CAs, but each side has leaves of its own.
    of: Option<Role>,
}

impl Directories {
    /// The first set: one CA, and a leaf of it for each side.
    pub(super) fn create(folder: &Path, ca: &Authority, leaf: &str) -> Result<Self, Failure> {
        let open = |name| {
            let path = folder.join(name);
            let publisher = Publisher::open(&path)?;
            Ok::<_, Failure>(Directory {
                path,
                publisher,
                files: Files::new(),
            })
        };
        let mut directories = Self {
            cas: open("ca")?,
            server: open("server")?,
            client: open("client")?,
        };
        directories.trust(ca)?;
        for role in [Role::Server, Role::Client] {
            let directory = directories.of(role);
            directory.add(leaf, &ca.leaf(role)?);
            directory.mark(leaf);
            directory.publish(Some(role))?;
        }
        Ok(directories)
    }

    pub(super) fn cas(&self) -> &Path {
        &self.cas.path
    }

    pub(super) fn leaves(&self, role: Role) -> &Path {
        match role {
            Role::Server => &self.server.path,
            Role::Client => &self.client.path,
        }
    }

    fn of(&mut self, role: Role) -> &mut Directory {
        match role {
            Role::Server => &mut self.server,
            Role::Client => &mut self.client,
        }
    }

    pub(super) fn trust(&mut self, ca: &Authority) -> Result<Publication, Failure> {
        let name = format!("{}.crt", ca.id());
        self.cas.files.insert(name, Secret::from(ca.pem()));
        self.cas.publish(None)
    }

    pub(super) fn distrust(&mut self, id: &str) -> Result<Publication, Failure> {
        self.cas.files.remove(&format!("{id}.crt"));
        self.cas.publish(None)
    }

    pub(super) fn stage(&mut self, role: Role, id: &str, leaf: &Leaf) -> Result<Publication, Failure> {
        let directory = self.of(role);
        directory.add(id, leaf);
        directory.publish(Some(role))
    }

    pub(super) fn promote(&mut self, role: Role, id: &str) -> Result<Publication, Failure> {
        let directory = self.of(role);
        directory.mark(id);
        directory.publish(Some(role))
    }

    pub(super) fn retire(&mut self, role: Role, id: &str) -> Result<Publication, Failure> {
        let directory = self.of(role);
        for part in ["crt", "key"] {
            directory.files.remove(&format!("{id}.{part}"));
        }
        directory.publish(Some(role))
    }

    /// Waits until nothing rests on a leaf any more, by the census of the report.
    pub(super) async fn unused(&self, role: Role, id: &str) -> Result<(), Failure> {
        let path = self.leaves(role);
        let late = || format!("something still rests on {id} in {}", path.display());
        until(late, || sets_of(path).iter().all(|set| set.uses(id) == 0)).await
    }
}

impl Directory {
    fn add(&mut self, id: &str, leaf: &Leaf) {
        let (crt, key) = (leaf.crt.as_str(), leaf.key.as_str());
        self.files.insert(format!("{id}.crt"), crt.into());
        self.files.insert(format!("{id}.key"), key.into());
    }

    /// Moves the mark, which stands on the certificate, to another revision.
    fn mark(&mut self, id: &str) {
        let files = std::mem::take(&mut self.files);
        let marked = format!("{id}.crt");
        let move_mark = |(name, content): (String, Secret)| {
            let plain = name.strip_suffix(".primary").unwrap_or(&name);
            let name = if plain == marked {
                format!("{plain}.primary")
            } else {
                plain.to_owned()
            };
            (name, content)
        };
        self.files = files.into_iter().map(move_mark).collect();
    }

    fn publish(&mut self, of: Option<Role>) -> Result<Publication, Failure> {
        let id = format!("{:032x}", u128::from_be_bytes(random()?));
        let rotation = format!("{{\"publication\":\"{id}\"}}");
        self.files.insert(".rotation.json".to_owned(), rotation.into());
        self.publisher.publish(&self.files)?;
        Ok(Publication {
            id,
            path: self.path.clone(),
            of,
        })
    }
}

impl Publication {
    /// Waits until each consumer of the directory holds this publication, with nothing set aside.
    pub(super) async fn adopted(&self, consumers: usize) -> Result<(), Failure> {
        let consumers = match self.of {
            None => consumers,
            Some(Role::Server) => 1,
            Some(Role::Client) => consumers - 1,
        };
        let path = &self.path;
        let late = || format!("a consumer of {} did not load publication {}", path.display(), self.id);
        until(late, || {
            let sets = sets_of(path);
            let holds = |set: &SetReport| set.publication.as_ref() == Some(&self.id) && set.adopted;
            sets.len() == consumers && sets.iter().all(holds)
        })
        .await
    }
}

/// What the process reports of a directory: one set for each consumer that has opened it.
fn sets_of(path: &Path) -> Vec<SetReport> {
    let path = path.to_string_lossy();
    let directories = keydir::report().directories.into_iter();
    directories
        .filter(|directory| directory.path == path)
        .flat_map(|directory| directory.sets)
        .collect()
}

/// Waits for a condition, for a while.
pub(super) async fn until(late: impl Fn() -> String, condition: impl Fn() -> bool) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() > deadline {
            return Err(Failure::Waited(format!("{} within {} s", late(), PATIENCE.as_secs())));
        }
        sleep(ASK).await;
    }
    Ok(())
}
