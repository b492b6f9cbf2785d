//! Which sessions of a pool are to go, and when.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::leased::{Leased, Session, Usage};
use crate::attempt;
use crate::error::LoginError;
use crate::lease::Lease;
use crate::login::Login;

/// Sessions of a login that another takes the place of go within this time, where nothing else is said.
const WINDOW: Duration = Duration::from_secs(10);
/// What was to go and is still there is looked for after so long, and then ever more rarely.
const SOON: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_secs(1);
/// So long the place of one session is kept for the login that is tried; it goes on beside the pool then.
pub(super) const KEPT: Duration = Duration::from_secs(2);

/// The sessions of one pool.
#[derive(Debug)]
pub(super) struct Turnover {
    pub(super) login: Login,
    window: Duration,
    sessions: Mutex<Vec<Weak<Session>>>,
    /// Somebody looks after the pool: tries a new primary within its size, and lets go of what is idle.
    is_swept: AtomicBool,
    /// A busy session is to make way, when it is given back, for a new login that is to be tried.
    place_wanted: AtomicBool,
    /// It has.
    place_free: AtomicBool,
    /// The pool has gone.
    over: Arc<Notify>,
}

impl Turnover {
    pub(super) fn new(login: &Login) -> Self {
        Self {
            login: login.clone(),
            window: WINDOW,
            sessions: Mutex::default(),
            is_swept: AtomicBool::new(false),
            place_wanted: AtomicBool::new(false),
            place_free: AtomicBool::new(false),
            over: Arc::default(),
        }
    }

    /// The same login, with no sessions yet, which will go within this time.
    pub(super) fn with_window(&self, window: Duration) -> Self {
        let mut turnover = Self::new(&self.login);
        turnover.window = window;
        turnover
    }

    /// Makes another session: of the new login, if a place was wanted for that.
    pub(super) async fn connect<C>(&self, wrap: impl FnOnce(Client) -> C) -> Result<Leased<C>, LoginError> {
        if self.place_free.swap(false, Ordering::Relaxed)
            && let Some(first) = self.login.logins().try_primary()
            && let Ok(Ok(made)) = timeout(KEPT, first).await
        {
            return Ok(self.leased(made, wrap));
        }
        let beside = !self.is_swept.load(Ordering::Relaxed);
        let made = self.login.logins().connect(beside, None).await?;
        Ok(self.leased(made, wrap))
    }

    pub(super) fn leased<C>(&self, made: attempt::Session, wrap: impl FnOnce(Client) -> C) -> Leased<C> {
        let (client, lease): (Client, Lease) = self.login.leased(made);
        let leased = Leased::new(wrap(client), lease, random());
        let mut sessions = self.sessions();
        sessions.retain(|session| session.strong_count() > 0);
        sessions.push(Arc::downgrade(leased.session()));
        leased
    }

    /// Whether a session is not to be used again.
    pub(super) fn is_due(&self, session: &Session) -> bool {
        let goes_now = || {
            let now = Instant::now();
            session.goes_at(self.window, now).is_some_and(|at| at <= now)
        };
        session.usage() == Usage::Over || (session.is_to_go() && goes_now())
    }

    /// When something is to go, or is to be looked for again, next.
    pub(super) fn next(&self) -> Option<Instant> {
        let now = Instant::now();
        let next = |session: Arc<Session>| {
            let at = session.goes_at(self.window, now);
            if at.is_none() {
                session.forget_turn();
            }
            match (session.usage(), at?) {
                (Usage::Busy | Usage::Unknown | Usage::Over, _) => None,
                (_, at) if at > now => Some(at),
                (_, at) => Some(now + ((now - at) / 4).clamp(SOON, LATE)),
            }
        };
        self.alive().into_iter().filter_map(next).min()
    }

    /// Has one session make way, the next that is given back.
    pub(super) fn want_place(&self, wanted: bool) {
        self.place_wanted.store(wanted, Ordering::Relaxed);
    }

    /// Whether the session that is given back is the one. The pool lets go of it then, and makes another in its place.
    #[cfg(feature = "bb8")]
    pub(super) fn makes_way(&self) -> bool {
        let makes_way = self.place_wanted.load(Ordering::Relaxed) && self.place_wanted.swap(false, Ordering::Relaxed);
        if makes_way {
            self.place_free.store(true, Ordering::Relaxed);
        }
        makes_way
    }

    pub(super) fn alive(&self) -> Vec<Arc<Session>> {
        self.sessions().iter().filter_map(Weak::upgrade).collect()
    }

    pub(super) fn is_swept(&self, swept: bool) {
        self.is_swept.store(swept, Ordering::Relaxed);
    }

    pub(super) fn over(&self) -> Arc<Notify> {
        Arc::clone(&self.over)
    }

    fn sessions(&self) -> MutexGuard<'_, Vec<Weak<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turnover {
    fn drop(&mut self) {
        self.over.notify_one();
    }
}

/// From 0 to 1, another for each session, so that they do not all go at once. Nothing secret depends on it.
fn random() -> f64 {
    let bits = RandomState::new().hash_one(()) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}
