//! The logins in a directory.

use std::path::Path;
use std::sync::Arc;

use keydir::{Dir, Key, Live, NoPrimary};
use keydir_rustls::{OpenError, crypto_provider};

use crate::view::{Credential, CredentialsView};

/// The logins in a directory: new connections are made with the primary. Cheap to clone.
///
/// A revision is a `password` with a `username`, or with its id as the user's name; a `crt` and a `key` beside it are
/// shown to servers that ask for a certificate. User, password and certificate of a login are always of one revision.
///
/// ```no_run
/// let credentials = keydir_postgres::Credentials::open("/run/secrets/db")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Credentials {
    live: Live<CredentialsView>,
}

impl Credentials {
    /// Opens a directory of passwords and follows it.
    ///
    /// # Errors
    /// If there is nothing to log in with; see [`keydir::OpenError`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::in_dir(&Dir::open(path)?)
    }

    /// The passwords in a directory that is open already. For the files `username` and `password` alone, open it
    /// [`flat`](keydir::DirBuilder::flat).
    ///
    /// ```no_run
    /// let dir = keydir::Dir::builder("/run/secrets/db").flat().open()?;
    /// let credentials = keydir_postgres::Credentials::in_dir(&dir)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn in_dir(dir: &Dir) -> Result<Self, OpenError> {
        Ok(Self {
            live: dir.view(CredentialsView::passwords(crypto_provider()?))?,
        })
    }

    /// Logins by certificate alone: a revision is a `crt` and a `key`, with a `username`, or with its id as the user's
    /// name.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn certificates(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::certificates_in_dir(&Dir::open(path)?)
    }

    /// Likewise, in a directory that is open already.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn certificates_in_dir(dir: &Dir) -> Result<Self, OpenError> {
        Ok(Self {
            live: dir.view(CredentialsView::certificates(crypto_provider()?))?,
        })
    }

    /// What a new connection is made with at this moment, or why with nothing.
    pub fn primary(&self) -> Result<Arc<Key<Credential>>, NoPrimary> {
        self.live.primary()
    }

    /// The live set, to subscribe to or to look into.
    pub fn live(&self) -> &Live<CredentialsView> {
        &self.live
    }
}
