//! A complete CA rotation under load: trust both, switch the leaves, drop the old CA. Then an intruder tries.

mod directories;
mod intruder;
mod load;
mod ports;
mod screen;

use std::future::Future;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use keydir_rustls::{Identity, TrustAnchors};
use tokio::sync::watch;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::{Instant, sleep_until};

use crate::authority::{Authority, Role};
use crate::client::Client;
use crate::failure::Failure;
use crate::run::print_line;
use crate::server::{Clients, Server};
use crate::target::Target;
use directories::{Directories, Publication};
use intruder::{Entry, Outsider};
use load::Load;
use screen::Screen;

/// What is in flight on connections that rest on what was revoked gets so long.
const GRACE: Duration = Duration::from_secs(5);
/// Publications of one rotation.
const STEPS: u32 = 6;

/// What the demo is to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// About how long it is to take.
    pub time: Duration,
    /// How many clients keep the servers busy.
    pub clients: usize,
    /// How often the CA is rotated.
    pub rotations: u32,
}

/// One end of the connections: what it presents and whom it trusts.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub(crate) identity: Identity,
    pub(crate) anchors: TrustAnchors,
}

impl Side {
    /// A consumer of its own: it opens the directories for itself, as another process would.
    fn open(directories: &Directories, role: Role) -> Result<Self, Failure> {
        block_in_place(|| {
            Ok(Self {
                identity: Identity::open(directories.leaves(role))?,
                anchors: TrustAnchors::open(directories.cas())?,
            })
        })
    }
}

/// Runs the demo, prints how it goes, and ends with its two lines.
pub async fn run(plan: Plan, end: impl Future<Output = ()>) -> Result<ExitCode, Failure> {
    let folder = tempfile::Builder::new().prefix("keydir-demo-").tempdir();
    let folder = folder.map_err(|error| Failure::System("make a temporary folder", error))?;
    let code = tokio::select! {
        code = Demo::perform(plan, folder.path()) => code,
        () = end => Err(Failure::Waited("stopped before its end".to_owned())),
    };
    // Whoever still follows the directories would complain that they vanish.
    let all_closed = directories::until(
        || "not all is closed".to_owned(),
        || keydir::report().directories.is_empty(),
    );
    if let Err(failure) = all_closed.await {
        tracing::warn!(%failure);
    }
    code
}

struct Demo {
    plan: Plan,
    begun: Instant,
    directories: Directories,
    targets: [Target; 2],
    load: Load,
    screen: Screen,
}

impl Demo {
    async fn perform(plan: Plan, folder: &Path) -> Result<ExitCode, Failure> {
        let mut ca = Authority::new("c1")?;
        let directories = Directories::create(folder, &ca, "r1")?;
        let server = Side::open(&directories, Role::Server)?;
        let clients = (0..plan.clients)
            .map(|_| Side::open(&directories, Role::Client))
            .collect::<Result<Vec<_>, _>>()?;

        // Two servers on one identity and one set of anchors: sessions in memory, and in tickets.
        let (stop, stopped) = watch::channel(());
        let mut servers = Vec::new();
        let in_memory = listen(&server, false, &stopped, &mut servers)?;
        let in_tickets = listen(&server, true, &stopped, &mut servers)?;
        let targets = [in_memory, in_tickets];
        let load = Load::start(&clients, &targets)?;
        let screen = Screen::start(plan, server, clients, load.counters());
        let mut demo = Self {
            plan,
            begun: Instant::now(),
            directories,
            targets,
            load,
            screen,
        };

        let mut entries = Vec::new();
        let mut stopped_by = None;
        for rotation in 1..=plan.rotations {
            match demo.rotate(rotation, ca, &mut entries).await {
                Ok(new) => ca = new,
                Err(failure) => {
                    stopped_by = Some(failure);
                    break;
                }
            }
        }
        if stopped_by.is_none() {
            demo.pace(plan.rotations * STEPS).await;
        }
        let code = demo.conclude(&entries, stopped_by).await?;
        drop(stop);
        for server in servers {
            // A server that panicked has failed requests already.
            let _ = server.await;
        }
        Ok(code)
    }

    /// One complete rotation, away from `old`.
    async fn rotate(&mut self, rotation: u32, old: Authority, entries: &mut Vec<Entry>) -> Result<Authority, Failure> {
        let (old_leaf, new_leaf) = (format!("r{rotation}"), format!("r{}", rotation + 1));
        let new = Authority::new(&format!("c{}", rotation + 1))?;
        let first = (rotation - 1) * STEPS;
        self.screen.rotation(rotation);

        let what = format!("trust {} beside {}", new.id(), old.id());
        self.step(first, &what, |to| Ok(vec![to.trust(&new)?])).await?;

        let what = format!("stage the leaves {new_leaf} of {}", new.id());
        self.step(first + 1, &what, |to| {
            Ok(vec![
                to.stage(Role::Server, &new_leaf, &new.leaf(Role::Server)?)?,
                to.stage(Role::Client, &new_leaf, &new.leaf(Role::Client)?)?,
            ])
        })
        .await?;

        // First one side, then the other: so whoever still meets the old leaf of a server is a client whose handshake
        // began under its own old leaf, and those are counted below. Both sides renew the connections that they keep.
        for (number, role, who) in [(2, Role::Server, "servers"), (3, Role::Client, "clients")] {
            let what = format!("promote {new_leaf} at the {who}");
            self.step(first + number, &what, |to| Ok(vec![to.promote(role, &new_leaf)?]))
                .await?;
        }

        self.pace(first + 4).await;
        self.screen
            .doing("wait for the connections that rest on the old leaves");
        self.directories.unused(Role::Server, &old_leaf).await?;
        self.directories.unused(Role::Client, &old_leaf).await?;
        let what = format!("retire the leaves {old_leaf}");
        self.step(first + 4, &what, |to| {
            Ok(vec![
                to.retire(Role::Server, &old_leaf)?,
                to.retire(Role::Client, &old_leaf)?,
            ])
        })
        .await?;

        // While the old CA is trusted, sessions are saved: by the intruder, and by one who may stay.
        let roots = [old.der().clone(), new.der().clone()];
        let intruder = Outsider::enter(&old.leaf(Role::Client)?, &roots, &self.targets).await?;
        let resident = Outsider::enter(&new.leaf(Role::Client)?, &roots, &self.targets).await?;

        let what = format!("drop {}", old.id());
        self.step(first + 5, &what, |to| Ok(vec![to.distrust(old.id())?]))
            .await?;
        self.screen.doing(&format!("attack as a client of {}", old.id()));
        entries.push(Entry::attempt(old.id(), new.id(), &intruder, &resident).await?);
        Ok(new)
    }

    /// Publishes, and waits until each consumer holds exactly that publication.
    async fn step(
        &mut self,
        number: u32,
        what: &str,
        publish: impl FnOnce(&mut Directories) -> Result<Vec<Publication>, Failure>,
    ) -> Result<(), Failure> {
        self.pace(number).await;
        self.screen.doing(what);
        // Publications are written to disk before they count, and that may take its time.
        let publications = block_in_place(|| publish(&mut self.directories))?;
        let consumers = self.plan.clients + 1;
        for publication in &publications {
            publication.adopted(consumers).await?;
        }
        self.screen.done(what, &publications);
        Ok(())
    }

    /// Spreads the steps over the time of the demo, for the eyes of whoever watches: nothing depends on it.
    async fn pace(&self, number: u32) {
        let steps = self.plan.rotations * STEPS + 1;
        sleep_until(self.begun + self.plan.time / steps * (number + 1)).await;
    }

    async fn conclude(self, entries: &[Entry], stopped_by: Option<Failure>) -> Result<ExitCode, Failure> {
        let outcome = self.load.stop().await;
        self.screen.stop().await;
        // All alike are shown once.
        let last = entries.len().saturating_sub(1);
        for (_, entry) in entries
            .iter()
            .enumerate()
            .filter(|(at, entry)| *at == last || !entry.is_fine())
        {
            for line in entry.lines() {
                print_line(&line)?;
            }
        }
        for line in outcome.lines() {
            print_line(&line)?;
        }
        if let Some(failure) = &outcome.first_failure {
            print_line(&format!("the first that failed: {failure}"))?;
        }
        if let Some(failure) = &stopped_by {
            print_line(&format!("the rotation stopped: {failure}"))?;
        }
        print_line(&format!("failed: {}", outcome.failed))?;
        print_line(&intruder::verdict(entries))?;
        let fine = outcome.failed == 0 && stopped_by.is_none() && entries.iter().all(Entry::is_fine);
        Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Starts a server on a free port; it ends with `stopped`.
fn listen(
    side: &Side,
    tickets: bool,
    stopped: &watch::Receiver<()>,
    servers: &mut Vec<JoinHandle<()>>,
) -> Result<Target, Failure> {
    let (listener, target) = ports::listen()?;
    let server = Server::new(&side.identity, Clients::Required(side.anchors.clone()), tickets, GRACE)?;
    let mut stopped = stopped.clone();
    servers.push(tokio::spawn(server.serve(listener, async move {
        let _ = stopped.changed().await;
    })));
    Ok(target)
}

/// A client of the load.
pub(crate) fn client(side: &Side) -> Result<Client, Failure> {
    Ok(Client::new(&side.anchors, Some(&side.identity))?)
}
