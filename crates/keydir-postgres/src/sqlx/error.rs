//! Why there is no pool of sqlx.

use std::error::Error;
use std::fmt;

use keydir::RevisionId;
use keydir_rustls::NoProvider;

use crate::error::LoginError;

/// Why there is no pool. No secrets.
#[derive(Debug)]
#[non_exhaustive]
pub enum SqlxError {
    /// There is no cryptography.
    NoProvider(NoProvider),
    /// [`SslMode::VerifyCa`](crate::SslMode::VerifyCa) was asked for. sqlx trusts the public CAs beside those that it is
    /// given, so that whoever has a certificate of one would pass.
    VerifyCa,
    /// The password of this revision is not UTF-8, which sqlx takes alone.
    NotText(RevisionId),
    /// No login has worked.
    Login(LoginError),
    /// One has worked, but not for sqlx.
    Sqlx(sqlx::Error),
}

impl fmt::Display for SqlxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProvider(error) => error.fmt(f),
            Self::VerifyCa => f.write_str(
                "with sqlx, which trusts the public CAs too, verify-ca keeps nobody out: use SslMode::VerifyFull",
            ),
            Self::NotText(revision) => write!(f, "the password of {revision} is not UTF-8, which sqlx takes alone"),
            Self::Login(error) => error.fmt(f),
            Self::Sqlx(error) => write!(f, "the login works, but sqlx cannot connect: {error}"),
        }
    }
}

impl Error for SqlxError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NoProvider(error) => error.source(),
            Self::Login(error) => error.source(),
            Self::Sqlx(error) => error.source(),
            Self::VerifyCa | Self::NotText(_) => None,
        }
    }
}
