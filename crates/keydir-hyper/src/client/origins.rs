//! What one pool is connected to, and who speaks HTTP/2.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use http::Uri;
use http::uri::{Authority, Scheme};

/// Origins that are remembered as speaking HTTP/2, at most.
const MAX_H2: usize = 1024;

/// The origins of one pool, by authority. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    alive: Mutex<HashMap<Authority, usize>>,
    /// As it was known when the pool began, so that each origin stays with one pool, less those that were found out.
    h2: ArcSwap<HashSet<Authority>>,
    /// What is known by now, for the pools to come.
    speaks_h2: Arc<Mutex<HashSet<Authority>>>,
}

/// A connection to an origin, counted while this is kept.
pub(super) struct Alive {
    origins: Origins,
    authority: Authority,
}

impl Origins {
    /// Those of the pool that takes this one's place.
    pub(super) fn next(&self) -> Self {
        Self(Arc::new(Shared {
            alive: Mutex::default(),
            h2: ArcSwap::from_pointee(lock(&self.0.speaks_h2).clone()),
            speaks_h2: Arc::clone(&self.0.speaks_h2),
        }))
    }

    /// Counts a connection, and notes whether it speaks HTTP/2.
    pub(super) fn connected(&self, authority: &Authority, h2: bool) -> Alive {
        *lock(&self.0.alive).entry(authority.clone()).or_default() += 1;
        let mut known = lock(&self.0.speaks_h2);
        if !h2 {
            known.remove(authority);
            if self.0.h2.load().contains(authority) {
                // Under the lock, so that nobody else changes it.
                let mut rest = HashSet::clone(&self.0.h2.load());
                rest.remove(authority);
                self.0.h2.store(Arc::new(rest));
            }
        } else if known.len() < MAX_H2 && !known.contains(authority) {
            known.insert(authority.clone());
        }
        Alive {
            origins: self.clone(),
            authority: authority.clone(),
        }
    }

    /// Whether an origin is known to speak HTTP/2.
    pub(super) fn speaks_h2(&self, uri: &Uri) -> bool {
        let known = self.0.h2.load();
        !known.is_empty()
            && uri.scheme() == Some(&Scheme::HTTPS)
            && uri.authority().is_some_and(|authority| known.contains(authority))
    }

    /// Where connections are alive.
    pub(super) fn alive(&self) -> Vec<Authority> {
        lock(&self.0.alive).keys().cloned().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Alive {
    fn drop(&mut self) {
        let mut alive = lock(&self.origins.0.alive);
        if let Some(count) = alive.get_mut(&self.authority) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                alive.remove(&self.authority);
            }
        }
    }
}
