//! A service that is made anew for each generation.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use keydir::Key;
use keydir_rustls::{Connector, IdentityKey};
use tokio::sync::Notify;
use tokio::time::Instant;
use tower_service::Service;

use super::driver;
use super::generation::Generation;
use super::oneshot::Oneshot;
use crate::BoxError;

/// A new identity is taken up within this time, where nothing else is said.
const PROMOTION_WINDOW: Duration = Duration::from_secs(10);

/// A client of any kind (a tonic channel, a `reqwest::Client`), made anew whenever what its connections rest on was
/// revoked: at once then, before the next request; and in a while when there is a new identity. Requests that are under
/// way end where they have begun. Cheap to clone; clones share the client.
///
/// It is a tower service if the client is one. Other clients are asked for with [`current`](Self::current), for each
/// request again.
///
/// ```no_run
/// # use std::io;
/// # #[derive(Clone)] struct Host;
/// # impl Host { fn with_config(_: std::sync::Arc<keydir_rustls::rustls::ClientConfig>) -> Result<Self, io::Error> { Ok(Self) } }
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let identity = keydir_rustls::Identity::open("/run/secrets/client-tls")?;
/// let anchors = keydir_rustls::TrustAnchors::open("/run/secrets/mesh-ca")?;
/// let connector = keydir_rustls::client_config(&anchors).identity(&identity).connector()?;
///
/// let swap = keydir_hyper::Swap::new(&connector, |generation| Host::with_config(generation.config()))?;
/// let client = swap.current()?; // a Host
/// # drop(client);
/// # Ok(())
/// # }
/// ```
pub struct Swap<S, E = Infallible> {
    shared: Arc<Shared<S, E>>,
}

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
    pub(super) promotion_window: Duration,
    pub(super) max_age: Option<Duration>,
    pub(super) ahead: Ahead<S>,
}

impl<S> Default for Options<S> {
    fn default() -> Self {
        Self {
            promotion_window: PROMOTION_WINDOW,
            max_age: None,
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

impl<S, E> Swap<S, E>
where
    S: Clone + Send + Sync + 'static,
    E: Error + Send + Sync + 'static,
{
    /// Makes the first client at once. `make` is called again for each generation, on whatever thread notices first, so
    /// it should do no more than put a client together.
    ///
    /// Must be called from within a tokio runtime with time enabled.
    ///
    /// # Errors
    /// What `make` fails with.
    pub fn new(
        connector: &Connector,
        make: impl Fn(&Generation) -> Result<S, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        Self::with_options(connector, Options::default(), make)
    }

    /// The client of this moment: for one request, not to be kept. Costs a few atomic loads and its clone as long as
    /// nothing is revoked.
    ///
    /// # Errors
    /// If another has to be made, and that fails.
    pub fn current(&self) -> Result<S, E> {
        self.with(S::clone)
    }
}

impl<S, E> Swap<S, E>
where
    S: Send + Sync + 'static,
    E: Error + Send + Sync + 'static,
{
    pub(super) fn with_options(
        connector: &Connector,
        options: Options<S>,
        make: impl Fn(&Generation) -> Result<S, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        let make: Make<S, E> = Box::new(make);
        let wake = Arc::default();
        let current = Current::begin(connector, &wake, &make)?;
        let shared = Arc::new(Shared {
            connector: connector.clone(),
            make,
            options,
            current: ArcSwap::from_pointee(current),
            making: Mutex::default(),
            wake,
        });
        driver::start(&shared);
        Ok(Self { shared })
    }

    /// For a short look at the client of this moment.
    pub(super) fn with<T>(&self, f: impl FnOnce(&S) -> T) -> Result<T, E> {
        self.shared.with(f)
    }
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
    fn with<T>(&self, f: impl FnOnce(&S) -> T) -> Result<T, E> {
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

impl<S, E> Clone for Swap<S, E> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<S, E> fmt::Debug for Swap<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swap")
            .field("connector", &self.shared.connector)
            .finish_non_exhaustive()
    }
}

impl<S, E, R> Service<R> for Swap<S, E>
where
    S: Service<R, Error: Into<BoxError>> + Clone + Send + Sync + 'static,
    E: Error + Send + Sync + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Oneshot<S, R>;

    /// Always ready: which client it will be is decided by the call.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        match self.current() {
            Ok(service) => Oneshot::new(service, request),
            Err(error) => Oneshot::failed(error.into()),
        }
    }
}
