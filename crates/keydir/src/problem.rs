//! What is wrong with a directory, in words that its owner can act on.

use std::fmt;

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// Everything works; somebody should look.
    Warning,
    /// Something does not do what its writer meant.
    Error,
}

/// One thing that was found in a directory. Never holds a byte of a file's content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[non_exhaustive]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// A short, stable name, such as `stray` or `unusable`.
    pub code: &'static str,
    /// Why, where a code alone says too little: of an unusable revision `key-mismatch`, `not-a-ca` and the like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<&'static str>,
    /// The file name or revision id that it is about; the use's name where it is about the whole.
    pub subject: String,
    /// What is the case.
    pub message: String,
    /// What to do about it.
    pub advice: &'static str,
}

impl Problem {
    pub(crate) fn new(code: &'static str, subject: impl Into<String>, message: impl Into<String>) -> Self {
        let (severity, advice) = meaning(code);
        Self {
            severity,
            code,
            cause: None,
            subject: subject.into(),
            message: message.into(),
            advice,
        }
    }

    /// The short name of the reason.
    pub(crate) fn because(mut self, cause: &'static str) -> Self {
        self.cause = Some(cause);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            subject,
            message,
            code,
            advice,
            ..
        } = self;
        match self.cause {
            Some(cause) => write!(f, "{subject}: {message} ({code}, {cause}): {advice}"),
            None => write!(f, "{subject}: {message} ({code}): {advice}"),
        }
    }
}

/// The severity and the advice of each code, in one place.
fn meaning(code: &str) -> (Severity, &'static str) {
    use Severity::{Error, Warning};
    match code {
        "stray" => (Warning, "remove it, or name it <revision>.<part>"),
        "stray-marker" => (Error, "somebody meant to revoke: name the marker <revision>.revoked"),
        "unknown-part" => (
            Warning,
            "remove it, or open the directory for the use that it belongs to",
        ),
        "case-clash" => (Warning, "give the ids names that differ in more than case"),
        "not-regular" => (Error, "put a regular file there, or remove it"),
        "link" => (Error, "let the link point to a regular file inside the directory"),
        "too-large" => (
            Error,
            "a secret of this size is a mistake; remove it, or raise the limit",
        ),
        "unreadable-file" => (Error, "let the service read it: check owner, mode and the storage"),
        "exposed" => (Warning, "take the read permission from group and others"),
        "unusable" => (Error, "publish a correct revision under a new id"),
        "pending" => (
            Warning,
            "wait until its validity begins, and date notBefore 5 minutes back",
        ),
        "expired" => (Error, "rotate: publish a revision that is valid"),
        "duplicate" => (Warning, "remove one of the copies"),
        "duplicate-revoked" => (
            Error,
            "a copy of something revoked is still accepted: remove it or revoke it too",
        ),
        "reused-id" => (Warning, "give each content an id of its own"),
        "returned" => (Warning, "make sure that it was meant to come back"),
        "ambiguous" => (Error, "leave exactly one revision marked .primary"),
        "unmarked" => (Error, "mark one revision .primary"),
        "missing" => (Error, "publish a revision with all parts of the use"),
        "revoked" => (Error, "publish and mark another revision"),
        "crl-gone" => (
            Error,
            "publish the current CRL with it; one that revokes nothing, if so it is meant",
        ),
        "not-combined" => (Error, "see the message; the last set that could be combined goes on"),
        _ => (Error, "see the message"),
    }
}
