//! Why a command ends without a result, and the exit codes that say so.

use std::fmt;
use std::io;

/// Done, and nothing that is an error was found.
pub(crate) const FINE: u8 = 0;
/// Errors were found, or the publication was refused.
pub(crate) const ERRORS: u8 = 1;
/// The command line is wrong, or something named in it cannot be read.
pub(crate) const UNUSABLE: u8 = 2;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line makes no sense.
    Usage(String),
    /// Something that was named cannot be read.
    Unreadable(String),
    /// Standard output cannot be written to.
    Output(io::Error),
}

impl Failure {
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Unreadable(_) => UNUSABLE,
            // Whoever read the output has seen enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => FINE,
            Self::Output(_) => UNUSABLE,
        }
    }

    /// Whether there is nobody to tell.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Unreadable(text) => f.write_str(text),
            Self::Output(error) => write!(f, "cannot write to standard output: {error}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}
