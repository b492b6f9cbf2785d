//! Why nobody could log in.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use keydir::{NoPrimary, RevisionId};

use crate::refused::Refused;

/// Why there is no connection: every revision that was tried, and what the server said to it. No secrets.
#[derive(Clone, Debug)]
pub struct LoginError {
    directory: Arc<str>,
    reason: Reason,
    tries: Vec<Try>,
}

#[derive(Clone, Debug)]
pub(crate) enum Reason {
    NoPrimary(NoPrimary),
    Refused,
    Resting(Duration),
}

/// One try.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Try {
    /// The revision.
    pub revision: RevisionId,
    /// What the failure says of it.
    pub refused: Refused,
    /// The failure, mostly a [`tokio_postgres::Error`].
    pub error: Arc<dyn Error + Send + Sync>,
}

impl Try {
    pub(crate) fn new(revision: &RevisionId, refused: Refused, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            revision: revision.clone(),
            refused,
            error: error.into().into(),
        }
    }
}

impl LoginError {
    pub(crate) fn new(directory: &str, reason: Reason, tries: Vec<Try>) -> Self {
        Self {
            directory: directory.into(),
            reason,
            tries,
        }
    }

    /// What was tried, in this order; where all are left alone, how each was refused last.
    pub fn tries(&self) -> &[Try] {
        &self.tries
    }
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key directory {}: ", self.directory)?;
        match &self.reason {
            Reason::NoPrimary(reason) => return write!(f, "nothing to log in with: {reason}"),
            Reason::Refused => f.write_str("cannot log in")?,
            Reason::Resting(left) => write!(
                f,
                "not tried for another {:.1} s, since every login was refused: publish one that works",
                left.as_secs_f64()
            )?,
        }
        for failed in &self.tries {
            write!(f, "; with {}: {}", failed.revision, failed.error)?;
            let mut cause = failed.error.source();
            while let Some(error) = cause {
                write!(f, ": {error}")?;
                cause = error.source();
            }
        }
        Ok(())
    }
}

impl Error for LoginError {}
