//! What is wanted of one directory.

use crate::window::Windows;

/// When one directory moves. All lengths are in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// From the end of a rotation to the next one; `None` if it only rotates when it is told to, or by the life of a
    /// certificate.
    pub every: Option<u64>,
    /// So long it takes, at most, until every consumer that runs has loaded a publication.
    pub propagation: u64,
    /// So long what was made with a revision may be in use after another has taken its place.
    pub overlap: u64,
    /// A consumer that does not confirm a publication is waited for so long; for ever without this.
    pub deadline: Option<u64>,
    /// What a consumer has said counts for so long.
    pub fresh: u64,
    /// Clocks differ by so much, at most.
    pub skew: u64,
    /// When rotations may move on by themselves; at any time if there are none.
    pub windows: Windows,
    /// Whether something must be made anew before the old revision may go.
    pub migrates: bool,
}
