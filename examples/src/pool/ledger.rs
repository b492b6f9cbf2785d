//! Rows of a ledger, one a transaction: a commit of which nobody has heard is looked for before it is tried again.

use std::error::Error;
use std::fmt;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row, Transaction};

/// Held by whoever makes the table or looks for a number that no other worker has. Any number does.
const LOCK: &str = "SELECT pg_advisory_xact_lock(8243116853)";
const IS_MISSING: &str = "SELECT to_regclass('keydir_ledger') IS NULL";
const CREATE: &str = "CREATE TABLE keydir_ledger (worker int, seq bigint)";
const FIRST: &str = "INSERT INTO keydir_ledger SELECT coalesce(max(worker), 0) + 1, 1 FROM keydir_ledger \
                     RETURNING worker, pg_current_xact_id()::text";
const NEXT: &str = "INSERT INTO keydir_ledger VALUES ($1, $2) RETURNING worker, pg_current_xact_id()::text";
const STATUS: &str = "SELECT pg_xact_status($1::xid8)";
const IS_THERE: &str = "SELECT EXISTS (SELECT FROM keydir_ledger WHERE worker = $1 AND seq = $2)";

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

#[derive(Debug)]
struct Doubt {
    worker: i32,
    transaction: String,
}

/// Why a row is not committed, as far as is known.
#[derive(Debug)]
pub enum LedgerError {
    /// The server says so, or does not say anything.
    Server(tokio_postgres::Error),
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
    pub async fn commit(&mut self, client: &mut Client) -> Result<(), LedgerError> {
        let row = self.rows + 1;
        if let Some(doubt) = &self.doubt {
            if doubt.is_committed(client, row).await? {
                self.is_committed(doubt.worker);
                return Ok(());
            }
            self.doubt = None;
        }
        let transaction = client.transaction().await?;
        let doubt = match self.worker {
            None => first(&transaction).await?,
            Some(worker) => next(&transaction, worker, row).await?,
        };
        let worker = doubt.worker;
        self.doubt = Some(doubt);
        transaction.commit().await?;
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
    async fn is_committed(&self, client: &Client, row: i64) -> Result<bool, LedgerError> {
        let goes_on = |row: &Row| matches!(row.try_get(0), Ok(Some("in progress")));
        let status = client.query_typed(STATUS, &[(&self.transaction, Type::TEXT)]).await;
        match status {
            Ok(rows) if rows.iter().any(goes_on) => return Err(LedgerError::UnderWay),
            Ok(_) => {}
            // A number that is given no more after a crash.
            Err(error) if error.code() == Some(&SqlState::INVALID_PARAMETER_VALUE) => {}
            Err(error) => return Err(error.into()),
        }
        let there = client
            .query_typed(IS_THERE, &[(&self.worker, Type::INT4), (&row, Type::INT8)])
            .await;
        match there {
            Ok(rows) => Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or_default()),
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

async fn first(transaction: &Transaction<'_>) -> Result<Doubt, tokio_postgres::Error> {
    transaction.batch_execute(LOCK).await?;
    // `IF NOT EXISTS` would need the right to make it where somebody else has made it.
    if transaction.query_one(IS_MISSING, &[]).await?.try_get(0)? {
        transaction.batch_execute(CREATE).await?;
    }
    doubt(transaction.query_one(FIRST, &[]).await?)
}

async fn next(transaction: &Transaction<'_>, worker: i32, row: i64) -> Result<Doubt, tokio_postgres::Error> {
    doubt(transaction.query_one(NEXT, &[&worker, &row]).await?)
}

fn doubt(row: Row) -> Result<Doubt, tokio_postgres::Error> {
    Ok(Doubt {
        worker: row.try_get(0)?,
        transaction: row.try_get(1)?,
    })
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
            Self::Server(error) => Some(error),
            Self::UnderWay => None,
        }
    }
}

impl From<tokio_postgres::Error> for LedgerError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server(error)
    }
}
