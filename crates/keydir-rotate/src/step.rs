//! One step: the next files and the next state, of the current ones. Pure.

use keydir::{FileName, Files, RevisionId, Secret, uses};

use crate::holding::Holding;
use crate::state::{FILE, Phase, Stage, State};

/// The parts of a new revision, by name.
pub type Parts = Vec<(String, Secret)>;

/// A set in the making.
#[derive(Clone, Debug)]
pub struct Set {
    files: Files,
    state: State,
    now: u64,
    /// For consumers it is still the same publication.
    is_same: bool,
}

impl Set {
    /// The current one, at this time in seconds since 1970. `state` is what [`State::read`] gave.
    pub fn new(files: Files, state: Option<&State>, now: u64) -> Self {
        let holding = Holding::of_names(files.keys().map(String::as_str));
        let state = State::of(&holding, state, now);
        Self {
            files,
            state,
            now,
            is_same: false,
        }
    }

    /// What is remembered of it.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Says that something outside is made under this id.
    pub fn intend(&mut self, id: &RevisionId) {
        self.becomes(id, Phase::Intended);
    }

    /// Asks for the next rotation to begin now.
    pub fn request(&mut self) {
        self.state.requested = true;
    }

    /// Adds a revision, which is not presented yet.
    pub fn stage(&mut self, id: &RevisionId, parts: Parts) {
        self.state.requested = false;
        for (part, content) in parts {
            self.files.insert(format!("{id}.{part}"), content);
        }
        self.becomes(id, Phase::Staged);
    }

    /// Moves the mark to a revision, if it is there. What bore it before is retiring.
    pub fn promote(&mut self, id: &RevisionId) {
        let marked: Vec<String> = self.files.keys().filter(|name| is_marked(name)).cloned().collect();
        // Any file would do; the one of the part that bore the mark before is what people expect.
        let mut parts: Vec<String> = marked.iter().filter_map(|name| part_of(name)).collect();
        parts.extend(uses::ALL.iter().flat_map(keydir::Usage::parts).map(str::to_owned));
        parts.extend(
            self.files
                .keys()
                .filter(|name| is_of(name, id))
                .filter_map(|name| part_of(name)),
        );
        let names = parts.into_iter().map(|part| format!("{id}.{part}"));
        let is_there = |name: &String| {
            [name, &format!("{name}.primary")]
                .iter()
                .any(|name| self.files.contains_key(*name))
        };
        let Some(chosen) = names.into_iter().find(is_there) else {
            return;
        };
        for name in marked {
            if let (Some(unmarked), Some(content)) = (name.strip_suffix(".primary"), self.files.remove(&name)) {
                self.files.insert(unmarked.to_owned(), content);
            }
        }
        if let Some(content) = self.files.remove(&chosen) {
            self.files.insert(format!("{chosen}.primary"), content);
        }
        let before: Vec<RevisionId> = self.state.in_phase(Phase::Primary).map(|(id, _)| id.clone()).collect();
        for other in before.iter().filter(|other| *other != id) {
            self.becomes(other, Phase::Retiring);
        }
        self.becomes(id, Phase::Primary);
    }

    /// Says that what was made with a revision has been made anew.
    pub fn migrated(&mut self, id: &RevisionId) {
        if let Some(stage) = self.state.revisions.get_mut(id) {
            stage.migrated = true;
        }
    }

    /// Says that nobody presents a revision any more. For consumers nothing changes, and who has adopted the publication
    /// still has.
    pub fn release(&mut self, id: &RevisionId) {
        if let Some(stage) = self.state.revisions.get_mut(id) {
            stage.released = Some(self.now);
            self.is_same = !self.state.publication.is_empty();
        }
    }

    /// Takes a revision away, with its marker.
    pub fn remove(&mut self, id: &RevisionId) {
        self.files.retain(|name, _| !is_of(name, id));
        self.state.revisions.remove(id);
        self.settle();
    }

    /// Likewise, and says that what was made for it outside has to go yet.
    pub fn leave(&mut self, id: &RevisionId) {
        self.files.retain(|name, _| !is_of(name, id));
        self.becomes(id, Phase::Gone);
        self.settle();
    }

    fn settle(&mut self) {
        let is_over = |stage: &Stage| matches!(stage.phase, Phase::Primary | Phase::Gone);
        if self.state.revisions.values().all(is_over) {
            self.state.settled = self.now;
        }
    }

    /// Has a revision refused. One of which only the intent is there goes.
    pub fn revoke(&mut self, id: &RevisionId) {
        if self.state.is_intended(id) {
            return self.leave(id);
        }
        self.files.insert(format!("{id}.revoked"), Secret::new(Vec::new()));
        self.becomes(id, Phase::Revoked);
    }

    /// Remembers that somebody else may have a revision, which has to go by this time.
    pub fn compromise(&mut self, id: &RevisionId, by: u64) {
        if let Some(stage) = self.state.revisions.get_mut(id) {
            stage.compromised = Some(stage.compromised.map_or(by, |before| before.min(by)));
        }
    }

    /// Remembers that a revision of a CA has issued a leaf, until this time, that lies in no directory.
    pub fn issued(&mut self, id: &RevisionId, until: u64) {
        if let Some(stage) = self.state.revisions.get_mut(id) {
            stage.last_leaf = Some(stage.last_leaf.map_or(until, |before| before.max(until)));
        }
    }

    /// Lets nothing move by itself, or lets it move again.
    pub fn pause(&mut self, reason: Option<String>) {
        self.state.paused = reason;
    }

    /// The files to publish, under this id of a publication, if it is another one.
    pub fn publish(mut self, publication: String) -> Files {
        if !self.is_same {
            self.state.publication = publication;
            self.state.published = self.now;
        }
        let state = self.state.write_over(self.files.get(FILE));
        self.files.insert(FILE.to_owned(), state);
        self.files
    }

    fn becomes(&mut self, id: &RevisionId, phase: Phase) {
        let before = self.state.revisions.get(id);
        if before.is_some_and(|stage| stage.phase == phase) {
            return;
        }
        let stage = Stage::moved(before, phase, self.now);
        self.state.revisions.insert(id.clone(), stage);
        self.state.number = self.state.number.max(crate::state::number(id));
    }
}

fn is_marked(name: &str) -> bool {
    matches!(FileName::parse(name.as_bytes()), FileName::File { primary: true, .. })
}

fn part_of(name: &str) -> Option<String> {
    match FileName::parse(name.as_bytes()) {
        FileName::File { part, .. } => Some(part.to_string()),
        _ => None,
    }
}

fn is_of(name: &str, id: &RevisionId) -> bool {
    matches!(
        FileName::parse(name.as_bytes()),
        FileName::File { id: of, .. } | FileName::Marker { id: of } if of == *id
    )
}
