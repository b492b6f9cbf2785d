//! Accepting connections: the loop and the handshakes that all hosts share.

use std::error::Error;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keydir_rustls::Acceptor;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use super::per_connection::PerConnection;
use super::stopping::Stop;
use super::stream::ServerStream;
use super::until::until;

/// Out of file descriptors, most likely: connections that end will give some back.
const BACK_OFF: Duration = Duration::from_millis(50);

/// How many there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) connections: u32,
    pub(super) handshakes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            handshakes: 1024,
        }
    }
}

/// In this window connections of a superseded identity are renewed.
pub(super) const RENEWAL: Duration = Duration::from_secs(30);

/// Accepts connections and performs their handshakes.
#[derive(Debug)]
pub(super) struct Accepting {
    acceptor: Acceptor,
    limits: Limits,
    renewal: Duration,
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    pub(super) stop: Stop,
    waited: Seldom,
    dropped: Seldom,
}

/// A connection whose handshake is done. It counts as pending until the permit is dropped.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: ServerStream,
    pub(super) pending: OwnedSemaphorePermit,
}

impl Accepting {
    pub(super) fn new(acceptor: Acceptor, limits: Limits, renewal: Duration) -> Arc<Self> {
        let semaphore = |permits: u32| {
            let permits = usize::try_from(permits).unwrap_or(usize::MAX);
            Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
        };
        Arc::new(Self {
            acceptor,
            limits,
            renewal,
            connections: semaphore(limits.connections),
            handshakes: semaphore(limits.handshakes),
            stop: Stop::new(),
            waited: Seldom::default(),
            dropped: Seldom::default(),
        })
    }

    /// Accepts for ever; hands over each connection in a task of its own.
    pub(super) async fn run<F>(
        self: Arc<Self>,
        listener: &TcpListener,
        then: impl Fn(Accepted) -> F + Clone + Send + 'static,
    ) where
        F: Future<Output = ()> + Send,
    {
        loop {
            let counted = self.counted().await;
            let tcp = accept(listener).await;
            let Some(pending) = self.pending() else {
                continue;
            };
            let (this, then) = (Arc::clone(&self), then.clone());
            tokio::spawn(async move {
                let mut stopping = this.stop.stopping();
                let given_up = async {
                    stopping.begun().await;
                    stopping.last_words().await;
                };
                let handshake = until(pin!(this.handshake(tcp, counted)), given_up).await;
                drop(this);
                if let Ok(Ok(stream)) = handshake {
                    then(Accepted { stream, pending }).await;
                }
            });
        }
    }

    /// A place among the pending handshakes; `None` if there is none left.
    pub(super) fn pending(&self) -> Option<OwnedSemaphorePermit> {
        let pending = Arc::clone(&self.handshakes).try_acquire_owned().ok();
        if pending.is_none()
            && let Some(dropped) = self.dropped.count()
        {
            let limit = self.limits.handshakes;
            tracing::warn!(
                limit,
                dropped,
                "too many handshakes are pending, connections are dropped"
            );
        }
        pending
    }

    /// Performs one handshake.
    pub(super) async fn handshake(
        &self,
        tcp: TcpStream,
        counted: Option<OwnedSemaphorePermit>,
    ) -> io::Result<ServerStream> {
        let remote = tcp.peer_addr()?;
        // Small answers must not wait for acknowledgements of earlier ones; without it they are only slower.
        let _ = tcp.set_nodelay(true);
        match self.acceptor.accept(tcp).await {
            Ok(tls) => {
                let connection = tls.connection().clone();
                let per_connection = PerConnection::new(connection, remote, self.renewal);
                Ok(ServerStream::new(tls, Arc::new(per_connection), counted))
            }
            Err(refused) => {
                tracing::info!(%remote, error = causes(&refused), "connection refused");
                Err(io::Error::other(refused))
            }
        }
    }

    /// Resolves when no connection is left. Call it when nobody accepts any more.
    pub(super) async fn idle(&self) {
        // The semaphore is never closed.
        let _ = self.connections.acquire_many(self.limits.connections).await;
    }

    /// Waits for a place for one more connection; those that come meanwhile wait in the kernel.
    async fn counted(&self) -> Option<OwnedSemaphorePermit> {
        let connections = Arc::clone(&self.connections);
        if let Ok(counted) = Arc::clone(&connections).try_acquire_owned() {
            return Some(counted);
        }
        if let Some(times) = self.waited.count() {
            tracing::warn!(
                limit = self.limits.connections,
                times,
                "all connections are in use, others wait"
            );
        }
        connections.acquire_owned().await.ok()
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable};
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => return tcp,
            // Those of the connection itself (accept(2)): it is gone, and the next one may be good.
            Err(error)
                if matches!(
                    error.kind(),
                    ConnectionAborted | ConnectionReset | HostUnreachable | NetworkDown | NetworkUnreachable
                ) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection, trying again");
                sleep(BACK_OFF).await;
            }
        }
    }
}

/// An error with all that stands behind it.
pub(super) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Counts what may happen all the time, and says when to tell of it.
#[derive(Debug, Default)]
struct Seldom(AtomicU64);

impl Seldom {
    /// How often it has happened, at the first time and at each doubling.
    fn count(&self) -> Option<u64> {
        let count = self.0.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        count.is_power_of_two().then_some(count)
    }
}
