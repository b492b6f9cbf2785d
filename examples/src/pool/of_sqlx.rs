//! The same rows by sqlx.

use sqlx::{Acquire, PgConnection, Row};

use super::ledger::{CREATE, Doubt, FIRST, IS_MISSING, IS_THERE, LOCK, LedgerError, NEXT, STATUS, Session};

/// `invalid_parameter_value` and `undefined_table`.
const NO_SUCH_NUMBER: &str = "22023";
const NO_SUCH_TABLE: &str = "42P01";

impl Session for PgConnection {
    async fn row(&mut self, worker: Option<i32>, row: i64, doubt: &mut Option<Doubt>) -> Result<i32, LedgerError> {
        let mut transaction = self.begin().await?;
        let inserted = match worker {
            Some(worker) => {
                sqlx::query(NEXT)
                    .bind(worker)
                    .bind(row)
                    .fetch_one(&mut *transaction)
                    .await?
            }
            None => {
                sqlx::query(LOCK).execute(&mut *transaction).await?;
                if sqlx::query_scalar(IS_MISSING).fetch_one(&mut *transaction).await? {
                    sqlx::query(CREATE).execute(&mut *transaction).await?;
                }
                sqlx::query(FIRST).fetch_one(&mut *transaction).await?
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
        match sqlx::query_scalar(STATUS).bind(transaction).fetch_one(self).await {
            Ok(status) => Ok(status),
            Err(error) if is(&error, NO_SUCH_NUMBER) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn is_there(&mut self, worker: i32, row: i64) -> Result<bool, LedgerError> {
        match sqlx::query_scalar(IS_THERE)
            .bind(worker)
            .bind(row)
            .fetch_one(self)
            .await
        {
            Ok(there) => Ok(there),
            Err(error) if is(&error, NO_SUCH_TABLE) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn is(error: &sqlx::Error, code: &str) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.code().as_deref() == Some(code))
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        Self::Server(error.into())
    }
}
