//! A rotator, a directory and its consumers. Time goes in steps of one second.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use keydir::{Files, RevisionId};
use keydir_rotate::{Consumer, Decision, Holding, Links, Now, Observed, Phase, Policy, Said, Set, State, Step, decide};

/// Begins some time after 1970, so that nothing is before it.
const BEGIN: u64 = 1_000;

/// One publication, as consumers see it.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) id: String,
    pub(crate) files: Files,
    pub(crate) primary: RevisionId,
    pub(crate) accepted: BTreeSet<RevisionId>,
}

/// Something that presents with the primary, and accepts what its publication holds.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// What it has loaded; `None` while it is down.
    pub(crate) loaded: Option<Arc<Publication>>,
    /// When it made something last with each revision.
    pub(crate) made: BTreeMap<RevisionId, u64>,
}

/// What becomes of a consumer in one second.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    Stays,
    /// Loads what is published.
    Loads,
    /// Begins anew with this one, which was current not long ago.
    Restarts(Arc<Publication>),
    Dies,
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) current: Arc<Publication>,
    /// What was current before, and until when.
    pub(crate) former: Vec<(Arc<Publication>, u64)>,
    pub(crate) members: Vec<Member>,
    pub(crate) state: State,
    /// How long what is made is to be accepted.
    pub(crate) life: u64,
    /// How far the rotator's clock is off, and since when.
    pub(crate) jump: Option<(i64, u64)>,
    /// What somebody else may have, and until when it is accepted.
    pub(crate) compromised: Option<(RevisionId, u64)>,
    pub(crate) rolled_back: bool,
}

impl World {
    /// Everybody has loaded the first publication.
    pub(crate) fn new(members: usize, life: u64) -> Self {
        let mut set = Set::new(Files::new(), None, BEGIN);
        let id: RevisionId = "r1".parse().unwrap();
        set.stage(&id, vec![("token".to_owned(), "1".into())]);
        set.promote(&id);
        set.request();
        let (current, state) = published(set, 0);
        let member = Member {
            loaded: Some(Arc::clone(&current)),
            made: BTreeMap::new(),
        };
        Self {
            now: BEGIN,
            current,
            former: Vec::new(),
            members: vec![member; members],
            state,
            life,
            jump: None,
            compromised: None,
            rolled_back: false,
        }
    }

    /// What the rotator's clock says.
    pub(crate) fn wall(&self) -> u64 {
        self.now.saturating_add_signed(self.jump.map_or(0, |(off, _)| off))
    }

    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Set)) {
        let mut set = Set::new(self.current.files.clone(), Some(&self.state), self.wall());
        change(&mut set);
        self.publish(set);
    }

    /// When the time of what is compromised has come, nobody is to accept it, and all else is second.
    pub(crate) fn late(&self, is_quiet: bool) -> Option<String> {
        let (id, by) = self.compromised.as_ref()?;
        let is_accepted = self.current.accepted.contains(id);
        (is_quiet && is_accepted && *by <= self.now).then(|| format!("{id} is still accepted"))
    }

    /// What was current at some moment of the last seconds.
    pub(crate) fn within(&self, seconds: u64) -> Vec<Arc<Publication>> {
        let former = self.former.iter().filter(|(_, until)| *until + seconds > self.now);
        let mut all: Vec<_> = former.map(|(publication, _)| Arc::clone(publication)).collect();
        all.push(Arc::clone(&self.current));
        all
    }

    /// One second passes.
    pub(crate) fn pass(&mut self, fates: &[Fate]) {
        self.now += 1;
        for (member, fate) in self.members.iter_mut().zip(fates) {
            match fate {
                Fate::Stays => {}
                Fate::Loads if member.loaded.is_some() => member.loaded = Some(Arc::clone(&self.current)),
                Fate::Loads => {}
                Fate::Restarts(publication) => {
                    member.loaded = Some(Arc::clone(publication));
                }
                Fate::Dies => member.loaded = None,
            }
            if let Some(loaded) = &member.loaded {
                member.made.insert(loaded.primary.clone(), self.now);
            }
            member.made.retain(|_, at| *at + self.life >= self.now);
        }
    }

    /// Who meets what he cannot accept: something that was made, and is to be good still.
    pub(crate) fn failure(&self) -> Option<String> {
        let made: BTreeSet<&RevisionId> = self.members.iter().flat_map(|member| member.made.keys()).collect();
        self.members.iter().enumerate().find_map(|(number, member)| {
            let loaded = member.loaded.as_ref()?;
            let unknown = made.iter().find(|id| !loaded.accepted.contains(**id))?;
            Some(format!("consumer {number}, with {}, meets {unknown}", loaded.id))
        })
    }

    pub(crate) fn observed(&self, with_reports: bool) -> Observed {
        let consumer = |(number, member): (usize, &Member)| Consumer {
            name: number.to_string(),
            said: member.loaded.as_ref().map(|loaded| Said {
                checked: self.wall(),
                publication: Some(loaded.id.clone()),
                not_adopted: BTreeSet::new(),
                // What was made and given away, such as a token, nobody counts.
                uses: BTreeMap::new(),
            }),
        };
        Observed {
            holding: Holding::of_names(self.current.files.keys().map(String::as_str)),
            state: Some(self.state.clone()),
            consumers: match with_reports {
                true => self.members.iter().enumerate().map(consumer).collect(),
                false => Vec::new(),
            },
            lives: BTreeMap::new(),
            links: Links::default(),
        }
    }

    pub(crate) fn decide(&self, policy: &Policy, with_reports: bool) -> Decision {
        let now = Now {
            wall: self.wall(),
            since_jump: self.jump.map(|(_, at)| self.now - at),
        };
        decide(policy, &self.observed(with_reports), now)
    }

    /// Does what was decided.
    pub(crate) fn act(&mut self, step: &Step) {
        self.change(|set| match step {
            Step::Stage => {
                let id = set.state().next_id().unwrap();
                let content = id.to_string();
                set.stage(&id, vec![("token".to_owned(), content.as_str().into())]);
            }
            Step::Promote(id) => set.promote(id),
            Step::Release(id) => set.release(id),
            Step::Retire(id) => set.remove(id),
            Step::Revoke(id) => set.revoke(id),
            other => panic!("{other:?} is not of this world"),
        });
    }

    pub(crate) fn publish(&mut self, set: Set) {
        let number = self.current.id[1..].parse::<u64>().unwrap() + 1;
        let (current, state) = published(set, number);
        let former = std::mem::replace(&mut self.current, current);
        self.former.push((former, self.now));
        self.state = state;
    }

    /// Whether a rotation is over, and everything that was made before it.
    pub(crate) fn is_settled(&self) -> bool {
        self.state.revisions.values().all(|stage| stage.phase == Phase::Primary)
    }
}

fn published(set: Set, number: u64) -> (Arc<Publication>, State) {
    let files = set.publish(format!("p{number}"));
    let state = State::read(&files[".rotation.json"]).unwrap().unwrap();
    let holding = Holding::of_names(files.keys().map(String::as_str));
    let accepted = holding.revisions.iter().filter(|(_, held)| !held.revoked);
    let accepted = accepted.map(|(id, _)| id.clone()).collect();
    let primary = holding
        .revisions
        .iter()
        .find(|(_, held)| held.marked)
        .unwrap()
        .0
        .clone();
    let publication = Publication {
        id: state.publication.clone(),
        files,
        primary,
        accepted,
    };
    (Arc::new(publication), state)
}
