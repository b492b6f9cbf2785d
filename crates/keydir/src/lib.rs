#![doc = include_str!("../README.md")]
//!
//! The rules that it follows are the key directory convention, version 1 (docs/convention.md in the repository).

mod beneath;
mod block;
mod changes;
mod clock;
mod credential;
mod dir;
mod error;
mod expiry;
mod follower;
mod graves;
mod interest;
mod job;
mod key;
mod keyset;
mod live;
mod name;
mod offers;
mod problem;
mod publication;
mod publisher;
mod read;
mod reconcile;
mod report;
mod scheduler;
mod secret;
mod set;
mod signal;
mod slot;
mod standing;
mod tick;
pub mod uses;
mod view;
mod watch;
mod workers;

pub use changes::{Change, Changes};
pub use clock::{Clock, SystemClock};
pub use credential::LONGEST_CREDENTIAL;
pub use dir::{Dir, DirBuilder, report};
pub use error::{OpenError, OpenErrorKind, ReadError, ReloadError, StartError};
pub use key::{Key, Use};
pub use keyset::{KeySet, KeyState};
pub use live::{Guard, Live, Reader};
pub use name::{FileName, NameError, RevisionId};
pub use problem::{Problem, Severity};
pub use publisher::{Files, PublishError, Publisher};
pub use report::{DirReport, Loads, Report, RevisionReport, SetReport};
pub use secret::{Fingerprint, Secret};
pub use standing::{Hold, NoPrimary};
pub use view::{Broken, Candidates, Parsed, Piece, Revision, Unusable, Usage, View};
