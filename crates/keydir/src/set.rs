//! One use of a directory: from what a check found to the next key set, in one swap, and what hangs on the swap.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use event_listener::Event;

use crate::error::StartError;
use crate::expiry;
use crate::key::{Census, Key};
use crate::keyset::{KeySet, KeyState};
use crate::name::RevisionId;
use crate::offers::{Made, offers};
use crate::problem::{Problem, Severity};
use crate::reconcile::{self, InForce, Input, Outcome, Presented, State, Why};
use crate::report::{self, RevisionReport, SetReport};
use crate::signal::Signal;
use crate::slot::{Check, Found, Slot};
use crate::standing::NoPrimary;
use crate::view::{Broken, Candidates, Piece, View};

type Keys<V> = HashMap<u64, Arc<Key<<V as View>::Item>>>;

pub(crate) struct Set<V: View> {
    view: V,
    current: Arc<ArcSwap<KeySet<V>>>,
    changed: Event,
    /// Locked for the whole of a check, which may hang in a view: nobody else waits for it.
    inner: Mutex<Inner<V>>,
    /// Why nothing is served yet, until something is.
    start: Mutex<Result<(), StartError>>,
    /// Of keys that may still be used, in the set or not any more.
    census: Mutex<Vec<(RevisionId, Weak<Census>)>>,
    revocations: AtomicU64,
    allow_empty: bool,
}

struct Inner<V: View> {
    state: State<V::Item>,
    keys: Keys<V>,
    empty: Arc<V::Whole>,
}

impl<V: View> Set<V> {
    /// An empty set. `Err` if the view cannot even combine nothing.
    pub(crate) fn new(view: V, allow_empty: bool, now: SystemTime) -> Result<Self, Broken> {
        let empty = Arc::new(combine(&view, &[], &[], now)?);
        let set = KeySet {
            keys: Vec::new(),
            states: Vec::new(),
            by_id: HashMap::new(),
            primary: Err(NoPrimary::Missing),
            no_primary: Some(NoPrimary::Missing),
            whole: Arc::clone(&empty),
            generation: 0,
            publication: None,
            problems: Vec::new(),
            as_of: now,
            next: None,
            warns: None,
        };
        let inner = Inner {
            state: State::default(),
            keys: HashMap::new(),
            empty,
        };
        Ok(Self {
            view,
            current: Arc::new(ArcSwap::from_pointee(set)),
            changed: Event::new(),
            inner: Mutex::new(inner),
            start: Mutex::new(Err(StartError::Unreadable)),
            census: Mutex::default(),
            revocations: AtomicU64::new(0),
            allow_empty,
        })
    }

    /// Whether there is something to serve; if not, why.
    pub(crate) fn started(&self) -> Result<(), StartError> {
        lock(&self.start).clone()
    }

    pub(crate) fn view(&self) -> &V {
        &self.view
    }

    pub(crate) fn current(&self) -> &Arc<ArcSwap<KeySet<V>>> {
        &self.current
    }

    pub(crate) fn changed(&self) -> &Event {
        &self.changed
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The keys of before that are revoked: nothing of now goes on with what rests on them.
fn gone<'a, V: View>(old: &'a Keys<V>, inner: &Inner<V>) -> impl Iterator<Item = &'a Arc<Key<V::Item>>> {
    let heirs: HashSet<_> = inner.keys.values().map(|key| Arc::as_ptr(&key.revoked)).collect();
    old.values()
        .filter(move |key| !heirs.contains(&Arc::as_ptr(&key.revoked)))
}

impl<V: View> Slot for Set<V> {
    fn knows(&self, part: &str) -> bool {
        self.view.usage().parts().any(|known| known == part)
    }

    fn is_private(&self, part: &str) -> bool {
        self.view.usage().private.contains(&part)
    }

    fn is_due(&self, now: SystemTime) -> bool {
        let set = self.current.load();
        set.is_due(now) || set.warns.is_some_and(|warns| warns <= now)
    }

    fn next(&self) -> Option<SystemTime> {
        let set = self.current.load();
        set.next.into_iter().chain(set.warns).min()
    }

    fn check(&self, check: &Check<'_>) {
        let inner = &mut *lock(&self.inner);
        let started = self.started().is_ok();
        let last_set = self.current.load_full();
        let (input, generation, id) = match check.found {
            Found::Publication {
                publication,
                generation,
                same,
            } => {
                let offers = offers(&self.view, publication, &inner.state.offers);
                let input = if same { Input::Again(offers) } else { Input::New(offers) };
                (input, generation, publication.id.as_deref().map(Arc::from))
            }
            Found::Unchanged => {
                if !started {
                    return;
                }
                let offers = std::mem::take(&mut inner.state.offers);
                (Input::Again(offers), last_set.generation, last_set.publication.clone())
            }
            Found::Fault => (Input::Unreadable, last_set.generation, last_set.publication.clone()),
        };
        let readable = !matches!(input, Input::Unreadable);
        let state = std::mem::take(&mut inner.state);
        let outcome = reconcile::reconcile(self.view.usage(), state, input, check.now);
        if !started && !self.allow_empty {
            let start = if readable {
                self.may_start(&outcome, check.now)
            } else {
                Err(StartError::Unreadable)
            };
            if start.is_err() {
                *lock(&self.start) = start;
                return;
            }
        }
        self.swap(inner, &last_set, outcome, generation, id, check);
        *lock(&self.start) = Ok(());
    }

    fn report(&self) -> SetReport {
        let set = self.current.load();
        let mut revisions: BTreeMap<RevisionId, RevisionReport> = BTreeMap::new();
        for (key, state) in set.keys.iter().zip(&set.states) {
            revisions.insert(key.id().clone(), RevisionReport::new(state, key.pieces()));
        }
        if let Some(key) = set.primary().ok().filter(|key| set.state(key).is_none()) {
            revisions.insert(key.id().clone(), RevisionReport::kept(key.pieces()));
        }
        for (id, census) in &*lock(&self.census) {
            if let Some(census) = census.upgrade() {
                let revision = revisions.entry(id.clone()).or_default();
                revision.uses += census.uses();
                revision.last_use = revision.last_use.max(census.last_use());
            }
        }
        revisions.retain(|_, revision| revision.in_force || revision.primary || revision.uses > 0);
        SetReport {
            usage: self.view.usage().name,
            generation: set.generation,
            publication: set.publication.as_deref().map(str::to_owned),
            adopted: set.is_adopted(),
            primary: set.primary().ok().map(|key| key.id().clone()),
            no_primary: set.no_primary.clone().filter(|reason| *reason != NoPrimary::AcceptOnly),
            revocations: self.revocations.load(Ordering::Relaxed),
            revisions,
            problems: set.problems.clone(),
        }
    }
}

impl<V: View> Set<V> {
    /// Rule 6: what must be there before anything is served.
    fn may_start(&self, outcome: &Outcome<V::Item>, now: SystemTime) -> Result<(), StartError> {
        let usage = self.view.usage();
        if usage.presents && outcome.presented == Presented::Nothing {
            let reason = outcome.no_primary.clone().unwrap_or(NoPrimary::Missing);
            return Err(StartError::NothingToPresent(reason, outcome.problems.clone()));
        }
        let accepts = |entry: &InForce<V::Item>| entry.made.is_valid_at(now);
        if usage.accepts && !outcome.state.in_force.values().any(accepts) {
            return Err(StartError::NothingToAccept(outcome.problems.clone()));
        }
        Ok(())
    }

    /// Makes the next key set, swaps it in, and only then tells whom it concerns.
    fn swap(
        &self,
        inner: &mut Inner<V>,
        last: &KeySet<V>,
        outcome: Outcome<V::Item>,
        generation: u64,
        publication: Option<Arc<str>>,
        check: &Check<'_>,
    ) {
        let Outcome {
            state,
            presented,
            no_primary,
            events,
            mut problems,
            mut next,
        } = outcome;
        let revoked = events
            .iter()
            .filter(|event| matches!(event, reconcile::Event::Revoked(..)));
        self.revocations.fetch_add(revoked.count() as u64, Ordering::Relaxed);
        let kept = state.kept.as_ref().filter(|_| presented == Presented::Kept);
        let primary = match &presented {
            Presented::Nothing => None,
            Presented::InForce(id) => state.in_force.get(id),
            Presented::Kept => kept,
        };
        let primary = primary.map(|entry| entry.derivation);
        let mut keys = Keys::<V>::with_capacity(state.in_force.len() + 1);
        for (id, entry) in state.in_force.iter().chain(state.last_primary.as_ref().zip(kept)) {
            let is_primary = primary == Some(entry.derivation);
            // What is kept is another key than the one that was revoked.
            let before = last.get(id.as_str()).filter(|_| state.in_force.contains_key(id));
            keys.insert(entry.derivation, self.key(id, entry, is_primary, &inner.keys, before));
        }
        let mut in_force: Vec<_> = state.in_force.iter().collect();
        let whole = match self.combine(&in_force, last, check.now) {
            Ok(whole) => whole,
            Err(broken) => {
                problems.push(Problem::new("not-combined", self.view.usage().name, broken.to_string()));
                next = None;
                let stood: HashSet<u64> = last.keys.iter().map(|key| key.derivation).collect();
                in_force.retain(|(_, entry)| stood.contains(&entry.derivation));
                self.combine(&in_force, last, check.now).unwrap_or_else(|_| {
                    in_force.clear();
                    Arc::clone(&inner.empty)
                })
            }
        };
        let states = in_force
            .iter()
            .map(|(_, entry)| KeyState {
                primary: primary == Some(entry.derivation),
                held: entry.hold.clone(),
                pending: entry.made.is_pending_at(check.now),
                expired: entry.made.is_expired_at(check.now),
            })
            .collect();
        let mut set = KeySet {
            by_id: in_force
                .iter()
                .enumerate()
                .map(|(i, (id, _))| (Arc::clone(id.text()), i))
                .collect(),
            keys: in_force
                .iter()
                .filter_map(|(_, entry)| keys.get(&entry.derivation).cloned())
                .collect(),
            states,
            primary: match primary.and_then(|derivation| keys.get(&derivation)) {
                Some(key) => Ok(Arc::clone(key)),
                None => Err(no_primary.clone().unwrap_or(NoPrimary::Missing)),
            },
            no_primary,
            whole,
            generation,
            publication,
            problems,
            as_of: check.now,
            next,
            warns: None,
        };
        set.warns = expiry::next(&set, &self.view);
        warn_of_expiry(check, self.view.usage().name, &expiry::due(&set, last, &self.view));
        inner.state = state;
        let old_keys = std::mem::replace(&mut inner.keys, keys);
        if set.looks_like(last) {
            // Nobody can tell, but the next moment may be another.
            if set.next != last.next || set.warns != last.warns || set.as_of < last.as_of {
                set.whole = Arc::clone(&last.whole);
                self.current.store(Arc::new(set));
            }
            return;
        }
        let set = Arc::new(set);
        // Nobody who sees the new set may still be told that a key stands which it has revoked.
        for key in gone(&old_keys, inner) {
            key.revoked.raise_for_askers();
        }
        self.current.store(Arc::clone(&set));
        self.tell(inner, &old_keys, last, primary);
        self.changed.notify(usize::MAX);
        log(check, self.view.usage().name, last, &set, &events);
    }

    /// The key of an entry: the one it had, if its content is the same.
    fn key(
        &self,
        id: &RevisionId,
        entry: &InForce<V::Item>,
        is_primary: bool,
        known: &Keys<V>,
        before: Option<&Arc<Key<V::Item>>>,
    ) -> Arc<Key<V::Item>> {
        let made = &entry.made;
        let fresh = |revoked| Arc::new(Key::new(id.clone(), made, entry.derivation, revoked));
        match known.get(&entry.derivation) {
            Some(key) if Arc::ptr_eq(key.item(), &made.item) && !(is_primary && key.is_superseded()) => Arc::clone(key),
            // The same content with another CRL, or marked once more: what rests on it goes on.
            Some(key) => fresh(Arc::clone(&key.revoked)),
            // Other content under the id of one that stood: what is presented is retiring, and revoked with the id; of
            // what is accepted nothing is revoked if it lacks nothing of the old.
            None => match before {
                Some(old) if old.stands() && (!self.view.usage().accepts || lacks_nothing(old, made)) => {
                    fresh(Arc::clone(&old.revoked))
                }
                _ => fresh(Arc::new(Signal::default())),
            },
        }
    }

    /// Raises the signals of what ended, after the swap.
    fn tell(&self, inner: &Inner<V>, old: &Keys<V>, last: &KeySet<V>, primary: Option<u64>) {
        let was_primary = last
            .primary()
            .ok()
            .map(|key| key.derivation)
            .filter(|was| primary != Some(*was));
        for key in gone(old, inner) {
            key.revoked.raise();
        }
        for (derivation, key) in old {
            let now = inner.keys.get(derivation);
            if was_primary == Some(*derivation) || now.is_none_or(|now| !Arc::ptr_eq(now, key)) {
                key.superseded.raise();
            }
        }
        let mut census = lock(&self.census);
        for (derivation, key) in &inner.keys {
            if !old.get(derivation).is_some_and(|old| Arc::ptr_eq(old, key)) {
                census.push((key.id().clone(), Arc::downgrade(&key.census)));
            }
        }
        census.retain(|(_, census)| census.strong_count() > 0);
    }

    /// What is derived from all; the last one, if nothing that went into it has changed.
    fn combine(
        &self,
        in_force: &[(&RevisionId, &InForce<V::Item>)],
        last: &KeySet<V>,
        now: SystemTime,
    ) -> Result<Arc<V::Whole>, Broken> {
        let items = in_force.iter().map(|(_, entry)| Arc::as_ptr(&entry.made.item));
        let last_items = last.keys.iter().map(|key| Arc::as_ptr(key.item()));
        if !last.is_due(now) && last.generation > 0 && items.eq(last_items) {
            return Ok(Arc::clone(&last.whole));
        }
        let keys: Vec<_> = in_force.iter().map(|(id, entry)| (*id, &entry.made.item)).collect();
        let crls = in_force
            .iter()
            .flat_map(|(id, entry)| entry.crls.iter().map(|made| (*id, &made.item)));
        combine(&self.view, &keys, &crls.collect::<Vec<_>>(), now).map(Arc::new)
    }
}

/// Whether every certificate of the old content stands in the new.
fn lacks_nothing<T>(old: &Key<T>, new: &Made<T>) -> bool {
    let has = |fingerprint| new.pieces.iter().any(|piece| piece.fingerprint == fingerprint);
    !old.pieces().is_empty() && old.pieces().iter().all(|piece| has(piece.fingerprint))
}

type Items<'a, V> = [(&'a RevisionId, &'a Arc<<V as View>::Item>)];

fn combine<V: View>(view: &V, keys: &Items<'_, V>, crls: &Items<'_, V>, now: SystemTime) -> Result<V::Whole, Broken> {
    catch_unwind(AssertUnwindSafe(|| view.combine(&Candidates::new(keys, crls, now))))
        .unwrap_or_else(|_| Err(Broken::new("the view of this use panicked; please report this")))
}

fn warn_of_expiry<T>(check: &Check<'_>, usage: &str, due: &[(&Arc<Key<T>>, &Piece)]) {
    for (key, piece) in due {
        let left = piece.not_after.duration_since(check.now).unwrap_or_default();
        tracing::warn!(
            directory = check.directory,
            usage,
            revision = %key.id(),
            not_after = report::seconds(piece.not_after),
            hours_left = left.as_secs() / 3600,
            "a certificate expires soon: rotate"
        );
    }
}

fn log<V: View>(check: &Check<'_>, usage: &str, last: &KeySet<V>, set: &KeySet<V>, events: &[reconcile::Event]) {
    let directory = check.directory;
    for event in events {
        match event {
            reconcile::Event::Revoked(id, why) => {
                let why = match why {
                    Why::Marker => "marker",
                    Why::Absence => "absence",
                };
                tracing::info!(directory, usage, revision = %id, why, "revoked");
            }
            reconcile::Event::Returned(id) => {
                tracing::warn!(directory, usage, revision = %id, "returned after its revocation")
            }
            reconcile::Event::Reused(id) => {
                tracing::warn!(directory, usage, revision = %id, "replaced by other content under the same id")
            }
        }
    }
    for problem in set.problems.iter().filter(|problem| !last.problems.contains(problem)) {
        let (code, subject, advice) = (problem.code, problem.subject.as_str(), problem.advice);
        match problem.severity {
            Severity::Error => tracing::error!(directory, usage, code, subject, advice, "{}", problem.message),
            Severity::Warning => tracing::warn!(directory, usage, code, subject, advice, "{}", problem.message),
        }
    }
    for (key, state) in set.keys.iter().zip(&set.states) {
        let held_before = last.state(key).and_then(|state| state.held.as_ref());
        if let Some(hold) = state.held.as_ref().filter(|hold| Some(*hold) != held_before) {
            tracing::error!(directory, usage, revision = %key.id(), reason = ?hold, "held: its last good content goes on");
        }
    }
    let primary = set.primary().ok().map(|key| key.id().as_str());
    tracing::info!(
        directory,
        usage,
        generation = set.generation,
        publication = set.publication(),
        revisions = set.len(),
        primary,
        "loaded"
    );
}
