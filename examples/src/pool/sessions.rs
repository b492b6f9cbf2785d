//! Where sessions come from.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use deadpool::managed::BuildError;
use keydir::RevisionId;
use keydir_postgres::{Bb8Manager, Credentials, DeadpoolManager, Login, Sweeper};
#[cfg(feature = "sqlx")]
use keydir_postgres::{SqlxError, SqlxLogin, SqlxRotation};
use tokio::time::timeout;
use tokio_postgres::Client;

use super::Ledger;

/// Where sessions come from.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Kind {
    /// Each worker keeps one.
    Plain,
    /// A pool of deadpool.
    Deadpool,
    /// A pool of bb8.
    Bb8,
    /// A pool of sqlx.
    #[cfg(feature = "sqlx")]
    Sqlx,
}

/// Sessions, as workers have them.
#[derive(Clone)]
pub enum Sessions {
    /// Each worker keeps one.
    Plain(Login),
    /// A pool of deadpool.
    Deadpool(deadpool::managed::Pool<DeadpoolManager>),
    /// A pool of bb8, and who looks after it.
    Bb8(bb8::Pool<Bb8Manager>, Arc<Sweeper>),
    /// A pool of sqlx, and who looks after it.
    #[cfg(feature = "sqlx")]
    Sqlx(sqlx::PgPool, Arc<SqlxRotation>),
}

impl Sessions {
    /// Each worker keeps one.
    pub fn plain(login: Login) -> Self {
        Self::Plain(login)
    }

    /// So many at a time, in a pool of deadpool. They move to a new login within `window`.
    ///
    /// # Errors
    /// If the pool refuses its configuration.
    pub fn of_deadpool(login: &Login, size: u16, window: Duration) -> Result<Self, BuildError> {
        let manager = DeadpoolManager::new(login).with_window(window);
        let pool = deadpool::managed::Pool::builder(manager)
            .max_size(size.into())
            .build()?;
        DeadpoolManager::sweep(&pool);
        Ok(Self::Deadpool(pool))
    }

    /// Likewise, in a pool of bb8.
    pub fn of_bb8(login: &Login, size: u16, window: Duration) -> Self {
        let manager = Bb8Manager::new(login).with_window(window);
        let pool = bb8::Pool::builder()
            .max_size(size.into())
            .build_unchecked(manager.clone());
        let sweeper = manager.sweep(&pool);
        Self::Bb8(pool, Arc::new(sweeper))
    }

    /// Likewise, in sqlx's own pool.
    ///
    /// # Errors
    /// If nobody can log in.
    #[cfg(feature = "sqlx")]
    pub async fn of_sqlx(login: SqlxLogin, size: u16, window: Duration) -> Result<Self, SqlxError> {
        let options = sqlx::postgres::PgPoolOptions::new().max_connections(size.into());
        let (pool, rotation) = login.with_window(window).connect(options).await?;
        Ok(Self::Sqlx(pool, Arc::new(rotation)))
    }

    /// How many there are, or are being made, by revision.
    pub async fn count(&self, credentials: &Credentials) -> BTreeMap<RevisionId, usize> {
        #[cfg(feature = "sqlx")]
        if let Self::Sqlx(_, rotation) = self {
            // To the report a pool is one use of a revision.
            return rotation.sessions().await.unwrap_or_default();
        }
        census(credentials)
    }

    /// Commits the next row of a worker, who may keep a session.
    ///
    /// # Errors
    /// If there is no session, or if it is not certain that the row is committed.
    ///
    /// # Cancel safety
    /// May be dropped at any time, and the session that is kept is of no use any more then.
    pub async fn commit(
        &self,
        kept: &mut Option<Kept>,
        ledger: &mut Ledger,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        match self {
            Self::Plain(login) => ledger.commit(Kept::renewed(kept, login).await?).await?,
            Self::Deadpool(pool) => ledger.commit(&mut ***pool.get().await?).await?,
            Self::Bb8(pool, _) => ledger.commit(&mut **pool.get().await?).await?,
            #[cfg(feature = "sqlx")]
            Self::Sqlx(pool, _) => ledger.commit(&mut *pool.acquire().await?).await?,
        }
        Ok(())
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

/// What rests on each revision, by the report.
pub fn census(credentials: &Credentials) -> BTreeMap<RevisionId, usize> {
    let sets = credentials.live().dir().report().sets.into_iter();
    let revisions = sets
        .filter(|set| set.usage == "password-login")
        .flat_map(|set| set.revisions);
    let used = revisions.filter(|(_, revision)| revision.uses > 0);
    used.map(|(id, revision)| (id, revision.uses)).collect()
}

/// A session that a worker keeps, until another login takes its place or its own is revoked.
pub struct Kept {
    client: Client,
    over: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Kept {
    /// The session that is kept, or another where it is time for that.
    async fn renewed<'a>(
        kept: &'a mut Option<Self>,
        login: &Login,
    ) -> Result<&'a mut Client, keydir_postgres::LoginError> {
        if let Some(Self { client, over }) = kept {
            // One look at it.
            let over = timeout(Duration::ZERO, over).await.is_ok();
            if over || client.is_closed() {
                *kept = None;
            }
        }
        let session = match kept.take() {
            Some(session) => session,
            None => Self::new(login).await?,
        };
        Ok(&mut kept.insert(session).client)
    }

    async fn new(login: &Login) -> Result<Self, keydir_postgres::LoginError> {
        let (client, lease) = login.connect().await?;
        let over = async move {
            tokio::select! {
                () = lease.superseded() => {}
                () = lease.ended() => {}
            }
        };
        Ok(Self {
            client,
            over: Box::pin(over),
        })
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}
