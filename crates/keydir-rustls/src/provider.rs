//! The cryptography to use where the caller names none, and its clock.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use keydir::Clock;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use rustls::server::ProducesTickets;
use rustls::time_provider::TimeProvider;

use crate::error::{BuildError, NoProvider};

/// The cryptography that is used where none is given: what the process has installed, else what the features bring.
/// Installs nothing.
///
/// # Errors
/// If there is none of either.
pub fn provider() -> Result<Arc<CryptoProvider>, NoProvider> {
    match CryptoProvider::get_default() {
        Some(provider) => Ok(Arc::clone(provider)),
        None => compiled::provider().map(Arc::new).ok_or(NoProvider),
    }
}

pub(crate) fn ticketer() -> Result<Arc<dyn ProducesTickets>, BuildError> {
    compiled::ticketer()
        .ok_or(BuildError::NoTicketer)?
        .map_err(BuildError::Rustls)
}

/// rustls's clock is the directory's, so that a handshake and its resumption are judged by one.
pub(crate) struct DirectoryTime(pub(crate) Arc<dyn Clock>);

impl TimeProvider for DirectoryTime {
    fn current_time(&self) -> Option<UnixTime> {
        let since_1970 = self.0.now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since_1970))
    }
}

impl fmt::Debug for DirectoryTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DirectoryTime")
    }
}

type Ticketer = Result<Arc<dyn ProducesTickets>, rustls::Error>;

#[cfg(feature = "aws-lc-rs")]
mod compiled {
    use super::{CryptoProvider, Ticketer};

    pub(super) fn provider() -> Option<CryptoProvider> {
        Some(rustls::crypto::aws_lc_rs::default_provider())
    }

    pub(super) fn ticketer() -> Option<Ticketer> {
        Some(rustls::crypto::aws_lc_rs::Ticketer::new())
    }
}

#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
mod compiled {
    use super::{CryptoProvider, Ticketer};

    pub(super) fn provider() -> Option<CryptoProvider> {
        Some(rustls::crypto::ring::default_provider())
    }

    pub(super) fn ticketer() -> Option<Ticketer> {
        Some(rustls::crypto::ring::Ticketer::new())
    }
}

#[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
mod compiled {
    use super::{CryptoProvider, Ticketer};

    pub(super) fn provider() -> Option<CryptoProvider> {
        None
    }

    pub(super) fn ticketer() -> Option<Ticketer> {
        None
    }
}
