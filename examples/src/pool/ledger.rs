//! Rows of a ledger, one a transaction: a commit of which nobody has heard is looked for before it is tried again.

use std::error::Error;
use std::fmt;
use std::future::Future;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

/// Held by whoever makes the table or looks for a number that no other worker has. Any number does.
pub(super) const LOCK: &str = "SELECT pg_advisory_xact_lock(8243116853)";
pub(super) const IS_MISSING: &str = "SELECT to_regclass('keydir_ledger') IS NULL";
pub(super) const CREATE: &str = "CREATE TABLE keydir_ledger (worker int, seq bigint)";
pub(super) const FIRST: &str = "INSERT INTO keydir_ledger SELECT coalesce(max(worker), 0) + 1, 1 FROM keydir_ledger \
                     RETURNING worker, pg_current_xact_id()::text";
pub(super) const NEXT: &str = "INSERT INTO keydir_ledger VALUES ($1, $2) RETURNING worker, pg_current_xact_id()::text";
pub(super) const STATUS: &str = "SELECT pg_xact_status($1::xid8)";
pub(super) const IS_THERE: &str = "SELECT EXISTS (SELECT FROM keydir_ledger WHERE worker = $1 AND seq = $2)";

/// The rows of one worker in the table `keydir_ledger`: its number, and 1, 2, 3 and so on. The number is one that no worker
/// has had before, of whichever process.
#[derive(Debug, Default)]
pub struct Ledger {
    worker: Option<i32>,
    /// Rows that are committed.
    rows: i64,
    /// A transaction that may have been committed, or may still be.
    doubt: Option<Doubt>,
}

/// A transaction of a worker, of which it is not known whether it is committed.
#[derive(Clone, Debug)]
pub struct Doubt {
    pub(super) worker: i32,
    pub(super) transaction: String,
}

/// Why a row is not committed, as far as is known.
#[derive(Debug)]
pub enum LedgerError {
    /// The server says so, or does not say anything.
    Server(Box<dyn Error + Send + Sync>),
    /// What was sent before may still be committed.
    UnderWay,
}

impl Ledger {
    /// Whether a row may have been committed that nobody knows of.
    pub fn is_in_doubt(&self) -> bool {
        self.doubt.is_some()
    }

    /// Commits the next row. The first time the table is made, if it is missing.
    ///
    /// # Errors
    /// If that is not certain. The same row is tried again with the next call, unless it turns out to be there.
    ///
    /// # Cancel safety
    /// May be dropped at any time, as after an error.
    pub async fn commit<S: Session>(&mut self, session: &mut S) -> Result<(), LedgerError> {
        let row = self.rows + 1;
        if let Some(doubt) = self.doubt.clone() {
            if doubt.is_committed(session, row).await? {
                self.is_committed(doubt.worker);
                return Ok(());
            }
            self.doubt = None;
        }
        let worker = session.row(self.worker, row, &mut self.doubt).await?;
        self.is_committed(worker);
        Ok(())
    }

    fn is_committed(&mut self, worker: i32) {
        self.worker = Some(worker);
        self.rows += 1;
        self.doubt = None;
    }
}

impl Doubt {
    /// First whether all is over, then whether the row is there: the status alone would not do, since a server that has
    /// crashed may give a number again.
    async fn is_committed<S: Session>(&self, session: &mut S, row: i64) -> Result<bool, LedgerError> {
        match session.status(&self.transaction).await?.as_deref() {
            Some("in progress") => Err(LedgerError::UnderWay),
            // The row may be there all the same: of another worker, who has taken the number since.
            Some("aborted") => Ok(false),
            _ => session.is_there(self.worker, row).await,
        }
    }
}

/// A session, of whichever library.
pub trait Session {
    /// Commits a row of this worker, whose number it gives back; of a new one, whose table may be missing, if there is
    /// none yet. `doubt` is said before the commit.
    fn row(
        &mut self,
        worker: Option<i32>,
        row: i64,
        doubt: &mut Option<Doubt>,
    ) -> impl Future<Output = Result<i32, LedgerError>> + Send;

    /// What has become of the transaction of this number, if the server knows.
    fn status(&mut self, transaction: &str) -> impl Future<Output = Result<Option<String>, LedgerError>> + Send;

    /// Whether the row is there.
    fn is_there(&mut self, worker: i32, row: i64) -> impl Future<Output = Result<bool, LedgerError>> + Send;
}

impl Session for Client {
    async fn row(&mut self, worker: Option<i32>, row: i64, doubt: &mut Option<Doubt>) -> Result<i32, LedgerError> {
        let transaction = self.transaction().await?;
        let inserted = match worker {
            Some(worker) => transaction.query_one(NEXT, &[&worker, &row]).await?,
            None => {
                transaction.batch_execute(LOCK).await?;
                // `IF NOT EXISTS` would need the right to make it where somebody else has made it.
                if transaction.query_one(IS_MISSING, &[]).await?.try_get(0)? {
                    transaction.batch_execute(CREATE).await?;
                }
                transaction.query_one(FIRST, &[]).await?
            }
        };
        let worker = inserted.try_get(0)?;
        *doubt = Some(Doubt {
            worker,
            transaction: inserted.try_get(1)?,
        });
        transaction.commit().await?;
        Ok(worker)
    }

    async fn status(&mut self, transaction: &str) -> Result<Option<String>, LedgerError> {
        match self.query_typed(STATUS, &[(&transaction, Type::TEXT)]).await {
            Ok(rows) => Ok(rows.first().map(|row| row.try_get(0)).transpose()?.flatten()),
            // A number that is given no more after a crash.
            Err(error) if error.code() == Some(&SqlState::INVALID_PARAMETER_VALUE) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn is_there(&mut self, worker: i32, row: i64) -> Result<bool, LedgerError> {
        let there = self
            .query_typed(IS_THERE, &[(&worker, Type::INT4), (&row, Type::INT8)])
            .await;
        match there {
            Ok(rows) => Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or_default()),
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(_) => f.write_str("the row is not committed"),
            Self::UnderWay => f.write_str("the server is still at what was sent to it before"),
        }
    }
}

impl Error for LedgerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Server(error) => Some(&**error),
            Self::UnderWay => None,
        }
    }
}

impl From<tokio_postgres::Error> for LedgerError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server(error.into())
    }
}
