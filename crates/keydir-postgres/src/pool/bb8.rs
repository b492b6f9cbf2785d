//! bb8.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bb8::{ManageConnection, Pool, PooledConnection};
use keydir::RevisionId;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::leased::{Leased, Usage};
use super::sweeper::{self, run};
use super::turnover::Turnover;
use crate::error::LoginError;
use crate::login::Login;

/// A manager for bb8's pool. Its connections are tokio-postgres's clients, with a [`Lease`](crate::Lease).
///
/// An idle session goes as soon as its login is revoked, and within a window when there is a new primary that the server
/// takes; one in use goes when it is given back. The new primary is tried in the place of one session, so the pool never
/// has more than its size.
///
/// ```no_run
/// # async fn query(login: keydir_postgres::Login) -> Result<(), Box<dyn std::error::Error>> {
/// use keydir_postgres::Bb8Manager;
///
/// let manager = Bb8Manager::new(&login);
/// let pool = bb8::Pool::builder().max_size(16).build(manager.clone()).await?;
/// let _sweeper = manager.sweep(&pool);
///
/// let client = pool.get().await?;
/// client.query("SELECT 1", &[]).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Bb8Manager(Arc<Turnover>);

impl Bb8Manager {
    /// A manager that logs in with this. Its clones are of one pool.
    pub fn new(login: &Login) -> Self {
        Self(Arc::new(Turnover::new(login)))
    }

    /// The time within which the sessions of a login go that is no longer the primary, spread over it at random; 10 s
    /// without this.
    pub fn with_window(self, window: Duration) -> Self {
        Self(Arc::new(self.0.with_window(window)))
    }

    /// Looks after the pool of this manager until what is returned is dropped, in a task of its own, which keeps the pool.
    /// Without this, idle sessions go only when somebody would be given them, and a new primary is tried beside the pool.
    ///
    /// The pool must test on check-out, as it does unless told otherwise: it is how it says what is idle. A session of
    /// your own is [`Login::connect`].
    ///
    /// Must be called from within a tokio runtime with time and I/O enabled.
    pub fn sweep(&self, pool: &Pool<Self>) -> Sweeper {
        let turnover = Arc::downgrade(&self.0);
        Sweeper {
            task: tokio::spawn(run(Weak::clone(&turnover), Arc::new(Swept(pool.clone())))),
            turnover,
        }
    }
}

/// Looks after a pool until it is dropped.
#[derive(Debug)]
#[must_use = "nobody looks after the pool any more when this is dropped"]
pub struct Sweeper {
    task: JoinHandle<()>,
    turnover: Weak<Turnover>,
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(turnover) = self.turnover.upgrade() {
            turnover.is_swept(false);
        }
    }
}

impl ManageConnection for Bb8Manager {
    type Connection = Leased<Client>;
    type Error = Bb8Error;

    async fn connect(&self) -> Result<Self::Connection, Bb8Error> {
        let leased = self.0.connect(wrap).await.map_err(Bb8Error::Login)?;
        // All until now was for the login.
        leased.lease().was_used();
        Ok(leased)
    }

    /// Asks the server too, as bb8-postgres does.
    async fn is_valid(&self, leased: &mut Self::Connection) -> Result<(), Bb8Error> {
        // First of all: from here on nobody ends it from below.
        leased.session().becomes(Usage::Busy);
        if self.is_over(leased) {
            return Err(Bb8Error::Over(leased.lease().revision().clone()));
        }
        leased.simple_query("").await.map(drop).map_err(Bb8Error::Session)
    }

    fn has_broken(&self, leased: &mut Self::Connection) -> bool {
        let session = leased.session();
        // Without a test at its check-out nobody will know when it is in use again.
        let tested = session.usage() == Usage::Busy;
        session.becomes(if tested { Usage::Idle } else { Usage::Unknown });
        self.is_over(leased) || self.0.makes_way()
    }
}

impl Bb8Manager {
    fn is_over(&self, leased: &Leased<Client>) -> bool {
        leased.is_closed() || self.0.is_due(leased.session())
    }
}

fn wrap(client: Client) -> Client {
    client
}

struct Swept(Pool<Bb8Manager>);

impl sweeper::Pool for Swept {
    type Client = Client;
    type Place = PooledConnection<'static, Bb8Manager>;

    fn wrap(client: Client) -> Client {
        wrap(client)
    }

    /// bb8 shows idle sessions to nobody but who takes them, so they are ended from below. It finds that out when they
    /// are asked for.
    fn sweep(&self, turnover: &Turnover) {
        for session in turnover.alive() {
            if turnover.is_due(&session) {
                session.end_if_idle();
            }
        }
    }

    async fn take(&self) -> Option<Self::Place> {
        self.0.get_owned().await.ok()
    }
}

/// Why a pool of bb8 has no session, or not this one.
#[derive(Debug)]
#[non_exhaustive]
pub enum Bb8Error {
    /// Nobody can log in.
    Login(LoginError),
    /// The session does not answer.
    Session(tokio_postgres::Error),
    /// The session of this revision has ended, or another login takes its place. Another is made.
    Over(RevisionId),
}

impl fmt::Display for Bb8Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Login(error) => error.fmt(f),
            Self::Session(error) => error.fmt(f),
            Self::Over(revision) => write!(f, "a session of {revision} has ended, or another login takes its place"),
        }
    }
}

impl Error for Bb8Error {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Session(error) => error.source(),
            Self::Login(_) | Self::Over(_) => None,
        }
    }
}
