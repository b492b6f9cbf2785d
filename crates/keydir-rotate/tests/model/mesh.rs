//! A CA, its anchors and the leaves that it issues, each in a directory of its own, and consumers that load the last two
//! when they like. Nobody makes a certificate: the world knows who issued what.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use keydir::{Files, RevisionId};
use keydir_rotate::{
    Consumer, Decision, Holding, Known, Now, Observed, Phase, Policy, Role, Said, Set, State, Step, decide,
    decide_anchors, links,
};

pub(crate) const CA: usize = 0;
pub(crate) const TRUST: usize = 1;
pub(crate) const LEAF: usize = 2;
const NAMES: [&str; 3] = ["/ca", "/trust", "/leaf"];
/// Begins some time after 1970, so that nothing is before it.
const BEGIN: u64 = 1_000;

/// One publication of a directory.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) number: u64,
    pub(crate) files: Files,
    pub(crate) state: State,
    /// By phase; without what is only remembered.
    pub(crate) held: BTreeMap<RevisionId, Phase>,
    /// Of leaves: who issued each.
    pub(crate) issued_by: BTreeMap<RevisionId, RevisionId>,
    /// Of the last two.
    pub(crate) content: u64,
}

impl Publication {
    fn new(set: Set, number: u64, issued_by: &BTreeMap<RevisionId, RevisionId>) -> Arc<Self> {
        let files = set.publish(format!("p{number}"));
        let state = State::read(&files[".rotation.json"]).unwrap().unwrap();
        let held = state.revisions.iter().map(|(id, stage)| (id.clone(), stage.phase));
        let held: BTreeMap<_, _> = held.filter(|(_, phase)| *phase < Phase::Gone).collect();
        let issued = issued_by.iter().filter(|(id, _)| held.contains_key(id));
        let issued_by: BTreeMap<_, _> = issued.map(|(leaf, ca)| (leaf.clone(), ca.clone())).collect();
        let mut content = DefaultHasher::new();
        (&held, &issued_by).hash(&mut content);
        Arc::new(Self {
            number,
            content: content.finish(),
            issued_by,
            files,
            state,
            held,
        })
    }

    pub(crate) fn accepted(&self) -> impl Iterator<Item = &RevisionId> {
        let accepted = self.held.iter().filter(|(_, phase)| **phase != Phase::Revoked);
        accepted.map(|(id, _)| id)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) current: Arc<Publication>,
    /// What was current before, and until when.
    pub(crate) former: Vec<(Arc<Publication>, u64)>,
}

/// What a consumer has loaded of the anchors, and of the leaves; nothing of what it has nothing to do with.
pub(crate) type Loaded = [Option<Arc<Publication>>; 2];
pub(crate) const LOADED: [usize; 2] = [TRUST, LEAF];

#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Whether it verifies, and whether it presents.
    pub(crate) does: [bool; 2],
    /// `None` while it is down.
    pub(crate) loaded: Option<Loaded>,
}

/// By the publication before (which is kept, so that nothing else is ever there), the time, the step and the issuer.
pub(crate) type Done = HashMap<(usize, u64, String, Option<RevisionId>), (Arc<Publication>, Arc<Publication>)>;

#[derive(Clone, Debug)]
pub(crate) struct Mesh {
    pub(crate) now: u64,
    pub(crate) places: [Place; 3],
    pub(crate) members: Vec<Member>,
}

impl Mesh {
    /// Everybody has loaded the first publications.
    pub(crate) fn new(members: &[[bool; 2]]) -> Self {
        let first: RevisionId = "r1".parse().unwrap();
        let issued_by = BTreeMap::from([(first.clone(), first.clone())]);
        let places = [CA, TRUST, LEAF].map(|place| {
            let mut set = Set::new(Files::new(), None, BEGIN);
            set.stage(&first, vec![("crt".to_owned(), "1".into())]);
            if place != TRUST {
                set.promote(&first);
            }
            let none = BTreeMap::new();
            Place {
                current: Publication::new(set, 0, if place == LEAF { &issued_by } else { &none }),
                former: Vec::new(),
            }
        });
        let member = |does: &[bool; 2]| Member {
            does: *does,
            loaded: Some([0, 1].map(|which| does[which].then(|| Arc::clone(&places[LOADED[which]].current)))),
        };
        Self {
            now: BEGIN,
            members: members.iter().map(member).collect(),
            places,
        }
    }

    pub(crate) fn state(&self, place: usize) -> &State {
        &self.places[place].current.state
    }

    /// What was current at some moment of the last seconds.
    pub(crate) fn within(&self, place: usize, seconds: u64) -> Vec<Arc<Publication>> {
        let place = &self.places[place];
        let former = place.former.iter().filter(|(_, until)| *until + seconds > self.now);
        let mut all: Vec<_> = former.map(|(publication, _)| Arc::clone(publication)).collect();
        all.push(Arc::clone(&place.current));
        all
    }

    /// Who shows something that somebody else does not accept; also a leaf that is only staged may be shown.
    pub(crate) fn failure(&self) -> Option<String> {
        let live = |which: usize| {
            self.members
                .iter()
                .filter_map(move |member| member.loaded.as_ref()?[which].as_ref())
        };
        live(0).find_map(|trust| {
            let accepted: BTreeSet<_> = trust.accepted().collect();
            let shown = live(1).flat_map(|leaves| {
                let shown = leaves.accepted();
                shown.filter_map(|leaf| leaves.issued_by.get(leaf).map(|ca| (leaf, ca)))
            });
            let (leaf, ca) = shown.into_iter().find(|(_, ca)| !accepted.contains(ca))?;
            Some(format!(
                "leaf {leaf} of CA {ca} is shown to one with publication {} of the anchors",
                trust.number
            ))
        })
    }

    fn known(&self, policies: &[Policy; 3], with_reports: bool) -> Vec<Known> {
        let ca = PathBuf::from(NAMES[CA]);
        let roles = [Role::Ca, Role::Trust { ca: ca.clone() }, Role::Leaf { ca }];
        let places = self.places.iter().zip(roles).zip(policies).zip([CA, TRUST, LEAF]);
        let known = places.map(|(((place, role), policy), number)| Known {
            path: NAMES[number].into(),
            role,
            policy: policy.clone(),
            observed: Some(Observed {
                holding: Holding::of_names(place.current.files.keys().map(String::as_str)),
                state: Some(place.current.state.clone()),
                consumers: match with_reports && number != CA {
                    true => self.consumers(number),
                    false => Vec::new(),
                },
                ..Observed::default()
            }),
            issued_by: place.current.issued_by.clone(),
            clashes: BTreeSet::new(),
        });
        known.collect()
    }

    fn consumers(&self, place: usize) -> Vec<Consumer> {
        let which = LOADED.iter().position(|loaded| *loaded == place).unwrap();
        let members = self.members.iter().enumerate();
        let consumer = |(number, member): (usize, &Member)| Consumer {
            name: number.to_string(),
            said: member.loaded.as_ref().map(|loaded| Said {
                checked: self.now,
                publication: loaded[which].as_ref().map(|one| one.state.publication.clone()),
                ..Said::default()
            }),
        };
        members.filter(|(_, member)| member.does[which]).map(consumer).collect()
    }

    /// What each directory needs, as the shipped code sees it.
    pub(crate) fn decisions(&self, policies: &[Policy; 3], with_reports: bool) -> Vec<Decision> {
        let now = Now {
            wall: self.now,
            since_jump: None,
        };
        let known = self.known(policies, with_reports);
        let decision = |this: &Known| {
            let observed = Observed {
                links: links(&known, this, now),
                ..this.observed.clone().unwrap()
            };
            match this.role {
                Role::Trust { .. } => decide_anchors(&this.policy, &observed, now),
                _ => decide(&this.policy, &observed, now),
            }
        };
        known.iter().map(decision).collect()
    }

    fn issuing(&self) -> Option<RevisionId> {
        let issuing = self.state(CA).in_phase(Phase::Primary).next();
        issuing.map(|(id, _)| id.clone())
    }

    fn changed(&self, place: usize, change: impl FnOnce(&mut Set)) -> Arc<Publication> {
        let before = &self.places[place].current;
        let mut set = Set::new(before.files.clone(), Some(&before.state), self.now);
        change(&mut set);
        let mut issued_by = before.issued_by.clone();
        if place == LEAF {
            let new = set
                .state()
                .revisions
                .keys()
                .filter(|id| !before.issued_by.contains_key(*id));
            let new: Vec<_> = new.cloned().collect();
            issued_by.extend(new.into_iter().filter_map(|id| Some((id, self.issuing()?))));
        }
        Publication::new(set, before.number + 1, &issued_by)
    }

    fn publish(&mut self, place: usize, next: Arc<Publication>) {
        let this = &mut self.places[place];
        let before = std::mem::replace(&mut this.current, next);
        this.former.push((before, self.now));
    }

    pub(crate) fn change(&mut self, place: usize, change: impl FnOnce(&mut Set)) {
        let next = self.changed(place, change);
        self.publish(place, next);
    }

    /// Does what was decided; what was done before in the same place is not made once more.
    pub(crate) fn act(&mut self, place: usize, step: &Step, done: &mut Done) {
        let current = &self.places[place].current;
        let key = (
            Arc::as_ptr(current) as usize,
            self.now,
            step.to_string(),
            self.issuing(),
        );
        let (_, next) = done.entry(key).or_insert_with(|| {
            let next = self.changed(place, |set| match step {
                Step::Adopt => {}
                Step::Begin | Step::Stage => {
                    let id = set.state().next_id().unwrap();
                    set.stage(&id, vec![("crt".to_owned(), id.as_str().into())]);
                    if *step == Step::Begin {
                        set.promote(&id);
                    }
                }
                Step::Trust(id) => set.stage(id, vec![("crt".to_owned(), id.as_str().into())]),
                Step::Promote(id) => set.promote(id),
                Step::Release(id) => set.release(id),
                Step::Retire(id) => set.remove(id),
                Step::Revoke(id) => set.revoke(id),
                other => panic!("{other:?} is not of this world"),
            });
            (Arc::clone(current), next)
        });
        let next = Arc::clone(next);
        self.publish(place, next);
    }

    /// Whether a rotation is over, everywhere.
    pub(crate) fn is_settled(&self) -> bool {
        let newest = |place: &Place| place.current.state.revisions.len() == 1;
        self.places.iter().all(newest) && self.state(CA).number > 1
    }
}
