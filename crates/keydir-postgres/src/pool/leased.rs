//! A pooled session, and the moment at which it is to go.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::lease::Lease;

/// A pooled session: the client, and its [`Lease`].
// In a box, since a pool moves what it holds about, several times for each check-out.
pub struct Leased<C>(Box<Pooled<C>>);

struct Pooled<C> {
    client: C,
    session: Arc<Session>,
}

/// What is known of a session also while it is in use.
#[derive(Debug)]
pub(super) struct Session {
    lease: Lease,
    /// When in a window its turn comes: between 0 and 1.
    turn: f64,
    /// When it was first seen that its login is revoked.
    revoked: OnceLock<Instant>,
    /// Likewise that it is superseded.
    superseded: Mutex<Option<Instant>>,
    usage: Mutex<Usage>,
}

/// What the pool does with a session, as far as it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "bb8"), allow(dead_code, reason = "deadpool does not tell"))]
pub(super) enum Usage {
    /// Not used yet, or the pool does not tell.
    New,
    /// It does not tell, and it has been used.
    Unknown,
    Busy,
    Idle,
    /// The pool is to let go of it.
    Over,
}

impl<C> Leased<C> {
    pub(super) fn new(client: C, lease: Lease, turn: f64) -> Self {
        let session = Session {
            lease,
            turn,
            revoked: OnceLock::new(),
            superseded: Mutex::default(),
            usage: Mutex::new(Usage::New),
        };
        Self(Box::new(Pooled {
            client,
            session: Arc::new(session),
        }))
    }

    /// What it was logged in with.
    pub fn lease(&self) -> &Lease {
        self.session().lease()
    }

    pub(super) fn session(&self) -> &Arc<Session> {
        &self.0.session
    }
}

impl Session {
    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Whether it is to go, now or later. Asked at each check-out.
    pub(super) fn is_to_go(&self) -> bool {
        !self.lease.stands() || self.lease.is_superseded()
    }

    /// When it is to go, if it is: at once if what it rests on was revoked, in its turn if another login takes its place.
    pub(super) fn goes_at(&self, window: Duration, now: Instant) -> Option<Instant> {
        if !self.lease.stands() {
            return Some(*self.revoked.get_or_init(|| now));
        }
        if !self.lease.is_superseded() {
            return None;
        }
        let mut superseded = self.superseded.lock().unwrap_or_else(PoisonError::into_inner);
        Some(*superseded.get_or_insert(now) + window.mul_f64(self.turn))
    }

    /// It has a new turn when its login was the primary once more.
    pub(super) fn forget_turn(&self) {
        *self.superseded.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn usage(&self) -> Usage {
        *self.known()
    }

    /// Changes what is known, unless it is over already.
    pub(super) fn becomes(&self, usage: Usage) {
        let mut known = self.known();
        if *known != Usage::Over {
            *known = usage;
        }
    }

    /// Ends it. Nothing may be under way on it.
    pub(super) fn end(&self) {
        *self.known() = Usage::Over;
        self.lease.end();
    }

    /// Ends it, if it is certain that nobody uses it.
    #[cfg(feature = "bb8")]
    pub(super) fn end_if_idle(&self) {
        let mut known = self.known();
        match *known {
            Usage::Idle => {}
            Usage::New if !self.lease.was_used() => {}
            // Made for somebody, not for the pool.
            Usage::New => return *known = Usage::Unknown,
            Usage::Unknown | Usage::Busy | Usage::Over => return,
        }
        *known = Usage::Over;
        self.lease.end();
    }

    fn known(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Deref for Leased<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.0.client
    }
}

impl<C> DerefMut for Leased<C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.0.client
    }
}

impl<C> fmt::Debug for Leased<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Leased").field(self.lease()).finish()
    }
}
