//! Looks after one directory: looks, decides, and does one step at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use keydir::{Files, RevisionId};

use crate::anchors::decide_anchors;
use crate::composite::{Known, Role};
use crate::consumer::Consumer;
use crate::decide::decide;
use crate::decision::{Decision, Step};
use crate::generate;
use crate::make::{IssuerDir, Make, MakeError, run};
use crate::observed::{Links, Now, Observed};
use crate::policy::Policy;
use crate::seen::{clashes, issuers, observe};
use crate::settings::Directory;
use crate::state::{Phase, State, StateError};
use crate::step::Set;
use crate::store::{LocalStore, Store, StoreError};

/// Looks after one directory.
#[derive(Clone, Debug)]
pub struct Rotator<S> {
    store: S,
    policy: Policy,
    make: Make,
    ca: Option<PathBuf>,
    migrate: Option<Vec<String>>,
}

/// What counts beside the directory itself.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// Its consumers, as they were last heard of.
    pub consumers: &'a [Consumer],
    /// What other directories have to do with it.
    pub links: &'a Links,
    /// The time.
    pub now: Now,
}

/// What was seen of a directory.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Look {
    /// What is remembered of it, as it would be written down now.
    pub state: State,
    /// What it needs.
    pub decision: Decision,
}

/// What a change would come to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Preview {
    /// Names that would be there.
    pub added: Vec<String>,
    /// Names that would be there no more.
    pub removed: Vec<String>,
    /// What the directory would need then.
    pub look: Look,
}

/// Why a step was not done. What had been published before still is.
#[derive(Debug)]
#[non_exhaustive]
pub enum RotateError {
    /// The directory cannot be read or written.
    Store(String, StoreError),
    /// What is remembered of it cannot be used.
    State(String, StateError),
    /// The new revision could not be made.
    Make(String, RevisionId, MakeError),
    /// What was made outside for this revision could not be taken away.
    Destroy(String, RevisionId, MakeError),
    /// What was made with this revision could not be made anew.
    Migrate(String, RevisionId, MakeError),
    /// The directory of its CA cannot be read.
    Ca(String, MakeError),
    /// There is no randomness.
    Randomness(generate::Error),
    /// Every number of a revision has been used.
    NoNumber(String),
}

impl fmt::Display for RotateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // It names the directory itself.
            Self::Store(_, error) => error.fmt(f),
            Self::State(name, error) => write!(f, "key directory {name}: {error}"),
            Self::Make(name, id, error) => write!(f, "key directory {name}: {id} was not made: {error}"),
            Self::Destroy(name, id, error) => {
                write!(
                    f,
                    "key directory {name}: what was made for {id} was not taken away: {error}"
                )
            }
            Self::Migrate(name, id, error) => {
                write!(
                    f,
                    "key directory {name}: what was made with {id} was not made anew: {error}"
                )
            }
            Self::Ca(name, error) => write!(f, "key directory {name}: {error}"),
            Self::Randomness(error) => error.fmt(f),
            Self::NoNumber(name) => write!(f, "key directory {name}: every number of a revision has been used"),
        }
    }
}

impl Error for RotateError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Store(_, error) => error.source(),
            Self::State(_, error) => Some(error),
            Self::Ca(_, error) | Self::Make(_, _, error) | Self::Destroy(_, _, error) | Self::Migrate(_, _, error) => {
                Some(error)
            }
            Self::Randomness(error) => Some(error),
            Self::NoNumber(_) => None,
        }
    }
}

impl Rotator<LocalStore> {
    /// As a policy wants it.
    pub fn of(directory: &Directory) -> Self {
        let store = LocalStore::new(&directory.path);
        let store = match directory.group_readable {
            true => store.group_readable(),
            false => store,
        };
        Self::with_store(directory, store)
    }
}

impl<S: Store> Rotator<S> {
    /// One whose files are kept elsewhere.
    pub fn with_store(directory: &Directory, store: S) -> Self {
        Self {
            store,
            policy: directory.policy.clone(),
            make: directory.make.clone(),
            ca: directory.ca.clone(),
            migrate: directory.migrate.clone(),
        }
    }

    /// Which directory it is.
    pub fn name(&self) -> String {
        self.store.name()
    }

    /// What the directory needs.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn look(&mut self, situation: &Situation<'_>) -> Result<Look, RotateError> {
        let files = self.store.read().map_err(|error| self.not_stored(error))?;
        let state = State::of_files(&files).map_err(|error| self.not_remembered(error))?;
        Ok(judge(
            &self.policy,
            &self.make,
            observe_in(&files, state, situation),
            situation.now,
        ))
    }

    /// What the directory needs, as it was seen already.
    pub(crate) fn look_at(&self, observed: Observed, links: Links, now: Now) -> Look {
        judge(&self.policy, &self.make, Observed { links, ..observed }, now)
    }

    /// What others have to know of the directory; and why it is not known, if it is not.
    pub(crate) fn know(&mut self, directory: &Directory, consumers: &[Consumer]) -> (Known, Option<RotateError>) {
        let read = self.read_all(&directory.role());
        let mut known = Known {
            path: directory.path.clone(),
            role: directory.role(),
            policy: self.policy.clone(),
            observed: None,
            issued_by: BTreeMap::new(),
            clashes: BTreeSet::new(),
        };
        match read {
            Ok((files, state, ca)) => {
                match (&known.role, ca) {
                    (Role::Leaf { .. }, Some(ca)) => known.issued_by = issuers(&files, &ca),
                    (Role::Trust { .. }, Some(ca)) => known.clashes = clashes(&files, &ca),
                    _ => {}
                }
                known.observed = Some(observe(&files, state, consumers.to_vec()));
                (known, None)
            }
            Err(error) => (known, Some(error)),
        }
    }

    /// The files, what is remembered, and the CA: without which nobody knows whose leaves these are.
    fn read_all(&mut self, role: &Role) -> Result<(Files, Option<State>, Option<IssuerDir>), RotateError> {
        let files = self.store.read().map_err(|error| self.not_stored(error))?;
        let state = State::of_files(&files).map_err(|error| self.not_remembered(error))?;
        let ca = match role {
            Role::Leaf { ca } | Role::Trust { ca } if !files.is_empty() => Some(IssuerDir::read(Some(ca))),
            _ => None,
        };
        let ca = ca.transpose().map_err(|error| RotateError::Ca(self.name(), error))?;
        Ok((files, state, ca))
    }

    /// Does what the directory needs now, one step; what it was, if anything.
    ///
    /// # Errors
    /// If it could not be done. Then the directory is as it was, or the step is begun and will be finished by the next
    /// call.
    pub fn step(&mut self, situation: &Situation<'_>) -> Result<Option<Step>, RotateError> {
        let look = self.look(situation)?;
        let Some(step) = look.decision.step().cloned() else {
            return Ok(None);
        };
        let is_done = match &step {
            Step::Adopt => self.if_still(&step, situation, |_| {})?,
            Step::Begin | Step::Stage => self.make(&look.state, &step, situation)?,
            Step::Promote(id) => self.if_still(&step, situation, |set| set.promote(id))?,
            Step::Release(id) => self.if_still(&step, situation, |set| set.release(id))?,
            Step::Trust(id) => {
                let parts = self.make.make(id, self.ca.as_deref(), situation.now.wall);
                let parts = parts.map_err(|error| RotateError::Make(self.name(), id.clone(), error))?;
                self.if_still(&step, situation, |set| set.stage(id, parts.clone()))?
            }
            Step::Migrate(id) => {
                let words = self.migrate.as_deref().unwrap_or_default();
                run(words, id).map_err(|error| RotateError::Migrate(self.name(), id.clone(), error))?;
                self.if_still(&step, situation, |set| set.migrated(id))?
            }
            Step::Retire(id) if self.make.is_outside() => self.if_still(&step, situation, |set| set.leave(id))?,
            Step::Retire(id) => self.if_still(&step, situation, |set| set.remove(id))?,
            Step::Revoke(id) => self.if_still(&step, situation, |set| set.revoke(id))?,
            Step::Destroy(id) => {
                let destroyed = self.make.destroy(id);
                destroyed.map_err(|error| RotateError::Destroy(self.name(), id.clone(), error))?;
                self.if_still(&step, situation, |set| set.remove(id))?
            }
        };
        if !is_done {
            // Somebody else was first.
            return Ok(None);
        }
        tracing::info!(directory = self.name(), ?step, "done");
        Ok(Some(step))
    }

    /// Changes the set on somebody's order, whatever would be next.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn change(&mut self, now: Now, mut change: impl FnMut(&mut Set)) -> Result<(), RotateError> {
        self.update(now, |_, set| {
            change(set);
            true
        })
        .map(drop)
    }

    /// What a change on somebody's order would come to. Nothing is changed.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn preview(
        &mut self,
        situation: &Situation<'_>,
        change: impl FnOnce(&mut Set),
    ) -> Result<Preview, RotateError> {
        let files = self.store.read().map_err(|error| self.not_stored(error))?;
        let state = State::of_files(&files).map_err(|error| self.not_remembered(error))?;
        let mut set = Set::new(files.clone(), state.as_ref(), situation.now.wall);
        change(&mut set);
        let after = set.publish("planned".to_owned());
        let state = State::of_files(&after).map_err(|error| self.not_remembered(error))?;
        let observed = observe_in(&after, state, situation);
        let look = judge(&self.policy, &self.make, observed, situation.now);
        let names = |files: &Files| files.keys().cloned().collect::<BTreeSet<_>>();
        let (before, after) = (names(&files), names(&after));
        Ok(Preview {
            added: after.difference(&before).cloned().collect(),
            removed: before.difference(&after).cloned().collect(),
            look,
        })
    }

    /// A new revision. Where something outside is made, its id is published first: so that whoever goes on after a crash
    /// makes the same once more, or takes it away.
    fn make(&mut self, state: &State, step: &Step, situation: &Situation<'_>) -> Result<bool, RotateError> {
        let intended = state.in_phase(Phase::Intended).next().map(|(id, _)| id.clone());
        let Some(id) = intended.or_else(|| state.next_id()) else {
            return Err(RotateError::NoNumber(self.name()));
        };
        let is_outside = self.make.is_outside();
        if is_outside && !state.is_intended(&id) {
            self.if_still(step, situation, |set| set.intend(&id))?;
        }
        let issuing = issuing_in(self.ca.as_ref());
        let expected = situation.links.issuer.as_ref();
        if expected.is_some_and(|expected| issuing.as_ref() != Some(expected)) {
            return Ok(false);
        }
        let parts = self.make.make(&id, self.ca.as_deref(), situation.now.wall);
        let parts = parts.map_err(|error| RotateError::Make(self.name(), id.clone(), error))?;
        let ca = self.ca.clone();
        self.update(situation.now, |_, set| {
            // Somebody else may have been here meanwhile, or at the CA.
            let is_mine = match is_outside {
                true => set.state().is_intended(&id),
                false => set.state().next_id().as_ref() == Some(&id) && issuing_in(ca.as_ref()) == issuing,
            };
            if is_mine {
                set.stage(&id, parts.clone());
                if *step == Step::Begin {
                    set.promote(&id);
                }
            }
            is_mine
        })
    }

    /// Publishes a change, if the step is still what is needed.
    fn if_still(
        &mut self,
        step: &Step,
        situation: &Situation<'_>,
        mut change: impl FnMut(&mut Set),
    ) -> Result<bool, RotateError> {
        let (policy, make) = (self.policy.clone(), self.make.clone());
        self.update(situation.now, |files, set| {
            let state = State::of_files(files).ok().flatten();
            let look = judge(&policy, &make, observe_in(files, state, situation), situation.now);
            let is_still = look.decision.step() == Some(step);
            if is_still {
                change(set);
            }
            is_still
        })
    }

    /// Whether there was a change.
    fn update(&mut self, now: Now, mut change: impl FnMut(&Files, &mut Set) -> bool) -> Result<bool, RotateError> {
        let publication = generate::symmetric(16).map_err(RotateError::Randomness)?;
        let publication: String = publication.expose().iter().map(|byte| format!("{byte:02x}")).collect();
        let (mut broken, mut is_changed) = (None, false);
        let updated = self.store.update(&mut |files| match State::of_files(files) {
            Ok(state) => {
                let mut set = Set::new(files.clone(), state.as_ref(), now.wall);
                is_changed = change(files, &mut set);
                is_changed.then(|| set.publish(publication.clone()))
            }
            Err(error) => {
                broken = Some(error);
                None
            }
        });
        match broken {
            Some(error) => Err(self.not_remembered(error)),
            None => updated.map(|()| is_changed).map_err(|error| self.not_stored(error)),
        }
    }

    fn not_stored(&self, error: StoreError) -> RotateError {
        RotateError::Store(self.name(), error)
    }

    fn not_remembered(&self, error: StateError) -> RotateError {
        RotateError::State(self.name(), error)
    }
}

fn issuing_in(ca: Option<&PathBuf>) -> Option<RevisionId> {
    IssuerDir::read(Some(ca?)).ok()?.issuing()
}

fn observe_in(files: &Files, state: Option<State>, situation: &Situation<'_>) -> Observed {
    Observed {
        links: situation.links.clone(),
        ..observe(files, state, situation.consumers.to_vec())
    }
}

fn judge(policy: &Policy, make: &Make, observed: Observed, now: Now) -> Look {
    let decide = match make {
        Make::Anchors => decide_anchors,
        _ => decide,
    };
    Look {
        decision: decide(policy, &observed, now),
        state: State::of(&observed.holding, observed.state.as_ref(), now.wall),
    }
}
