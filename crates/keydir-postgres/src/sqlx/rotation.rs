//! What goes on beside a pool: its login follows the directory, and the sessions of former logins go.

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keydir::{Key, RevisionId};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::login::Login;
use crate::logins::Logins;
use crate::sqlx::options::Template;
use crate::sqlx::sessions::{Sessions, ask, count};
use crate::sqlx::trial::try_primaries;
use crate::view::Credential;

/// So long after a failure until it is tried again; what was refused itself is left alone for longer.
const PAUSE: Duration = Duration::from_secs(1);
/// An idle session that says nothing for so long is closed.
const SILENCE: Duration = Duration::from_secs(5);
/// Idle sessions are looked at no less often, as long as some of former logins are left.
const SELDOM: Duration = Duration::from_secs(30);

/// Keeps the login of a pool of sqlx up to date. Keep it for as long as the pool is used: dropped, or once the pool is
/// closed, the pool goes on with the last login, and nothing of it is left behind.
#[must_use = "the login of the pool rotates for as long as this is kept"]
pub struct SqlxRotation {
    pool: PgPool,
    login: Login,
    sessions: Arc<Sessions>,
    task: JoinHandle<()>,
}

impl SqlxRotation {
    pub(crate) fn spawn(pool: PgPool, logins: Arc<Logins>, template: Template, sessions: Arc<Sessions>) -> Self {
        let login = Login::of(Arc::clone(&logins));
        let follower = Follower {
            pool: pool.clone(),
            logins,
            template,
            sessions: Arc::clone(&sessions),
        };
        let task = tokio::spawn(async move {
            let closed = follower.pool.close_event();
            tokio::select! {
                () = closed => {}
                () = follower.follow() => {}
                () = try_primaries(&follower.logins, &follower.pool) => {}
                () = follower.sweep() => {}
            }
        });
        Self {
            pool,
            login,
            sessions,
            task,
        }
    }

    /// For sessions of your own beside the pool, such as one that says `LISTEN`, and for
    /// [`safe_to_retire`](Login::safe_to_retire).
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// The revision that new sessions are made with.
    pub fn revision(&self) -> Option<RevisionId> {
        self.sessions.generations().current().map(|key| key.id().clone())
    }

    /// How many sessions the pool has of each revision. It asks the server, by a session of the pool.
    ///
    /// # Errors
    /// If no session is to be had, or the server does not answer.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn sessions(&self) -> Result<BTreeMap<RevisionId, usize>, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        count(&self.sessions, &mut connection).await?;
        Ok(self.sessions.generations().census())
    }
}

impl Drop for SqlxRotation {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for SqlxRotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlxRotation")
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}

struct Follower {
    pool: PgPool,
    logins: Arc<Logins>,
    template: Template,
    sessions: Arc<Sessions>,
}

impl Follower {
    /// Switches to each login that the server takes, and to each change of the trust.
    async fn follow(&self) {
        let mut credentials = self.logins.attempts.credentials.live().subscribe();
        let mut trust = self.template.trust().map(|anchors| anchors.live().subscribe());
        let mut in_doubt = false;
        loop {
            let ended = self.logins.next_end();
            let good = self.logins.good().filter(|_| !in_doubt);
            let key = match good {
                Some(key) => Some(key),
                None => self.log_in().await,
            };
            if let Some(key) = &key {
                self.switch_to(key);
            }
            in_doubt = key.is_none();
            self.sessions.was_checked();
            // Something may have been revoked.
            self.sessions.to_sweep.notify_one();
            let again = async {
                match in_doubt {
                    true => sleep(PAUSE).await,
                    false => pending().await,
                }
            };
            let trust = async {
                match &mut trust {
                    Some(trust) => drop(trust.changed().await),
                    None => pending().await,
                }
            };
            tokio::select! {
                _ = credentials.changed() => {}
                () = trust => {}
                () = ended => {}
                () = again => {}
                () = self.sessions.doubted.notified() => in_doubt = true,
            }
        }
    }

    /// What the server takes now, found out by a session that is closed at once.
    async fn log_in(&self) -> Option<Arc<Key<Credential>>> {
        match self.logins.connect(false, None).await {
            Ok(session) => Some(session.key),
            Err(error) => {
                tracing::warn!(%error, "the pool has no login that works");
                self.go_on_with_primary();
                None
            }
        }
    }

    /// If what the pool has is revoked, there is nothing to lose; and whoever asks for a session hears why there is none.
    fn go_on_with_primary(&self) {
        let stands = self.sessions.generations().current().is_some_and(|key| key.stands());
        if let Ok(primary) = self.logins.attempts.credentials.primary()
            && !stands
        {
            self.switch_to(&primary);
        }
    }

    fn switch_to(&self, key: &Arc<Key<Credential>>) {
        let anchors = self.template.anchors();
        let mut generations = self.sessions.generations();
        if generations.is_current(key, &anchors) {
            return;
        }
        match self.template.options(key, &anchors, generations.next_number()) {
            Ok(options) => {
                generations.begin(Arc::clone(key), anchors, Instant::now());
                self.pool.set_connect_options(options);
                generations.are_made_with(&self.pool.connect_options());
                tracing::info!(revision = %key.id(), "new sessions of the pool are made with this login");
            }
            Err(error) => tracing::warn!(%error, "the pool goes on with its last login"),
        }
    }

    /// Lets idle sessions of former logins go, one after the other, until none is left.
    async fn sweep(&self) {
        let window = self.sessions.window();
        let shortest = (window / 20).clamp(Duration::from_millis(10), SELDOM);
        loop {
            self.sessions.to_sweep.notified().await;
            let begun = Instant::now();
            let mut pause = shortest;
            while !self.sessions.generations().are_settled() {
                self.look_at_idle().await;
                let is_over = begun.elapsed() > window;
                if is_over {
                    pause = (pause * 2).min(SELDOM);
                }
                self.count(is_over).await;
                tokio::select! {
                    () = sleep(pause) => {}
                    () = self.sessions.to_sweep.notified() => pause = shortest,
                }
            }
        }
    }

    async fn look_at_idle(&self) {
        for _ in 0..self.pool.num_idle() {
            let Some(mut connection) = self.pool.try_acquire() else {
                break;
            };
            match timeout(SILENCE, ask(&mut connection)).await {
                Ok(Ok((session, _))) if !self.sessions.lets_go(&session) => {}
                _ => connection.close_on_drop(),
            }
        }
    }

    /// Finds out which sessions of former logins are left: what sqlx has closed by itself, the server alone knows.
    async fn count(&self, waits: bool) {
        if self.pool.size() == 0 {
            self.sessions.generations().forget_all_sessions();
            return;
        }
        let has_former = self.sessions.generations().tidy_former();
        if !has_former {
            return;
        }
        let connection = match self.pool.try_acquire() {
            None if waits => self.pool.acquire().await.ok(),
            connection => connection,
        };
        if let Some(mut connection) = connection
            && !matches!(
                timeout(SILENCE, count(&self.sessions, &mut connection)).await,
                Ok(Ok(()))
            )
        {
            connection.close_on_drop();
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.sessions.end();
    }
}
