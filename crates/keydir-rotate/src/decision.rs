//! What a directory needs, and why it has to wait.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use keydir::RevisionId;

/// What a directory needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is next, if anything is.
    pub next: Option<Step>,
    /// Why not now; if there are none, now.
    pub blocked: Vec<Reason>,
    /// Consumers that are waited for no longer.
    pub overdue: Vec<Reason>,
}

/// One change: one publication.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// To write down what is there.
    Adopt,
    /// To make the first revision, which is presented at once: nobody uses anything yet.
    Begin,
    /// To add the next revision.
    Stage,
    /// To move the mark to this one.
    Promote(RevisionId),
    /// To write down that no consumer presents this one any more.
    Release(RevisionId),
    /// To make anew what was made with this one.
    Migrate(RevisionId),
    /// To take this one away, of which nothing is in use.
    Retire(RevisionId),
    /// To have this one refused.
    Revoke(RevisionId),
    /// To trust this revision of the CA.
    Trust(RevisionId),
    /// To take away what was made outside for this one, which is gone.
    Destroy(RevisionId),
}

/// Why something has to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Until then, in seconds since 1970.
    Until(u64, Wait),
    /// The clock has jumped, so that time is counted anew: so many seconds more.
    ClockJumped(u64),
    /// The clock is behind what was published, by so many seconds.
    ClockBehind(u64),
    /// Somebody has paused the directory, and says why.
    Paused(String),
    /// Several revisions bear the mark, or several do not and none does.
    Ambiguous(Vec<RevisionId>),
    /// This consumer says nothing.
    Silent(String),
    /// This consumer has not looked for so many seconds.
    Stale(String, u64),
    /// The clock of this consumer is ahead, by so many seconds: nobody knows when it has looked.
    Ahead(String, u64),
    /// This consumer has not loaded the publication.
    NotLoaded(String),
    /// This consumer goes on with something else, or has set something aside.
    NotAdopted(String, BTreeSet<String>),
    /// So much rests on a revision at this consumer.
    Uses(String, RevisionId, u64),
    /// The CA in this directory has nothing to issue with.
    NoIssuer(PathBuf),
    /// This directory of anchors does not hold the CA's revision.
    NotTrusted(PathBuf, RevisionId),
    /// This directory of anchors holds another certificate by the name of the CA's revision.
    Clash(PathBuf, RevisionId),
    /// This directory of anchors still holds the CA's revision.
    StillTrusted(PathBuf, RevisionId),
    /// This directory holds a leaf, by this revision, of the CA's revision.
    LeafOf(PathBuf, RevisionId, RevisionId),
    /// This directory cannot be read.
    Unreadable(PathBuf),
    /// What has to happen in this directory first.
    Elsewhere(PathBuf, Box<Self>),
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// That it is time for the next rotation.
    Due,
    /// That a window opens.
    Window,
    /// That all who run have loaded the publication.
    Propagation,
    /// That what was made with the old revision is over.
    Overlap,
    /// That the last leaf has expired of which nobody knows where it is.
    LastLeaf,
}

impl Decision {
    pub(crate) fn nothing() -> Self {
        Self {
            next: None,
            blocked: Vec::new(),
            overdue: Vec::new(),
        }
    }

    pub(crate) fn now(step: Step) -> Self {
        Self {
            next: Some(step),
            ..Self::nothing()
        }
    }

    /// The first that may be done now; if none may, the first.
    pub(crate) fn first(decisions: impl IntoIterator<Item = Self>) -> Self {
        let mut waits = None;
        for decision in decisions {
            if decision.blocked.is_empty() && decision.next.is_some() {
                return decision;
            }
            waits = waits.or(Some(decision));
        }
        waits.unwrap_or_else(Self::nothing)
    }

    /// Consumers are waited for no longer.
    pub(crate) fn without_consumers(self) -> Self {
        let (overdue, blocked) = self.blocked.into_iter().partition(Reason::is_of_consumer);
        Self {
            blocked,
            overdue: [self.overdue, overdue].concat(),
            ..self
        }
    }

    /// What is to be done now.
    pub fn step(&self) -> Option<&Step> {
        self.next.as_ref().filter(|_| self.blocked.is_empty())
    }
}

impl Reason {
    /// Of a consumer of this very directory: how long those of another one are waited for is said there.
    fn is_of_consumer(&self) -> bool {
        matches!(
            self,
            Self::Silent(_)
                | Self::Stale(..)
                | Self::Ahead(..)
                | Self::NotLoaded(_)
                | Self::NotAdopted(..)
                | Self::Uses(..)
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adopt => f.write_str("adopt"),
            Self::Begin => f.write_str("begin"),
            Self::Stage => f.write_str("stage"),
            Self::Promote(id) => write!(f, "promote {id}"),
            Self::Release(id) => write!(f, "release {id}"),
            Self::Migrate(id) => write!(f, "migrate from {id}"),
            Self::Retire(id) => write!(f, "retire {id}"),
            Self::Revoke(id) => write!(f, "revoke {id}"),
            Self::Trust(id) => write!(f, "trust {id}"),
            Self::Destroy(id) => write!(f, "destroy what was made for {id}"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = |seconds: &u64| humantime::format_duration(Duration::from_secs(*seconds));
        match self {
            Self::Until(at, wait) => {
                // RFC 3339 ends with the year 9999.
                let at = (*at).min(253_402_300_799);
                let at = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(at));
                let why = match wait {
                    Wait::Due => "the next rotation is due",
                    Wait::Window => "a window opens",
                    Wait::Propagation => "all have had the time to load it",
                    Wait::Overlap => "what was made with the old one is over",
                    Wait::LastLeaf => "the last leaf expires that was given away",
                };
                write!(f, "not before {at}, when {why}")
            }
            Self::ClockJumped(left) => write!(f, "the clock has jumped: waits are counted anew, {} more", length(left)),
            Self::ClockBehind(by) => write!(f, "the clock is {} behind what was published: set it", length(by)),
            Self::Paused(reason) => write!(f, "it is paused: {reason}"),
            Self::Ambiguous(ids) => {
                let ids: Vec<_> = ids.iter().map(RevisionId::as_str).collect();
                write!(f, "{} may be the primary: mark one of them", ids.join(" or "))
            }
            Self::Silent(name) => write!(f, "{name} says nothing"),
            Self::Stale(name, age) => write!(f, "{name} has not looked for {}", length(age)),
            Self::Ahead(name, by) => write!(f, "the clock of {name} is {} ahead", length(by)),
            Self::NotLoaded(name) => write!(f, "{name} has not loaded the publication"),
            Self::NotAdopted(name, what) => {
                let what: Vec<_> = what.iter().map(String::as_str).collect();
                write!(f, "{name} has not adopted the publication: {}", what.join("; "))
            }
            Self::Uses(name, id, uses) => write!(f, "{name} has {uses} uses of {id}"),
            Self::NoIssuer(path) => write!(f, "the CA in {} has nothing to issue with", path.display()),
            Self::NotTrusted(path, id) => write!(f, "{id} is not in {} yet", path.display()),
            Self::Clash(path, id) => write!(f, "{id} in {} is not of the CA: give it another name", path.display()),
            Self::StillTrusted(path, id) => write!(f, "{id} is still in {}", path.display()),
            Self::LeafOf(path, leaf, ca) => write!(f, "{leaf} in {} is of {ca}", path.display()),
            Self::Unreadable(path) => write!(f, "{} cannot be read", path.display()),
            Self::Elsewhere(path, reason) => write!(f, "{}: {reason}", path.display()),
        }
    }
}
