//! Looks after all directories of a policy, until it is told to stop.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::clock::Clocks;
use crate::composite::{Known, links};
use crate::consumer::Consumer;
use crate::decision::{Reason, Step};
use crate::observed::Now;
use crate::rotator::{Look, Preview, RotateError, Rotator, Situation};
use crate::settings::{Directory, Settings};
use crate::step::Set;
use crate::store::LocalStore;

/// While consumers are waited for, they are heard so often.
const SOON: Duration = Duration::from_secs(1);
/// Whatever happens, directories are looked at so often: somebody may have published by hand.
const AT_LAST: Duration = Duration::from_secs(30);
/// What has failed is tried again after so long, then ever more rarely.
const AGAIN: Duration = Duration::from_secs(1);

/// Looks after all directories of a policy.
#[derive(Debug)]
pub struct Keeper {
    groups: Vec<Group>,
    clocks: Clocks,
    /// The strictest of all: what one of them misses the next does not see.
    skew: u64,
}

/// Directories that have to do with one another.
#[derive(Debug)]
struct Group {
    kept: Vec<Kept>,
    /// When to look again, and how long was waited after the last failure.
    next: Instant,
    again: Duration,
}

#[derive(Debug)]
struct Kept {
    directory: Directory,
    rotator: Rotator<LocalStore>,
}

/// What came of a look at a directory.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A step was done.
    Done(PathBuf, Step),
    /// It could not be.
    Failed(PathBuf, RotateError),
    /// Consumers were waited for no longer.
    Overdue(PathBuf, Vec<Reason>),
}

/// A directory and its consumers at one moment.
#[derive(Debug)]
#[non_exhaustive]
pub struct Status {
    /// The directory.
    pub path: PathBuf,
    /// What it is and needs, or why that is not known.
    pub look: Result<Look, RotateError>,
    /// What its consumers say.
    pub consumers: Vec<Consumer>,
    /// Why some of them say nothing.
    pub troubles: Vec<String>,
}

impl Keeper {
    /// Looks after these.
    pub fn new(settings: &Settings) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        for directory in &settings.directories {
            let kept = Kept {
                rotator: Rotator::of(directory),
                directory: directory.clone(),
            };
            match groups.iter_mut().find(|group| group.belongs(directory)) {
                Some(group) => group.kept.push(kept),
                None => groups.push(Group {
                    kept: vec![kept],
                    next: Instant::now(),
                    again: Duration::ZERO,
                }),
            }
        }
        let skews = settings.directories.iter().map(|directory| directory.policy.skew);
        Self {
            groups,
            clocks: Clocks::new(),
            skew: skews.min().unwrap_or_default(),
        }
    }

    /// Looks after these from now on; what was seen of the clocks is not forgotten.
    pub fn follow(&mut self, settings: &Settings) {
        let Self { groups, skew, .. } = Self::new(settings);
        (self.groups, self.skew) = (groups, skew);
    }

    fn now(&mut self) -> Now {
        self.clocks.now(self.skew)
    }

    /// Does all that may be done now, where it is time to look; tells what it was.
    pub fn tick(&mut self, mut tell: impl FnMut(Event)) {
        let due = Instant::now();
        let (clocks, skew) = (&mut self.clocks, self.skew);
        for group in self.groups.iter_mut().filter(|group| group.next <= due) {
            group.look_after(&mut || clocks.now(skew), &mut tell);
        }
    }

    /// What a change of one directory would come to; see [`Rotator::preview`].
    ///
    /// # Errors
    /// If it cannot be read; or `None` if the policy does not know it.
    pub fn preview(&mut self, path: &Path, change: impl FnOnce(&mut Set)) -> Option<Result<Preview, RotateError>> {
        let now = self.now();
        let group = self.groups.iter_mut().find(|group| group.has(path))?;
        let (_, known) = group.look(now);
        let this = known.iter().find(|known| known.path == path)?;
        let kept = group.kept.iter_mut().find(|kept| kept.directory.path == path)?;
        let (consumers, _) = kept.directory.hear();
        let situation = Situation {
            consumers: &consumers,
            links: &links(&known, this, now),
            now,
        };
        Some(kept.rotator.preview(&situation, change))
    }

    /// Changes one directory on somebody's order, whatever would be next.
    ///
    /// # Errors
    /// If it cannot be read or written; or `None` if the policy does not know it.
    pub fn change(&mut self, path: &Path, change: impl FnMut(&mut Set)) -> Option<Result<(), RotateError>> {
        let group = self.groups.iter_mut().find(|group| group.has(path))?;
        group.next = Instant::now();
        let kept = group.kept.iter_mut().find(|kept| kept.directory.path == path)?;
        Some(kept.rotator.change(Now::of_wall(), change))
    }

    /// When it is time to look again.
    pub fn next(&self) -> Option<Instant> {
        self.groups.iter().map(|group| group.next).min()
    }

    /// Where everything stands. Nothing is changed.
    pub fn status(&mut self) -> Vec<Status> {
        let now = self.now();
        self.groups.iter_mut().flat_map(|group| group.look(now).0).collect()
    }
}

impl Group {
    /// By the directory of their CA.
    fn belongs(&self, other: &Directory) -> bool {
        let ca = |directory: &Directory| directory.ca.clone().unwrap_or_else(|| directory.path.clone());
        self.kept.iter().any(|kept| ca(&kept.directory) == ca(other))
    }

    fn has(&self, path: &Path) -> bool {
        self.kept.iter().any(|kept| kept.directory.path == path)
    }

    fn look(&mut self, now: Now) -> (Vec<Status>, Vec<Known>) {
        let heard: Vec<_> = self.kept.iter().map(|kept| kept.directory.hear()).collect();
        let mut troubles = Vec::new();
        let mut known = Vec::new();
        for (kept, (consumers, _)) in self.kept.iter_mut().zip(&heard) {
            let (seen, trouble) = kept.rotator.know(&kept.directory, consumers);
            known.push(seen);
            troubles.push(trouble);
        }
        let statuses = self.kept.iter().zip(&known).zip(heard).zip(troubles);
        let statuses = statuses.map(|(((kept, this), (consumers, silent)), trouble)| {
            let look = match trouble {
                Some(error) => Err(error),
                None => {
                    Ok(kept
                        .rotator
                        .look_at(this.observed.clone().unwrap_or_default(), links(&known, this, now), now))
                }
            };
            Status {
                path: kept.directory.path.clone(),
                look,
                consumers,
                troubles: silent,
            }
        });
        (statuses.collect(), known)
    }

    fn look_after(&mut self, clock: &mut impl FnMut() -> Now, tell: &mut impl FnMut(Event)) {
        // What has failed is not tried again before its time.
        let mut failed = BTreeSet::new();
        loop {
            let now = clock();
            let (statuses, known) = self.look(now);
            let mut wait = AT_LAST;
            let mut next = None;
            for (number, status) in statuses.into_iter().enumerate() {
                match status.look {
                    Err(error) => {
                        if failed.insert(number) {
                            tell(Event::Failed(status.path, error));
                        }
                    }
                    Ok(look) if look.decision.step().is_some() && !failed.contains(&number) => {
                        next = next.or(Some((number, status.consumers, look)));
                    }
                    Ok(look) => wait = wait.min(until_next(&look, now)),
                }
            }
            let Some((number, consumers, look)) = next else {
                self.again = match failed.is_empty() {
                    true => Duration::ZERO,
                    false => (self.again * 2).clamp(AGAIN, AT_LAST),
                };
                self.next = Instant::now() + if failed.is_empty() { wait } else { self.again };
                return;
            };
            let (Some(kept), Some(this)) = (self.kept.get_mut(number), known.get(number)) else {
                return;
            };
            let path = kept.directory.path.clone();
            let situation = Situation {
                consumers: &consumers,
                links: &links(&known, this, now),
                now,
            };
            match kept.rotator.step(&situation) {
                Ok(Some(step)) => {
                    if !look.decision.overdue.is_empty() {
                        tell(Event::Overdue(path.clone(), look.decision.overdue));
                    }
                    tell(Event::Done(path, step));
                }
                // Somebody else has done it.
                Ok(None) => {}
                Err(error) => {
                    failed.insert(number);
                    tell(Event::Failed(path, error));
                }
            }
        }
    }
}

/// How long nothing can become possible, as far as is known.
fn until_next(look: &Look, now: Now) -> Duration {
    let reasons = look.decision.blocked.iter();
    let longest = reasons.map(|reason| match reason {
        Reason::Until(at, _) => Duration::from_secs(at.saturating_sub(now.wall)),
        _ => SOON,
    });
    longest.max().unwrap_or(AT_LAST).clamp(SOON, AT_LAST)
}
