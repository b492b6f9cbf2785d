//! Which revision is used, which one is tried, and what became of those before: for one place and one role.

use std::future::{Future, pending};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use event_listener::Event;
#[cfg(any(feature = "_pool", feature = "sqlx"))]
use event_listener::EventListener;
use keydir::Key;
use tokio::time::{sleep_until, timeout};

use crate::attempt::{Attempts, Messages, Session};
use crate::error::{LoginError, Reason, Try};
use crate::refused::Refused;
use crate::tried::{Beside, Pick, Tried};
use crate::view::Credential;

/// So long others wait for somebody who tries a revision, at most.
const TRIAL: Duration = Duration::from_secs(30);

pub(crate) struct Logins {
    pub(crate) attempts: Attempts,
    known: Mutex<Known>,
    /// The end of every trial.
    ended: Event,
}

#[derive(Default)]
struct Known {
    tried: Tried<Credential>,
    /// How each revision was refused last.
    refusals: Vec<Try>,
    /// What the last trial failed with, if it was not for the credential.
    trouble: Option<Try>,
}

impl Logins {
    /// What is known of the revisions elsewhere does not count here.
    pub(crate) fn new(attempts: Attempts) -> Arc<Self> {
        Arc::new(Self {
            attempts,
            known: Mutex::default(),
            ended: Event::new(),
        })
    }

    /// Makes a connection, or says why there is none. `beside` says whether a new primary is tried beside it.
    pub(crate) async fn connect(
        self: &Arc<Self>,
        beside: bool,
        messages: Option<Messages>,
    ) -> Result<Session, LoginError> {
        let mut tries = Vec::new();
        loop {
            let ended = self.ended.listen();
            let usable = self.usable()?;
            let pick = self.known().tried.pick(&usable, beside, Instant::now());
            let connected = match pick {
                Pick::Use(key) => self.log_in(&key, false, messages.clone()).await,
                Pick::UseAndTry(key, new) => {
                    self.try_beside(new);
                    self.log_in(&key, false, messages.clone()).await
                }
                Pick::Try(key) => self.first_log_in(key, messages.clone()).await,
                Pick::Wait => {
                    ended.await;
                    match self.known().trouble.clone() {
                        Some(trouble) => Err(trouble),
                        None => continue,
                    }
                }
                Pick::Resting(again) if tries.is_empty() => {
                    let left = again.saturating_duration_since(Instant::now());
                    let refusals = self.refusals(&usable);
                    return Err(LoginError::new(self.directory(), Reason::Resting(left), refusals));
                }
                Pick::Resting(_) => break,
            };
            match connected {
                Ok(session) if session.stands() => return Ok(session),
                // Overtaken by a revocation, so that what is in force now counts.
                Ok(_) => {}
                Err(failed) => {
                    let may_go_on = tries.is_empty() && failed.refused.may_fall_back();
                    tries.push(failed);
                    if !may_go_on {
                        break;
                    }
                }
            }
        }
        Err(LoginError::new(self.directory(), Reason::Refused, tries))
    }

    /// Logs in, and remembers what came of it.
    async fn log_in(
        &self,
        key: &Arc<Key<Credential>>,
        is_first: bool,
        messages: Option<Messages>,
    ) -> Result<Session, Try> {
        let connected = self.attempts.log_in(key, is_first, messages).await;
        let mut known = self.known();
        match &connected {
            Ok(_) => {
                known.tried.worked(key);
                key.touch();
            }
            Err(failed) => {
                if known.tried.failed(key, failed.refused, Instant::now()) {
                    known.refusals.retain(|other| other.revision != failed.revision);
                    known.refusals.push(failed.clone());
                    tracing::warn!(
                        revision = %failed.revision,
                        error = %failed.error,
                        "the login was refused and is left alone for a while"
                    );
                }
            }
        }
        connected
    }

    /// Logs in with a revision that the caller has begun to try. It goes on also if nobody waits for it: else a caller of
    /// little patience would send a wrong password again and again, and never hear so.
    fn first_log_in(
        self: &Arc<Self>,
        key: Arc<Key<Credential>>,
        messages: Option<Messages>,
    ) -> impl Future<Output = Result<Session, Try>> + Send + use<> {
        let id = key.id().clone();
        let broken_off = Try::new(&id, Refused::Other, "it was broken off");
        let mut trial = Trial {
            logins: Arc::clone(self),
            key,
            trouble: Some(broken_off.clone()),
        };
        let task = tokio::spawn(async move {
            let connected = timeout(TRIAL, trial.logins.log_in(&trial.key, true, messages)).await;
            let connected =
                connected.unwrap_or_else(|_| Err(Try::new(&id, Refused::Other, "the server does not answer")));
            trial.came_to(&connected);
            connected
        });
        async move { task.await.unwrap_or(Err(broken_off)) }
    }

    /// Tries a revision while requests go on with another.
    fn try_beside(self: &Arc<Self>, key: Arc<Key<Credential>>) {
        let id = key.id().clone();
        let first = self.first_log_in(key, None);
        tokio::spawn(async move {
            // The client is dropped, which says good-bye.
            match first.await {
                Ok(_) => tracing::info!(revision = %id, "the server takes the new login"),
                Err(failed) => tracing::warn!(
                    revision = %id,
                    error = %failed.error,
                    "the server does not take the new login, so the last one goes on"
                ),
            }
        });
    }

    /// Whether the server has taken this revision, and not refused it since.
    pub(crate) fn works(&self, key: &Arc<Key<Credential>>) -> bool {
        self.known().tried.is_good(key)
    }

    /// Whether a new connection would be made with another login than this one: the primary is another, and the server
    /// takes it.
    pub(crate) fn is_superseded(&self, key: &Key<Credential>) -> bool {
        let set = self.attempts.credentials.live().load();
        set.primary()
            .is_ok_and(|primary| !is_same(primary, key) && self.works(primary))
    }

    /// Resolves when that is so, and sees to it that a new primary is tried though nobody connects.
    pub(crate) async fn superseded(self: Arc<Self>, key: Arc<Key<Credential>>) {
        let mut changes = self.attempts.credentials.live().subscribe();
        loop {
            let ended = self.ended.listen();
            if self.is_superseded(&key) {
                return;
            }
            let later = self.look_after_primary(&key).map(|later| sleep_until(later.into()));
            let later = async {
                match later {
                    Some(later) => later.await,
                    None => pending().await,
                }
            };
            tokio::select! {
                _ = changes.changed() => {}
                () = ended => {}
                () = later => {}
            }
        }
    }

    /// Tries a primary that nobody knows; or says when to come back for that.
    fn look_after_primary(self: &Arc<Self>, other_than: &Key<Credential>) -> Option<Instant> {
        let primary = self.attempts.credentials.primary().ok()?;
        if is_same(&primary, other_than) {
            return None;
        }
        let (beside, now) = (self.beside(&primary), Instant::now());
        if beside == Beside::Try && self.known().tried.begin(&primary, now) {
            self.try_beside(primary);
        }
        beside.later()
    }

    fn beside(&self, key: &Arc<Key<Credential>>) -> Beside {
        self.known().tried.beside(key, Instant::now())
    }

    /// What is to be done about a primary that nobody knows, by whoever has sessions of another that works.
    #[cfg(any(feature = "_pool", feature = "sqlx"))]
    pub(crate) fn untried(&self) -> Beside {
        let usable = self.usable().unwrap_or_default();
        match usable.first() {
            Some(primary) if usable.iter().any(|key| self.works(key)) => self.beside(primary),
            _ => Beside::Nothing,
        }
    }

    /// Begins to try it, if that is still to be done.
    #[cfg(any(feature = "_pool", feature = "sqlx"))]
    pub(crate) fn try_primary(self: &Arc<Self>) -> Option<impl Future<Output = Result<Session, Try>> + Send + use<>> {
        let primary = self.attempts.credentials.primary().ok()?;
        let begins = self.known().tried.begin(&primary, Instant::now());
        begins.then(|| self.first_log_in(primary, None))
    }

    /// The end of the next trial.
    #[cfg(any(feature = "_pool", feature = "sqlx"))]
    pub(crate) fn next_end(&self) -> EventListener {
        self.ended.listen()
    }

    /// The primary, then what may be tried in its place, the last in natural order first.
    fn usable(&self) -> Result<Vec<Arc<Key<Credential>>>, LoginError> {
        let set = self.attempts.credentials.live().load();
        let primary = set
            .primary()
            .map_err(|reason| LoginError::new(self.directory(), Reason::NoPrimary(reason.clone()), Vec::new()))?;
        let may_stand_in = |key: &&Arc<Key<Credential>>| {
            let inside = set.state(key).is_some_and(|state| !state.pending && !state.expired);
            inside && key.id() != primary.id()
        };
        let mut usable: Vec<_> = set.iter().filter(may_stand_in).cloned().collect();
        usable.push(Arc::clone(primary));
        usable.reverse();
        Ok(usable)
    }

    /// What the next connection would be made with, if that has worked.
    #[cfg(feature = "sqlx")]
    pub(crate) fn good(&self) -> Option<Arc<Key<Credential>>> {
        let usable = self.usable().ok()?;
        let known = self.known();
        usable.into_iter().find(|key| known.tried.is_good(key))
    }

    fn directory(&self) -> &str {
        self.attempts.credentials.live().dir().path()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How those were refused last that are left alone.
    fn refusals(&self, usable: &[Arc<Key<Credential>>]) -> Vec<Try> {
        let refusals = &mut self.known().refusals;
        refusals.retain(|failed| usable.iter().any(|key| *key.id() == failed.revision));
        refusals.clone()
    }
}

/// Whether two keys are of one login: one that has become the primary once more is another key.
pub(crate) fn is_same(one: &Key<Credential>, other: &Key<Credential>) -> bool {
    std::ptr::eq::<Credential>(&**one, &**other)
}

/// A revision that is being tried. Others are told of the end, however it comes.
struct Trial {
    logins: Arc<Logins>,
    key: Arc<Key<Credential>>,
    trouble: Option<Try>,
}

impl Trial {
    fn came_to(&mut self, connected: &Result<Session, Try>) {
        let failed = connected.as_ref().err();
        self.trouble = failed.filter(|failed| !failed.refused.may_fall_back()).cloned();
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let mut known = self.logins.known();
        known.tried.ended(&self.key, Instant::now());
        known.trouble = self.trouble.take();
        drop(known);
        self.logins.ended.notify(usize::MAX);
    }
}
