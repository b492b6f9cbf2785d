//! With what the sessions of a pool were made. sqlx keeps nothing of ours with a session, so each says a number, of which
//! it is known here what it stands for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Instant;

use keydir::{Key, RevisionId, Use};
use sqlx::postgres::PgConnectOptions;

use crate::logins::is_same;
use crate::sqlx::options::Anchors;
use crate::view::Credential;

/// What a session says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// Its process of the server.
    pub(crate) pid: i32,
    /// Of the generation; `None` if a pooler in between has not passed it on.
    pub(crate) number: Option<u64>,
    pub(crate) user: String,
}

/// What is to become of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Stays,
    /// New ones are made with another login since then, or a CA was removed that may have vouched for its server.
    Superseded(Instant),
    Revoked,
}

/// All that sessions may have been made with.
#[derive(Default)]
pub(crate) struct Generations {
    /// The last one is what new sessions are made with.
    all: Vec<Generation>,
    last_number: u64,
}

struct Generation {
    number: u64,
    key: Arc<Key<Credential>>,
    anchors: Anchors,
    superseded: Option<Instant>,
    /// Alive for as long as somebody connects with them, and no longer than that.
    options: Weak<PgConnectOptions>,
    sessions: BTreeSet<i32>,
    _used: Use,
}

impl Generations {
    /// Whether new sessions are made with these.
    pub(crate) fn is_current(&self, key: &Key<Credential>, anchors: &Anchors) -> bool {
        self.all.last().is_some_and(|last| {
            let all_same = last.anchors.iter().zip(anchors).all(|(a, b)| Arc::ptr_eq(a, b));
            last.key.stands() && is_same(&last.key, key) && last.anchors.len() == anchors.len() && all_same
        })
    }

    pub(crate) fn current(&self) -> Option<&Arc<Key<Credential>>> {
        self.all.last().map(|last| &last.key)
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.last_number + 1
    }

    /// New sessions are made with these from now on, and counted as a use before the first of them.
    pub(crate) fn begin(&mut self, key: Arc<Key<Credential>>, anchors: Anchors, now: Instant) {
        self.last_number += 1;
        for before in &mut self.all {
            let goes_on = is_same(&before.key, &key) && before.anchors.iter().all(|anchor| anchor.stands());
            before.superseded = match goes_on {
                true => None,
                false => before.superseded.or(Some(now)),
            };
        }
        self.all.push(Generation {
            number: self.last_number,
            _used: key.hold(),
            key,
            anchors,
            superseded: None,
            options: Weak::new(),
            sessions: BTreeSet::new(),
        });
    }

    /// What sqlx has made of the last ones.
    pub(crate) fn are_made_with(&mut self, options: &Arc<PgConnectOptions>) {
        if let Some(last) = self.all.last_mut() {
            last.options = Arc::downgrade(options);
        }
    }

    /// What is to become of a session, which is one of the pool from now on.
    pub(crate) fn judge(&mut self, session: &Session) -> Verdict {
        let Some(index) = self.position(session) else {
            // All that are known have ended, and so its login was revoked.
            return Verdict::Revoked;
        };
        let mut verdict = Verdict::Revoked;
        for (position, generation) in self.all.iter_mut().enumerate() {
            // The number of a process comes again.
            generation.sessions.remove(&session.pid);
            if position == index {
                generation.sessions.insert(session.pid);
                verdict = generation.verdict();
            }
        }
        verdict
    }

    /// Whether a session that was just made is not to be used. Else it is one of the pool from now on.
    pub(crate) fn is_revoked(&mut self, session: &Session) -> bool {
        let is_revoked = self.judge(session) == Verdict::Revoked;
        if is_revoked {
            self.closes(session);
        }
        is_revoked
    }

    /// It is closed.
    pub(crate) fn closes(&mut self, session: &Session) {
        for generation in &mut self.all {
            generation.sessions.remove(&session.pid);
        }
    }

    /// Forgets what no session was made with, given which of the processes are there.
    pub(crate) fn tidy(&mut self, asked: &BTreeSet<i32>, alive: &BTreeSet<i32>) {
        for generation in &mut self.all {
            generation
                .sessions
                .retain(|pid| !asked.contains(pid) || alive.contains(pid));
        }
        let current = self.last_number;
        self.all.retain(|generation| {
            let connecting = generation.options.strong_count() > 0;
            generation.number == current || connecting || !generation.sessions.is_empty()
        });
    }

    /// Likewise, where there is no session at all.
    pub(crate) fn forget_all_sessions(&mut self) {
        let all = self.sessions();
        self.tidy(&all, &BTreeSet::new());
    }

    /// Forgets what has no sessions; whether there are some left that are to go.
    pub(crate) fn tidy_former(&mut self) -> bool {
        self.tidy(&BTreeSet::new(), &BTreeSet::new());
        let goes = |generation: &Generation| generation.verdict() != Verdict::Stays;
        self.all
            .iter()
            .any(|generation| goes(generation) && !generation.sessions.is_empty())
    }

    /// Whether every session stays.
    pub(crate) fn are_settled(&self) -> bool {
        self.all.iter().all(|generation| generation.verdict() == Verdict::Stays)
    }

    /// The processes of all sessions that are known.
    pub(crate) fn sessions(&self) -> BTreeSet<i32> {
        self.all
            .iter()
            .flat_map(|generation| &generation.sessions)
            .copied()
            .collect()
    }

    pub(crate) fn census(&self) -> BTreeMap<RevisionId, usize> {
        let mut census = BTreeMap::new();
        for generation in self.all.iter().filter(|generation| !generation.sessions.is_empty()) {
            *census.entry(generation.key.id().clone()).or_default() += generation.sessions.len();
        }
        census
    }

    fn position(&self, session: &Session) -> Option<usize> {
        self.all.iter().rposition(|generation| match session.number {
            Some(number) => generation.number == number,
            // The user tells the logins apart, if not one from a former one of the same user.
            None => generation.key.user() == session.user,
        })
    }
}

impl Generation {
    fn verdict(&self) -> Verdict {
        match self.superseded {
            _ if !self.key.stands() => Verdict::Revoked,
            Some(since) => Verdict::Superseded(since),
            None => Verdict::Stays,
        }
    }
}
