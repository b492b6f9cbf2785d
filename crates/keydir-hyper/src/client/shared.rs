//! What a swap and its driver share: the client of this moment, and how the next one is made.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use keydir::Key;
use keydir_rustls::{Connector, IdentityKey};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::generation::Generation;
use crate::BoxError;

/// A new identity is taken up within this time, where nothing else is said.
const PROMOTION_WINDOW: Duration = Duration::from_secs(10);
/// As long as a promotion window may be, and as short as a maximum age.
const LONGEST_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);
const SHORTEST_AGE: Duration = Duration::from_secs(1);

/// Gets a service ready to take another's place.
pub(super) type Ahead<S> =
    Box<dyn Fn(&S, &S) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>> + Send + Sync>;

pub(super) struct Shared<S, E> {
    pub(super) connector: Connector,
    make: Make<S, E>,
    pub(super) options: Options<S>,
    current: ArcSwap<Current<S>>,
    /// Locked while another is made, so that it is made once.
    making: Mutex<()>,
    pub(super) wake: Arc<Notify>,
}

type Make<S, E> = Box<dyn Fn(&Generation) -> Result<S, E> + Send + Sync>;

pub(super) struct Options<S> {
    pub(super) times: Times,
    pub(super) ahead: Ahead<S>,
}

/// When a generation is replaced though nothing was revoked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) promotion_window: Duration,
    pub(super) max_age: Option<Duration>,
}

impl Times {
    pub(super) fn set_promotion_window(&mut self, window: Duration) {
        self.promotion_window = window.min(LONGEST_WINDOW);
    }

    pub(super) fn set_max_age(&mut self, age: Duration) {
        self.max_age = Some(age.max(SHORTEST_AGE));
    }
}

impl Default for Times {
    fn default() -> Self {
        Self {
            promotion_window: PROMOTION_WINDOW,
            max_age: None,
        }
    }
}

impl<S> Default for Options<S> {
    fn default() -> Self {
        Self {
            times: Times::default(),
            ahead: Box::new(|_, _| Box::pin(async { Ok(()) })),
        }
    }
}

pub(super) struct Current<S> {
    pub(super) generation: Generation,
    pub(super) service: S,
    /// What was to be presented when it began.
    identity: Option<Arc<Key<IdentityKey>>>,
    pub(super) begun: Instant,
}

impl<S> Current<S> {
    fn begin<E>(connector: &Connector, wake: &Arc<Notify>, make: &Make<S, E>) -> Result<Self, E> {
        // In this order: what changes in between ends the generation, or is seen as a promotion.
        let generation = Generation::begin(connector, wake);
        let identity = connector.identity().and_then(|identity| identity.primary().ok());
        if let Some(key) = &identity {
            generation.presents(key);
        }
        Ok(Self {
            service: make(&generation)?,
            generation,
            identity,
            begun: Instant::now(),
        })
    }

    pub(super) fn presents(&self, key: &Arc<Key<IdentityKey>>) -> bool {
        self.identity.as_ref().is_some_and(|own| Arc::ptr_eq(own, key))
    }
}

impl<S, E> Shared<S, E> {
    pub(super) fn new(connector: &Connector, options: Options<S>, make: Make<S, E>) -> Result<Self, E> {
        let wake = Arc::default();
        let current = Current::begin(connector, &wake, &make)?;
        Ok(Self {
            connector: connector.clone(),
            make,
            options,
            current: ArcSwap::from_pointee(current),
            making: Mutex::default(),
            wake,
        })
    }

    pub(super) fn with<T>(&self, f: impl FnOnce(&S) -> T) -> Result<T, E> {
        let current = self.current.load();
        match current.generation.stands() {
            true => Ok(f(&current.service)),
            false => Ok(f(&self.renewed()?.service)),
        }
    }

    pub(super) fn current(&self) -> Arc<Current<S>> {
        self.current.load_full()
    }

    /// Takes the place of a generation that does not stand.
    pub(super) fn renewed(&self) -> Result<Arc<Current<S>>, E> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.current();
        if current.generation.stands() {
            return Ok(current);
        }
        let next = Arc::new(self.begin()?);
        self.current.store(Arc::clone(&next));
        tracing::info!("what the pooled connections rest on has ended: new ones in their place");
        // It has other things to wait for.
        self.wake.notify_one();
        Ok(next)
    }

    pub(super) fn begin(&self) -> Result<Current<S>, E> {
        Current::begin(&self.connector, &self.wake, &self.make)
    }

    /// Puts another in the place of `last`, unless that is gone already.
    pub(super) fn replace(&self, last: &Weak<Current<S>>, next: Current<S>) {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if Weak::as_ptr(last) == Arc::as_ptr(&self.current.load()) {
            self.current.store(Arc::new(next));
        }
    }
}

impl<S, E> Drop for Shared<S, E> {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}
