//! A service that is made anew for each generation.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use keydir_rustls::Connector;
use tower_service::Service;

use super::driver;
use super::generation::Generation;
use super::oneshot::Oneshot;
use super::shared::{Options, Shared, Times};
use crate::BoxError;

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

/// How a [`Swap`] is to be made; by [`Swap::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens until it is built"]
pub struct SwapBuilder {
    connector: Connector,
    times: Times,
}

impl Swap<()> {
    /// Begins one over this connector.
    ///
    /// ```no_run
    /// # async fn run(connector: keydir_rustls::Connector) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use keydir_hyper::Swap;
    ///
    /// let swap = Swap::builder(&connector)
    ///     .max_age(Duration::from_secs(3600))
    ///     .build(|generation| Ok::<_, std::io::Error>(generation.config()))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(connector: &Connector) -> SwapBuilder {
        SwapBuilder {
            connector: connector.clone(),
            times: Times::default(),
        }
    }
}

impl SwapBuilder {
    /// The time within which a client with a new identity takes the place of the one before, at a moment that each swap
    /// picks for itself. 10 s without this, a day at most. A revocation does not wait.
    pub fn promotion_window(mut self, window: Duration) -> Self {
        self.times.set_promotion_window(window);
        self
    }

    /// No client is given out for longer than this (at least a second), though nothing was revoked. Without this there is
    /// no limit.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.times.set_max_age(age);
        self
    }

    /// As [`Swap::new`].
    ///
    /// Must be called from within a tokio runtime with time enabled.
    ///
    /// # Errors
    /// What `make` fails with.
    pub fn build<S, E>(
        self,
        make: impl Fn(&Generation) -> Result<S, E> + Send + Sync + 'static,
    ) -> Result<Swap<S, E>, E>
    where
        S: Clone + Send + Sync + 'static,
        E: Error + Send + Sync + 'static,
    {
        let options = Options {
            times: self.times,
            ..Options::default()
        };
        Swap::with_options(&self.connector, options, make)
    }
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
        let shared = Arc::new(Shared::new(connector, options, Box::new(make))?);
        driver::start(&shared);
        Ok(Self { shared })
    }

    /// For a short look at the client of this moment.
    pub(super) fn with<T>(&self, f: impl FnOnce(&S) -> T) -> Result<T, E> {
        self.shared.with(f)
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
