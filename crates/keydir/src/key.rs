//! One revision in force, and what may be asked of it while it is used.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::name::RevisionId;
use crate::offers::Made;
use crate::signal::Signal;
use crate::tick;
use crate::view::Piece;

/// One revision of a secret, parsed: derefs to what the view made of it.
///
/// A `Key` stays what it is for ever. When its revision is revoked, [`stands`](Self::stands) turns false and
/// [`ended`](Self::ended) resolves; unchanged content keeps its `Key` across publications.
pub struct Key<T> {
    id: RevisionId,
    item: Arc<T>,
    pieces: Vec<Piece>,
    pub(crate) derivation: u64,
    pub(crate) revoked: Arc<Signal>,
    pub(crate) superseded: Arc<Signal>,
    pub(crate) census: Arc<Census>,
}

/// How much a revision is used.
#[derive(Debug, Default)]
pub(crate) struct Census {
    uses: AtomicUsize,
    /// Seconds since 1970; 0 is never.
    last_use: AtomicU64,
}

impl Census {
    pub(crate) fn uses(&self) -> usize {
        self.uses.load(Ordering::Relaxed)
    }

    pub(crate) fn last_use(&self) -> Option<u64> {
        Some(self.last_use.load(Ordering::Relaxed)).filter(|seconds| *seconds > 0)
    }
}

impl<T> Key<T> {
    pub(crate) fn new(id: RevisionId, made: &Made<T>, derivation: u64, revoked: Arc<Signal>) -> Self {
        Self {
            id,
            item: Arc::clone(&made.item),
            pieces: made.pieces.clone(),
            derivation,
            revoked,
            superseded: Arc::default(),
            census: Arc::default(),
        }
    }

    /// The revision's id.
    pub fn id(&self) -> &RevisionId {
        &self.id
    }

    /// What has dates of its own in it: the leaf of an identity, the certificates of an anchor set.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    pub(crate) fn item(&self) -> &Arc<T> {
        &self.item
    }

    /// Whether the revision has not been revoked since this `Key` was made. One atomic load: what gates, pools and
    /// caches ask before each use. A primary that goes on being presented after its revocation is a new `Key`.
    pub fn stands(&self) -> bool {
        !self.revoked.is_raised()
    }

    /// Resolves when the revision is revoked; at once if it was. Needs no runtime, keeps no `Key` alive.
    ///
    /// # Cancel safety
    /// May be dropped and asked for again at any time; nothing is missed.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        Arc::clone(&self.revoked).wait()
    }

    /// Whether the revision was the primary and no longer is, or its content was replaced, or it is not in force any
    /// more. One that becomes the primary once more is a new `Key`.
    pub fn is_superseded(&self) -> bool {
        self.superseded.is_raised()
    }

    /// Resolves when the revision [is superseded](Self::is_superseded).
    ///
    /// # Cancel safety
    /// May be dropped and asked for again at any time; nothing is missed.
    pub fn superseded(&self) -> impl Future<Output = ()> + Send + 'static {
        Arc::clone(&self.superseded).wait()
    }

    /// Counts something that rests on this revision (a connection, a session) in the report, while it is alive.
    pub fn hold(&self) -> Use {
        self.census.uses.fetch_add(1, Ordering::Relaxed);
        Use(Arc::clone(&self.census))
    }

    /// Notes for the report that the revision has just been used, to about 10 seconds. Call it after success only.
    pub fn touch(&self) {
        self.census.last_use.store(tick::now(), Ordering::Relaxed);
    }
}

impl<T> Deref for Key<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.item
    }
}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("stands", &self.stands())
            .finish_non_exhaustive()
    }
}

/// A counted use of a revision; see [`Key::hold`].
#[derive(Debug)]
#[must_use = "the use is counted for as long as this is kept"]
pub struct Use(Arc<Census>);

impl Drop for Use {
    fn drop(&mut self) {
        self.0.uses.fetch_sub(1, Ordering::Relaxed);
    }
}
