//! What is known of a directory at one moment.

use std::collections::BTreeMap;

use keydir::RevisionId;

use crate::consumer::Consumer;
use crate::decision::Reason;
use crate::holding::Holding;
use crate::state::{Phase, State};

/// What is known of a directory at one moment.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// What lies in it.
    pub holding: Holding,
    /// What is remembered; `None` if nobody has looked after it yet.
    pub state: Option<State>,
    /// Its consumers. If there are none, the waits alone decide.
    pub consumers: Vec<Consumer>,
    /// The life of each certificate that is presented: from, until.
    pub lives: BTreeMap<RevisionId, (u64, u64)>,
    /// What other directories have to do with it.
    pub links: Links,
}

/// The time.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// In seconds since 1970.
    pub wall: u64,
    /// If the clock was seen to jump: how many seconds have passed since then, by a clock that does not. Waits have to last
    /// so long too.
    pub since_jump: Option<u64>,
}

/// What other directories have to do with one: those of a CA, of its anchors, and of the leaves that it issues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Why no revision can be made.
    pub make: Vec<Reason>,
    /// Why the next revision may not be presented yet.
    pub promote: Vec<Reason>,
    /// Why a revision may not go yet.
    pub retire: BTreeMap<RevisionId, Vec<Reason>>,
    /// The primary is to be made anew: its issuer is on its way out.
    pub renew: bool,
    /// Which revision of the CA issues.
    pub issuer: Option<RevisionId>,
    /// A revision of the CA is compromised: no pause and no window counts.
    pub emergency: bool,
    /// The revisions of the CA whose anchors these are.
    pub anchors: BTreeMap<RevisionId, Phase>,
}
