//! Why a program ends before its time, and how the causes of an error are told in one line.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use deadpool::managed;
use keydir::PublishError;
use keydir_hyper::InvalidOrigin;
use keydir_rustls::{BuildError, NoProvider, OpenError};

/// Why a program could not go on.
#[derive(Debug)]
pub enum Failure {
    /// A key directory cannot be opened.
    Open(OpenError),
    /// rustls refuses the configuration.
    Config(BuildError),
    /// The address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// The system refuses something that every program needs.
    System(&'static str, io::Error),
    /// Nobody reads what is printed.
    Output(io::Error),
    /// A set was not published.
    Publish(PublishError),
    /// A certificate cannot be made.
    Certificate(rcgen::Error),
    /// TLS without keydir, as the demo's intruder uses it, cannot be set up.
    Tls(keydir_rustls::rustls::Error),
    /// A credential cannot be bound to where requests go.
    Origin(InvalidOrigin),
    /// There is no cryptography.
    Cryptography(NoProvider),
    /// A pool refuses its configuration.
    Pool(managed::BuildError),
    /// A pool of sqlx cannot be made.
    #[cfg(feature = "sqlx")]
    Sqlx(keydir_postgres::SqlxError),
    /// What the demo waited for did not happen.
    Waited(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => error.fmt(f),
            Self::Config(error) => error.fmt(f),
            Self::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::System(action, error) => write!(f, "cannot {action}: {error}"),
            Self::Output(error) => write!(f, "cannot print: {error}"),
            Self::Publish(error) => error.fmt(f),
            Self::Certificate(error) => write!(f, "cannot make a certificate: {error}"),
            Self::Tls(error) => write!(f, "rustls refuses the configuration: {error}"),
            Self::Origin(error) => error.fmt(f),
            Self::Cryptography(error) => error.fmt(f),
            Self::Pool(error) => write!(f, "there is no pool: {error}"),
            #[cfg(feature = "sqlx")]
            Self::Sqlx(error) => write!(f, "there is no pool: {}", causes(error)),
            Self::Waited(what) => f.write_str(what),
        }
    }
}

impl Error for Failure {}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self::Config(error)
    }
}

#[cfg(feature = "sqlx")]
impl From<keydir_postgres::SqlxError> for Failure {
    fn from(error: keydir_postgres::SqlxError) -> Self {
        Self::Sqlx(error)
    }
}

impl From<keydir::OpenError> for Failure {
    fn from(error: keydir::OpenError) -> Self {
        Self::Open(error.into())
    }
}

impl From<InvalidOrigin> for Failure {
    fn from(error: InvalidOrigin) -> Self {
        Self::Origin(error)
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        Self::Publish(error)
    }
}

impl From<rcgen::Error> for Failure {
    fn from(error: rcgen::Error) -> Self {
        Self::Certificate(error)
    }
}

impl From<keydir_rustls::rustls::Error> for Failure {
    fn from(error: keydir_rustls::rustls::Error) -> Self {
        Self::Tls(error)
    }
}

impl From<NoProvider> for Failure {
    fn from(error: NoProvider) -> Self {
        Self::Cryptography(error)
    }
}

impl From<managed::BuildError> for Failure {
    fn from(error: managed::BuildError) -> Self {
        Self::Pool(error)
    }
}

/// An error with everything that caused it, in one line. Many libraries repeat the cause in their own text; what was
/// said already is not said again.
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Self>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|layer| layer as _)
        }
    }

    #[test]
    fn each_cause_is_told_once() {
        let root = Layer("certificate expired", None);
        let tls = Layer("tls: certificate expired", Some(Box::new(root)));
        let request = Layer("request failed", Some(Box::new(tls)));
        assert_eq!(causes(&request), "request failed: tls: certificate expired");
    }
}
