//! Being told of swaps: a stream for async callers, a blocking call for threads.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use event_listener::{EventListener, Listener};
use futures_core::Stream;

use crate::key::Key;
use crate::keyset::KeySet;
use crate::live::Live;
use crate::name::RevisionId;
use crate::view::View;

/// What has changed since this subscriber was last told.
pub struct Change<V: View> {
    /// The set now.
    pub now: Arc<KeySet<V>>,
    /// The set that the subscriber saw last.
    pub before: Arc<KeySet<V>>,
}

impl<V: View> Change<V> {
    /// Revisions that came into force, or whose content was replaced.
    pub fn added(&self) -> impl Iterator<Item = &RevisionId> {
        missing(&self.now, &self.before)
    }

    /// Revisions that are no longer in force, or whose content was replaced.
    pub fn removed(&self) -> impl Iterator<Item = &RevisionId> {
        missing(&self.before, &self.now)
    }

    /// Whether what is presented is another key than before, or there is one now, or none any more.
    pub fn primary_changed(&self) -> bool {
        match (self.now.primary(), self.before.primary()) {
            (Ok(now), Ok(before)) => !Arc::ptr_eq(now, before),
            (Err(_), Err(_)) => false,
            _ => true,
        }
    }
}

/// The ids of the keys in `of` whose content is not in `from`.
fn missing<'a, V: View>(of: &'a KeySet<V>, from: &'a KeySet<V>) -> impl Iterator<Item = &'a RevisionId> {
    let stays = |key: &Arc<Key<V::Item>>| {
        let other = from.get(key.id().as_str());
        other.is_some_and(|other| other.derivation == key.derivation)
    };
    of.iter().filter(move |key| !stays(key)).map(|key| key.id())
}

impl<V: View> fmt::Debug for Change<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change")
            .field("added", &self.added().collect::<Vec<_>>())
            .field("removed", &self.removed().collect::<Vec<_>>())
            .field("primary_changed", &self.primary_changed())
            .finish_non_exhaustive()
    }
}

/// A subscription to a [`Live`] set; see [`Live::subscribe`].
///
/// Swaps that happen between two calls are told as one [`Change`]: the difference to what this subscriber saw last.
/// It ends never, since it keeps its set alive.
pub struct Changes<V: View> {
    live: Live<V>,
    seen: Arc<KeySet<V>>,
    listener: Option<Pin<Box<EventListener>>>,
}

impl<V: View> Live<V> {
    /// Tells of every swap from now on: an async [`Stream`], or [`recv`](Changes::recv) for threads.
    pub fn subscribe(&self) -> Changes<V> {
        Changes {
            seen: self.snapshot(),
            live: self.clone(),
            listener: None,
        }
    }
}

impl<V: View> Changes<V> {
    /// What has changed and was not told yet, if anything.
    pub fn try_recv(&mut self) -> Option<Change<V>> {
        let now = self.live.snapshot();
        (!Arc::ptr_eq(&now, &self.seen)).then(|| Change {
            before: std::mem::replace(&mut self.seen, Arc::clone(&now)),
            now,
        })
    }

    /// Blocks until something has changed. Not for async executors: there it is a stream.
    pub fn recv(&mut self) -> Change<V> {
        loop {
            let listener = self.live.set.changed().listen();
            if let Some(change) = self.try_recv() {
                return change;
            }
            listener.wait();
        }
    }

    /// [`recv`](Self::recv) for async callers who have no use for a [`Stream`].
    ///
    /// # Cancel safety
    /// What was not returned is told next time.
    pub async fn changed(&mut self) -> Change<V> {
        loop {
            let change = poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await;
            if let Some(change) = change {
                return change;
            }
        }
    }

    /// [`recv`](Self::recv) for at most `timeout`.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Option<Change<V>> {
        let deadline = Instant::now().checked_add(timeout)?;
        loop {
            let listener = self.live.set.changed().listen();
            if let Some(change) = self.try_recv() {
                return Some(change);
            }
            listener.wait_deadline(deadline)?;
        }
    }
}

impl<V: View> Stream for Changes<V> {
    type Item = Change<V>;

    /// # Cancel safety
    /// What was not returned is told next time.
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Change<V>>> {
        loop {
            if self.listener.is_none() {
                let listener = self.live.set.changed().listen();
                self.listener = Some(Box::pin(listener));
            }
            if let Some(change) = self.try_recv() {
                self.listener = None;
                return Poll::Ready(Some(change));
            }
            let Some(listener) = &mut self.listener else { continue };
            match listener.as_mut().poll(context) {
                Poll::Ready(()) => self.listener = None,
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<V: View> fmt::Debug for Changes<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Changes").field(&self.live).finish()
    }
}
