//! The sessions of one pool: which are let go, and when.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_listener::Event;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Executor, Row};
use tokio::sync::Notify;

use crate::sqlx::generation::{Generations, Session, Verdict};

/// In place of the empty message by which sqlx would see whether a session is alive, and as quick: one message there,
/// one back.
const WHO: &str = "SELECT pg_backend_pid(), current_setting('keydir.login', true), session_user, current_user";

/// What the hooks of a pool and the task beside it know in common.
pub(crate) struct Sessions {
    generations: Mutex<Generations>,
    window: Duration,
    turns: RandomState,
    pub(crate) role: Option<String>,
    /// There may be idle sessions to let go.
    pub(crate) to_sweep: Notify,
    /// Somebody has found a session dead.
    pub(crate) doubted: Notify,
    /// Whether the login goes on being looked after.
    rotates: AtomicBool,
    checked: Event,
}

impl Sessions {
    pub(crate) fn new(window: Duration, role: Option<String>) -> Self {
        Self {
            generations: Mutex::default(),
            window,
            turns: RandomState::new(),
            role,
            to_sweep: Notify::new(),
            doubted: Notify::new(),
            rotates: AtomicBool::new(true),
            checked: Event::new(),
        }
    }

    pub(crate) fn generations(&self) -> MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn window(&self) -> Duration {
        self.window
    }

    /// Whether this one is to be closed now.
    pub(crate) fn lets_go(&self, session: &Session) -> bool {
        let mut generations = self.generations();
        let goes = match generations.judge(session) {
            Verdict::Stays => false,
            Verdict::Superseded(since) => since.elapsed() >= self.turn(session),
            Verdict::Revoked => true,
        };
        if goes {
            generations.closes(session);
        }
        goes
    }

    /// When within the window: the same each time it is asked, and different in each process.
    fn turn(&self, session: &Session) -> Duration {
        const PARTS: u32 = 1000;
        let drawn = self.turns.hash_one((session.pid, session.number)) % u64::from(PARTS);
        self.window / PARTS * u32::try_from(drawn).unwrap_or(PARTS)
    }

    /// Has the login tried once more, since a session was found dead: perhaps the server has ended all that it had.
    /// Waits for what comes of it, so that the next session is made with one that works.
    pub(crate) async fn doubt(&self) {
        let checked = self.checked.listen();
        self.doubted.notify_one();
        if self.rotates.load(Ordering::SeqCst) {
            checked.await;
        }
    }

    pub(crate) fn was_checked(&self) {
        self.checked.notify(usize::MAX);
    }

    pub(crate) fn end(&self) {
        self.rotates.store(false, Ordering::SeqCst);
        self.was_checked();
    }
}

/// What a session says of itself, and as which role it acts.
pub(crate) async fn ask(connection: &mut PgConnection) -> Result<(Session, String), sqlx::Error> {
    let row: PgRow = connection.fetch_one(WHO).await?;
    let number: Option<String> = row.try_get(1)?;
    let session = Session {
        pid: row.try_get(0)?,
        number: number.and_then(|number| number.parse().ok()),
        user: row.try_get(2)?,
    };
    Ok((session, row.try_get(3)?))
}

/// Which of these processes are there.
pub(crate) async fn alive(connection: &mut PgConnection, pids: &BTreeSet<i32>) -> Result<BTreeSet<i32>, sqlx::Error> {
    let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
    let sql = format!("SELECT pid FROM pg_stat_activity WHERE pid IN ({})", pids.join(", "));
    // Of numbers alone.
    let rows = connection.fetch_all(AssertSqlSafe(sql)).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// Asks the server which sessions there are still, and forgets the others: sqlx does not tell of all that it closes.
pub(crate) async fn count(sessions: &Sessions, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let known = sessions.generations().sessions();
    let alive = match known.is_empty() {
        true => BTreeSet::new(),
        false => alive(connection, &known).await?,
    };
    sessions.generations().tidy(&known, &alive);
    Ok(())
}
