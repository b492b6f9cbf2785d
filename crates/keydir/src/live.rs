//! The handles on a set that follows its directory.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;

use crate::block::block_on;
use crate::dir::Dir;
use crate::error::{OpenError, OpenErrorKind, StartError};
use crate::key::Key;
use crate::keyset::KeySet;
use crate::set::Set;
use crate::slot::Slot;
use crate::standing::NoPrimary;
use crate::view::View;

impl Dir {
    /// Reads the directory for one use. Several views of one directory are made of the same publications.
    ///
    /// # Errors
    /// If there is nothing to present, or nothing to accept, for a use that does; see [`OpenError`].
    pub fn view<V: View>(&self, view: V) -> Result<Live<V>, OpenError> {
        block_on(self.view_async(view))
    }

    /// [`view`](Self::view) for async callers.
    ///
    /// # Errors
    /// As [`view`](Self::view).
    pub async fn view_async<V: View>(&self, view: V) -> Result<Live<V>, OpenError> {
        let usage = view.usage().name();
        let follower = self.follower();
        let fail = |error| OpenError::new(follower.name(), OpenErrorKind::Start { usage, error });
        let set = Set::new(view, follower.settings().allow_empty, self.clock().now())
            .map_err(|broken| fail(StartError::View(broken.to_string())))?;
        let set = Arc::new(set);
        let slot: Arc<dyn Slot> = Arc::<Set<V>>::clone(&set);
        follower.add(&slot);
        let start = || match set.started() {
            Ok(()) => Ok(()),
            Err(StartError::Unreadable) => Err(follower.read().err().unwrap_or_else(|| fail(StartError::Unreadable))),
            Err(error) => Err(fail(error)),
        };
        follower.settle(start).await?;
        Ok(Live::new(set, self.clone()))
    }
}

/// A typed key set that follows its directory. Cheap to clone; all clones see the same swaps.
///
/// ```
/// # use keydir::{Broken, Candidates, Dir, Parsed, Revision, Unusable, Usage, View};
/// # struct ApiKeys;
/// # impl View for ApiKeys {
/// #     type Item = String;
/// #     type Whole = ();
/// #     fn usage(&self) -> &Usage {
/// #         const USAGE: Usage = Usage::new("api-key").naming(&[&["token"]]).text(&["token"]).presents().accepts();
/// #         &USAGE
/// #     }
/// #     fn parse(&self, revision: &Revision<'_>) -> Result<Parsed<String>, Unusable> {
/// #         Ok(Parsed::new(revision.text("token")?.to_owned()))
/// #     }
/// #     fn combine(&self, _: &Candidates<'_, String>) -> Result<(), Broken> { Ok(()) }
/// # }
/// let dir = Dir::in_memory([("r1.token.primary", "one")]);
/// let keys = dir.view(ApiKeys)?;
/// let key = keys.primary()?;
/// assert_eq!((key.id().as_str(), key.as_str()), ("r1", "one"));
///
/// dir.publish([("r2.token.primary", "two")])?;
/// assert_eq!(keys.primary()?.as_str(), "two");
/// assert!(!key.stands());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Live<V: View> {
    /// The one of `set`, one pointer nearer.
    current: Arc<ArcSwap<KeySet<V>>>,
    pub(crate) set: Arc<Set<V>>,
    dir: Dir,
}

impl<V: View> Live<V> {
    pub(crate) fn new(set: Arc<Set<V>>, dir: Dir) -> Self {
        Self {
            current: Arc::clone(set.current()),
            set,
            dir,
        }
    }

    /// What to present now, or why there is nothing. For hot paths take [`load`](Self::load).
    pub fn primary(&self) -> Result<Arc<Key<V::Item>>, NoPrimary> {
        self.load().primary().cloned().map_err(Clone::clone)
    }

    /// The set of this moment, for a short scope: no lock, no allocation, no system call. Do not keep it across an
    /// `.await` or for long; take a [`snapshot`](Self::snapshot) for that.
    #[inline]
    pub fn load(&self) -> Guard<V> {
        Guard(self.current.load())
    }

    /// The set of this moment, to keep.
    pub fn snapshot(&self) -> Arc<KeySet<V>> {
        self.current.load_full()
    }

    /// A handle for loops that asks only whether the pointer was swapped.
    pub fn reader(&self) -> Reader<V> {
        Reader {
            cache: Cache::new(Arc::clone(&self.current)),
            live: self.clone(),
        }
    }

    /// The directory that this set follows.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The view that reads the directory.
    pub fn view(&self) -> &V {
        self.set.view()
    }
}

impl<V: View> Clone for Live<V> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.set), self.dir.clone())
    }
}

impl<V: View> fmt::Debug for Live<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("usage", &self.view().usage().name)
            .field("set", &**self.load())
            .finish_non_exhaustive()
    }
}

/// A borrowed [`KeySet`]; see [`Live::load`].
#[must_use]
pub struct Guard<V: View>(arc_swap::Guard<Arc<KeySet<V>>>);

impl<V: View> Deref for Guard<V> {
    type Target = Arc<KeySet<V>>;

    #[inline]
    fn deref(&self) -> &Arc<KeySet<V>> {
        &self.0
    }
}

impl<V: View> fmt::Debug for Guard<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A cached reader of a [`Live`] set; see [`Live::reader`].
pub struct Reader<V: View> {
    cache: Cache<Arc<ArcSwap<KeySet<V>>>, Arc<KeySet<V>>>,
    live: Live<V>,
}

impl<V: View> Reader<V> {
    /// The set of this moment: one relaxed load and a comparison, as long as it was not swapped.
    #[inline]
    pub fn load(&mut self) -> &KeySet<V> {
        self.cache.load()
    }

    /// The set that this reads.
    pub fn live(&self) -> &Live<V> {
        &self.live
    }
}

impl<V: View> Clone for Reader<V> {
    fn clone(&self) -> Self {
        self.live.reader()
    }
}

impl<V: View> fmt::Debug for Reader<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reader").field(&self.live).finish()
    }
}
