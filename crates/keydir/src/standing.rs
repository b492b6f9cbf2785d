//! How things stand where they are not simply good: what is held and why, and why there is no primary.

use std::fmt;
use std::sync::Arc;

use crate::name::RevisionId;

/// Why a revision is in force that the last check did not find usable.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "rule", content = "reason", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Hold {
    /// The directory cannot be read (rule 4a).
    Unreadable,
    /// Its files are there, but no longer usable (rule 4b).
    Unusable(String),
    /// It is gone, and nothing else is left that is usable (rule 4c).
    Gone,
    /// New content under its id may not take its place yet.
    Replacement(String),
}

/// Why the designated primary is not simply what is presented. Cheap to clone; says what to do.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "code", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NoPrimary {
    /// Several revisions are marked.
    Ambiguous {
        /// The marked ones.
        ids: Arc<[RevisionId]>,
    },
    /// No revision is marked.
    Unmarked,
    /// No revision has all parts of the use.
    Missing,
    /// The primary's validity has not begun.
    Pending {
        /// The primary.
        id: RevisionId,
    },
    /// The primary cannot be used.
    Unusable {
        /// The primary.
        id: RevisionId,
        /// Why.
        reason: Arc<str>,
    },
    /// The primary has expired, and the last good one is still valid.
    Expired {
        /// The primary.
        id: RevisionId,
    },
    /// The last good primary was revoked, and this use stops then.
    Revoked {
        /// The one that was revoked.
        id: RevisionId,
    },
    /// This use accepts, and never presents.
    AcceptOnly,
}

impl NoPrimary {
    /// The short, stable name of the reason.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Ambiguous { .. } => "ambiguous",
            Self::Unmarked => "unmarked",
            Self::Missing => "missing",
            Self::Pending { .. } => "pending",
            Self::Unusable { .. } => "unusable",
            Self::Expired { .. } => "expired",
            Self::Revoked { .. } => "revoked",
            Self::AcceptOnly => "accept-only",
        }
    }
}

impl fmt::Display for NoPrimary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ambiguous { ids } => {
                let ids: Vec<_> = ids.iter().map(RevisionId::as_str).collect();
                write!(
                    f,
                    "several revisions are marked .primary ({}): leave one mark",
                    ids.join(", ")
                )
            }
            Self::Unmarked => f.write_str("no revision is marked .primary: mark one"),
            Self::Missing => f.write_str("no revision has all parts of the use: publish one"),
            Self::Pending { id } => write!(
                f,
                "the validity of the primary {id} has not begun: wait, or mark another"
            ),
            Self::Unusable { id, reason } => write!(
                f,
                "the primary {id} cannot be used ({reason}): publish another under a new id"
            ),
            Self::Expired { id } => write!(f, "the primary {id} has expired: rotate"),
            Self::Revoked { id } => write!(
                f,
                "the last primary {id} was revoked and no other is marked: mark another"
            ),
            Self::AcceptOnly => f.write_str("this use accepts and never presents"),
        }
    }
}

impl std::error::Error for NoPrimary {}
