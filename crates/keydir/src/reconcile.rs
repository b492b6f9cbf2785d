//! The laws as a pure function: what is in force after a publication, a fault, or some time (convention, sections 2
//! and 3).
//!
//! It knows neither files nor threads nor clocks. [`crate::live`] turns its outcome into keys.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use crate::graves::Graves;
use crate::name::RevisionId;
use crate::offers::{Made, Offer, Offers};
use crate::problem::Problem;
use crate::secret::Fingerprint;
use crate::standing::{Hold, NoPrimary};
use crate::view::{Piece, Usage};

/// What one use holds after a check.
#[derive(Debug)]
pub(crate) struct State<T> {
    /// Everything usable or held, in natural order. Revoked revisions are not in here.
    pub(crate) in_force: BTreeMap<RevisionId, InForce<T>>,
    /// The last good primary: an id, whatever its content.
    pub(crate) last_primary: Option<RevisionId>,
    /// The last good primary's content, if that was revoked and the use goes on presenting it.
    pub(crate) kept: Option<InForce<T>>,
    mark_seen: bool,
    graves: Graves,
    /// What the last publication brought back or replaced: said as long as it is the current one.
    notices: Vec<Event>,
    /// Of the last publication that could be read.
    pub(crate) offers: Offers<T>,
    next_derivation: u64,
}

/// A revision in force.
#[derive(Debug)]
pub(crate) struct InForce<T> {
    pub(crate) made: Arc<Made<T>>,
    /// Names what was derived from this content in this time in force: it changes when the content is replaced, and
    /// when the id was revoked in between.
    pub(crate) derivation: u64,
    pub(crate) hold: Option<Hold>,
    /// Former contents whose CRLs go on, since certificates of theirs stand here and no CRL part came with them.
    pub(crate) crls: Vec<Arc<Made<T>>>,
}

/// What a check changed for a use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Revoked(RevisionId, Why),
    Returned(RevisionId),
    Reused(RevisionId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Marker,
    Absence,
}

/// The result of one check.
#[derive(Debug)]
pub(crate) struct Outcome<T> {
    pub(crate) state: State<T>,
    pub(crate) presented: Presented,
    /// Why the designated primary is not what is presented, if it is not.
    pub(crate) no_primary: Option<NoPrimary>,
    pub(crate) events: Vec<Event>,
    pub(crate) problems: Vec<Problem>,
    /// When time alone changes something next.
    pub(crate) next: Option<SystemTime>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Presented {
    Nothing,
    /// One that is in force.
    InForce(RevisionId),
    /// The one in [`State::kept`].
    Kept,
}

impl<T> Default for State<T> {
    fn default() -> Self {
        Self {
            in_force: BTreeMap::new(),
            last_primary: None,
            kept: None,
            mark_seen: false,
            graves: Graves::default(),
            notices: Vec::new(),
            offers: Offers::new(),
            next_derivation: 0,
        }
    }
}

impl<T> Made<T> {
    /// Without dates of its own, for ever.
    pub(crate) fn is_valid_at(&self, now: SystemTime) -> bool {
        self.pieces.is_empty() || self.pieces.iter().any(|piece| piece.is_valid_at(now))
    }

    pub(crate) fn is_pending_at(&self, now: SystemTime) -> bool {
        !self.is_valid_at(now) && self.pieces.iter().any(|piece| !piece.has_begun_at(now))
    }

    pub(crate) fn is_expired_at(&self, now: SystemTime) -> bool {
        !self.is_valid_at(now) && !self.is_pending_at(now)
    }
}

/// What a check is made of.
#[derive(Debug)]
pub(crate) enum Input<T> {
    /// A publication that was not seen before.
    New(Offers<T>),
    /// The last one again: read again, or judged again because time has passed.
    Again(Offers<T>),
    /// The directory cannot be read.
    Unreadable,
}

/// One check.
pub(crate) fn reconcile<T>(usage: &Usage, last: State<T>, input: Input<T>, now: SystemTime) -> Outcome<T> {
    let mut check = Check {
        usage,
        now,
        state: last,
        events: Vec::new(),
        problems: Vec::new(),
    };
    match input {
        Input::New(offers) => {
            check.state.notices.clear();
            check.read(offers);
        }
        Input::Again(offers) => check.read(offers),
        Input::Unreadable => {
            for entry in check.state.in_force.values_mut() {
                entry.hold = Some(Hold::Unreadable);
            }
        }
    }
    if usage.accepts {
        check.let_go_of_ended_anchors();
    }
    let (presented, reason) = check.present();
    check.find_problems(reason.as_ref());
    let no_primary = match (presented == Presented::Nothing, &check.state.last_primary) {
        (true, Some(id)) => Some(NoPrimary::Revoked { id: id.clone() }),
        _ => reason,
    };
    Outcome {
        next: check.next(),
        state: check.state,
        presented,
        no_primary,
        events: check.events,
        problems: check.problems,
    }
}

struct Check<'a, T> {
    usage: &'a Usage,
    now: SystemTime,
    state: State<T>,
    events: Vec<Event>,
    problems: Vec<Problem>,
}

impl<T> Check<'_, T> {
    /// Rules 1, 3, 4(b), 4(c) and 9: brings what is in force in line with what was read.
    fn read(&mut self, offers: Offers<T>) {
        self.state.mark_seen |= offers.values().any(|offer| offer.marked && offer.candidate);
        let last_crls = self.with_crls();
        let mut fresh = Vec::new();
        for (id, offer) in &offers {
            if offer.revoked {
                self.bury(id, offer);
                self.revoke(id, Why::Marker);
            } else if let (true, Ok(made)) = (offer.candidate, &offer.made) {
                fresh.extend(self.admit(id, made));
            } else if let Some(entry) = self.state.in_force.get_mut(id).filter(|_| offer.named) {
                let reason = offer.made.as_ref().err().map(ToString::to_string);
                entry.hold = Some(Hold::Unusable(reason.unwrap_or_default()));
            }
        }
        // All at once, since they are in order.
        self.state.in_force.append(&mut fresh.into_iter().collect());
        self.judge_absent(&offers);
        self.keep_crls(&last_crls);
        // A mark on a held revision is a mark on a candidate.
        self.state.mark_seen |= offers
            .iter()
            .any(|(id, offer)| offer.marked && self.state.in_force.contains_key(id));
        self.state.offers = offers;
    }

    /// What comes into force; what is in force already is brought in line.
    fn admit(&mut self, id: &RevisionId, made: &Arc<Made<T>>) -> Option<(RevisionId, InForce<T>)> {
        match self.state.in_force.get_mut(id) {
            Some(entry) if entry.made.content == made.content => {
                // Parsed anew after a fault, it is the same all the same; with another CRL it is not.
                if entry.made.whole != made.whole {
                    entry.made = Arc::clone(made);
                }
                entry.hold = None;
            }
            Some(entry) => match may_replace(&entry.made, made, self.now) {
                Ok(()) => {
                    *entry = InForce {
                        made: Arc::clone(made),
                        derivation: self.state.next_derivation,
                        hold: None,
                        crls: Vec::new(),
                    };
                    self.state.next_derivation += 1;
                    self.events.push(Event::Reused(id.clone()));
                    self.state.notices.push(Event::Reused(id.clone()));
                }
                Err(reason) => entry.hold = Some(Hold::Replacement(reason.to_owned())),
            },
            None => {
                let kept = self
                    .state
                    .kept
                    .take_if(|kept| self.state.last_primary.as_ref() == Some(id) && kept.made.content == made.content);
                let entry = InForce {
                    made: Arc::clone(made),
                    derivation: kept.map_or(self.state.next_derivation, |kept| kept.derivation),
                    hold: None,
                    crls: Vec::new(),
                };
                self.state.next_derivation += 1;
                if self.state.graves.forget(id) {
                    self.events.push(Event::Returned(id.clone()));
                    self.state.notices.push(Event::Returned(id.clone()));
                }
                return Some((id.clone(), entry));
            }
        }
        None
    }

    /// Rule 3 by absence, or rule 4(c): the one or the other for all that are gone, since both ask the same question.
    fn judge_absent(&mut self, offers: &Offers<T>) {
        let mut named = offers.iter().filter(|(_, offer)| offer.named).peekable();
        let mut something_counts = false;
        let mut absent = Vec::new();
        // Both in natural order, so that none has to be looked up.
        for (id, entry) in &self.state.in_force {
            while named.next_if(|(named, _)| *named < id).is_some() {}
            match named.next_if(|(named, _)| *named == id) {
                Some(_) => something_counts |= entry.made.is_valid_at(self.now),
                None => absent.push(id.clone()),
            }
        }
        for id in absent {
            if something_counts {
                self.revoke(&id, Why::Absence);
            } else if let Some(entry) = self.state.in_force.get_mut(&id) {
                entry.hold = Some(Hold::Gone);
            }
        }
    }

    /// What has a CRL, or goes on with that of a former content.
    fn with_crls(&self) -> Vec<Arc<Made<T>>> {
        let entries = self.state.in_force.values();
        entries
            .flat_map(|entry| entry.crls.iter().chain(Some(&entry.made).filter(|made| made.has_crl())))
            .cloned()
            .collect()
    }

    /// Rule 4: while the `crl` part is gone, the certificates that stay keep what they had last, under whatever id.
    fn keep_crls(&mut self, last: &[Arc<Made<T>>]) {
        if last.is_empty() {
            return;
        }
        let in_force = self.state.in_force.values().filter(|entry| entry.made.has_crl());
        let come_with_one: HashSet<Fingerprint> = in_force.flat_map(|entry| entry.made.certificates()).collect();
        for entry in self.state.in_force.values_mut() {
            entry.crls.clear();
            if entry.made.has_crl() {
                continue;
            }
            let stay: HashSet<_> = entry.made.certificates().collect();
            let stay: HashSet<_> = stay.difference(&come_with_one).copied().collect();
            for made in last {
                let known = entry.crls.iter().any(|known| Arc::ptr_eq(known, made));
                if !known && made.certificates().any(|certificate| stay.contains(&certificate)) {
                    entry.crls.push(Arc::clone(made));
                }
            }
        }
    }

    /// An anchor outside its validity is left out, never held.
    fn let_go_of_ended_anchors(&mut self) {
        for entry in self.state.in_force.values_mut() {
            if entry.made.is_expired_at(self.now) {
                entry.hold = None;
            }
        }
    }

    fn revoke(&mut self, id: &RevisionId, why: Why) {
        let Some(mut entry) = self.state.in_force.remove(id) else {
            return;
        };
        self.state.graves.add(id, contents(self.usage, &entry.made));
        if self.usage.presents && !self.usage.stops && self.state.last_primary.as_ref() == Some(id) {
            entry.derivation = self.state.next_derivation;
            entry.hold = None;
            self.state.next_derivation += 1;
            self.state.kept = Some(entry);
        }
        self.events.push(Event::Revoked(id.clone(), why));
    }

    /// Remembers what a marker revokes, whether it was ever in force or not.
    fn bury(&mut self, id: &RevisionId, offer: &Offer<T>) {
        let made = offer.made.iter().flat_map(|made| contents(self.usage, made));
        self.state.graves.add(id, made.chain(offer.content));
    }

    /// Rule 5 and rule 6, and section 2's choice of the primary.
    fn present(&mut self) -> (Presented, Option<NoPrimary>) {
        if !self.usage.presents {
            return (Presented::Nothing, Some(NoPrimary::AcceptOnly));
        }
        let reason = match self.designated() {
            Ok(id) => match self.refuse(&id) {
                None => {
                    self.state.last_primary = Some(id.clone());
                    self.state.kept = None;
                    return (Presented::InForce(id), None);
                }
                Some(reason) => reason,
            },
            Err(reason) => reason,
        };
        match &self.state.last_primary {
            Some(id) if self.can_be_presented(id) => {
                self.state.kept = None;
                (Presented::InForce(id.clone()), Some(reason))
            }
            Some(_) if self.state.kept.is_some() => (Presented::Kept, Some(reason)),
            Some(_) => (Presented::Nothing, Some(reason)),
            None => {
                let first = match &reason {
                    NoPrimary::Ambiguous { ids } => ids.iter().find(|id| self.can_be_presented(id)),
                    _ => None,
                };
                match first {
                    Some(id) => {
                        self.state.last_primary = Some(id.clone());
                        (Presented::InForce(id.clone()), Some(reason))
                    }
                    None => (Presented::Nothing, Some(reason)),
                }
            }
        }
    }

    fn can_be_presented(&self, id: &RevisionId) -> bool {
        let entry = self.state.in_force.get(id);
        entry.is_some_and(|entry| !entry.made.is_pending_at(self.now))
    }

    /// The primary by the marks of the last publication that could be read.
    fn designated(&self) -> Result<RevisionId, NoPrimary> {
        let State { in_force, offers, .. } = &self.state;
        let offered = offers
            .iter()
            .filter(|(id, offer)| !offer.revoked && (offer.candidate || in_force.contains_key(*id)));
        let marked: Vec<RevisionId> = offered
            .clone()
            .filter(|(_, offer)| offer.marked)
            .map(|(id, _)| id.clone())
            .collect();
        match marked.as_slice() {
            [id] => return Ok(id.clone()),
            [] => {}
            _ => return Err(NoPrimary::Ambiguous { ids: marked.into() }),
        }
        let mut candidates: Vec<&RevisionId> = offered.map(|(id, _)| id).chain(in_force.keys()).collect();
        candidates.sort();
        candidates.dedup();
        match candidates.as_slice() {
            [] => Err(NoPrimary::Missing),
            [only] if !self.state.mark_seen => Ok((*only).clone()),
            _ => Err(NoPrimary::Unmarked),
        }
    }

    /// Why the designated primary is not to be presented; `None` if it is.
    fn refuse(&self, id: &RevisionId) -> Option<NoPrimary> {
        let id = id.clone();
        let Some(entry) = self.state.in_force.get(&id) else {
            let unusable = self.state.offers.get(&id).and_then(|offer| offer.made.as_ref().err());
            let reason = unusable.map(ToString::to_string).unwrap_or_default().into();
            return Some(NoPrimary::Unusable { id, reason });
        };
        if entry.made.is_pending_at(self.now) {
            return Some(NoPrimary::Pending { id });
        }
        let last = self.state.last_primary.as_ref().filter(|last| **last != id);
        let last = last.and_then(|last| self.state.in_force.get(last).or(self.state.kept.as_ref()));
        let last_runs = last.is_some_and(|last| last.made.is_valid_at(self.now));
        (entry.made.is_expired_at(self.now) && last_runs).then_some(NoPrimary::Expired { id })
    }

    fn find_problems(&mut self, no_primary: Option<&NoPrimary>) {
        let mut problems = Vec::new();
        for (id, offer) in self.state.offers.iter().filter(|(_, offer)| !offer.revoked) {
            if let (true, Err(unusable)) = (
                offer.candidate || self.state.in_force.contains_key(id) && offer.named,
                &offer.made,
            ) {
                problems.push(Problem::new("unusable", id.as_str(), unusable.to_string()).because(unusable.code));
            }
        }
        for (id, entry) in &self.state.in_force {
            let offered = || self.state.offers.get(id).and_then(|offer| offer.made.as_ref().ok());
            let made = match &entry.hold {
                Some(Hold::Replacement(_)) => offered().unwrap_or(&entry.made),
                _ => &entry.made,
            };
            if made.is_pending_at(self.now) {
                problems.push(Problem::new("pending", id.as_str(), "its validity has not begun"));
            } else if made.is_expired_at(self.now) {
                problems.push(Problem::new("expired", id.as_str(), "its validity has ended"));
            }
            if !entry.crls.is_empty() {
                let message = "its part crl is gone: certificates that stay keep the last one";
                problems.push(Problem::new("crl-gone", id.as_str(), message));
            }
        }
        self.find_copies(&mut problems);
        for event in &self.state.notices {
            match event {
                Event::Returned(id) => problems.push(Problem::new(
                    "returned",
                    id.as_str(),
                    "it had been revoked, and is in use again",
                )),
                Event::Reused(id) => problems.push(Problem::new(
                    "reused-id",
                    id.as_str(),
                    "other content has taken its place",
                )),
                Event::Revoked(..) => {}
            }
        }
        if let Some(reason @ (NoPrimary::Ambiguous { .. } | NoPrimary::Unmarked | NoPrimary::Missing)) = no_primary {
            problems.push(Problem::new(reason.code(), self.usage.name, reason.to_string()));
        }
        problems.sort();
        problems.dedup();
        self.problems = problems;
    }

    /// Two candidates with the same content, and candidates with the content of something revoked.
    fn find_copies(&self, problems: &mut Vec<Problem>) {
        let mut by_content = Vec::with_capacity(self.state.offers.len());
        for (id, offer) in self.state.offers.iter().filter(|(_, offer)| !offer.revoked) {
            let in_force = || self.state.in_force.get(id);
            if !offer.candidate && in_force().is_none() {
                continue;
            }
            let made = offer.made.as_ref().ok().or_else(|| in_force().map(|entry| &entry.made));
            let contents = made
                .into_iter()
                .flat_map(|made| contents(self.usage, made))
                .chain(offer.content);
            for content in contents {
                if self.state.graves.hold_copy_of(id, content) {
                    problems.push(Problem::new(
                        "duplicate-revoked",
                        id.as_str(),
                        "it has the content of a revision that was revoked",
                    ));
                }
                by_content.push((content, id.as_str()));
            }
        }
        // Stable, so that of one content the ids stay in natural order.
        by_content.sort_by_key(|(content, _)| *content);
        by_content.dedup();
        for same in by_content
            .chunk_by(|(a, _), (b, _)| a == b)
            .filter(|same| same.len() > 1)
        {
            // Not all of them in the message of each: of ten thousand copies that would fill the memory.
            let shown: Vec<_> = same.iter().take(5).map(|(_, id)| *id).collect();
            let more = match same.len() - shown.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let message = format!("the same content stands under {}{more}", shown.join(", "));
            problems.extend(
                same.iter()
                    .map(|(_, id)| Problem::new("duplicate", *id, message.clone())),
            );
        }
    }

    /// The next moment at which a piece begins or ends, or the view wants to look again.
    fn next(&self) -> Option<SystemTime> {
        let offered = self.state.offers.values().filter_map(|offer| offer.made.as_ref().ok());
        let in_force = self
            .state
            .in_force
            .values()
            .chain(&self.state.kept)
            .flat_map(|entry| std::iter::once(&entry.made).chain(&entry.crls));
        offered
            .chain(in_force)
            .flat_map(|made| {
                let pieces = made.pieces.iter();
                let of_pieces = pieces.flat_map(|piece| [Some(piece.not_before), piece.ends_at()]);
                of_pieces.flatten().chain(made.moments.iter().copied())
            })
            .filter(|moment| *moment > self.now)
            .min()
    }
}

/// What two revisions must not have in common without somebody hearing of it: the content; of anchors, any certificate.
fn contents<'a, T>(usage: &Usage, made: &'a Made<T>) -> impl Iterator<Item = Fingerprint> + use<'a, T> {
    let pieces = if usage.accepts { made.pieces.as_slice() } else { &[] };
    pieces.iter().map(|piece| piece.fingerprint).chain([made.content])
}

/// Whether new content under an id may take the place of the old (convention, section 2).
fn may_replace<T>(old: &Made<T>, new: &Made<T>, now: SystemTime) -> Result<(), &'static str> {
    let old_runs = old.is_valid_at(now);
    let fits = |piece: &Piece| piece.has_begun_at(now) && !(old_runs && piece.has_ended_at(now));
    if new.pieces.is_empty() || new.pieces.iter().any(fits) {
        Ok(())
    } else if new.is_pending_at(now) {
        Err("the validity of its new content has not begun")
    } else {
        Err("its new content has expired, and the old has not")
    }
}

#[cfg(test)]
mod tests;
