//! What a directory does with each of its sets, whatever their view.

use std::time::SystemTime;

use crate::publication::Publication;
use crate::report::SetReport;

/// What a directory does with each of its sets, whatever their view.
pub(crate) trait Slot: Send + Sync {
    fn knows(&self, part: &str) -> bool;
    fn is_private(&self, part: &str) -> bool;
    fn check(&self, check: &Check<'_>);
    /// Whether time alone changes something at `now`.
    fn is_due(&self, now: SystemTime) -> bool;
    fn next(&self) -> Option<SystemTime>;
    fn report(&self) -> SetReport;
}

/// What a check of a directory found.
pub(crate) struct Check<'a> {
    pub(crate) directory: &'a str,
    pub(crate) now: SystemTime,
    pub(crate) found: Found<'a>,
}

#[derive(Clone, Copy)]
pub(crate) enum Found<'a> {
    Publication {
        publication: &'a Publication,
        generation: u64,
        /// It is the one that was read last.
        same: bool,
    },
    /// The last publication still stands.
    Unchanged,
    /// The directory cannot be read.
    Fault,
}
