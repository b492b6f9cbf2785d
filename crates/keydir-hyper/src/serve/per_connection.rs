//! What serving remembers of one connection.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Extensions;
use keydir_rustls::{Connection, Ended};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::until::until;
use crate::random::random;

/// Longer than this no time may be: sums with it are no overflow.
pub(super) const LONGEST: Duration = Duration::from_secs(86_400);

/// So long a connection of HTTP/2 that is due waits for the best moment; then any will do.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct PerConnection {
    connection: Connection,
    remote: SocketAddr,
    /// Its place in the window in which connections of a superseded identity are renewed.
    delay: Duration,
    superseded: OnceLock<Instant>,
    requested: AtomicBool,
    stopping: AtomicBool,
    upgraded: AtomicBool,
    /// Requests that wait for their answer, now and at most.
    waiting: AtomicUsize,
    most: AtomicUsize,
    over: Notify,
}

impl PerConnection {
    pub(super) fn new(connection: Connection, remote: SocketAddr, renewal: Duration) -> Self {
        Self {
            connection,
            remote,
            delay: renewal.min(LONGEST).mul_f64(random()),
            superseded: OnceLock::new(),
            requested: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            upgraded: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            over: Notify::new(),
        }
    }

    #[cfg(feature = "axum")]
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// For each request: tells it whom it is from. Whether it may begin.
    pub(super) fn admit(&self, extensions: &mut Extensions) -> bool {
        self.requested.store(true, Ordering::Release);
        extensions.insert(self.connection.clone());
        extensions.insert(self.remote);
        let admitted = admits(&self.connection);
        if !admitted {
            self.over.notify_one();
        }
        admitted
    }

    /// For each request on HTTP/2, until its answer begins. A connection that has to go is shut down when as many requests
    /// wait as ever did: then it is least likely that another is about to be sent, which many clients would lose. That may
    /// never be again, so that after a while it is shut down while any waits.
    pub(super) fn wait(self: Arc<Self>) -> Waiting {
        let waiting = self.waiting.fetch_add(1, Ordering::AcqRel) + 1;
        let most = self.most.fetch_max(waiting, Ordering::AcqRel);
        if self.is_last() && (waiting >= most || self.is_overdue()) {
            self.over.notify_one();
        }
        Waiting(self)
    }

    /// For each answer on HTTP/1: whether it is the last.
    pub(super) fn is_last(&self) -> bool {
        !self.connection.stands() || self.stopping.load(Ordering::Acquire) || self.is_due()
    }

    /// Whether any request has come.
    pub(super) fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    /// The connection has to go, by one of its next answers.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let waiting = self.waiting.load(Ordering::Acquire);
        if waiting > 0 && waiting >= self.most.load(Ordering::Acquire) {
            self.over.notify_one();
        }
    }

    /// It speaks another protocol from now on.
    pub(super) fn upgrade(&self) {
        self.upgraded.store(true, Ordering::Release);
    }

    pub(super) fn is_upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Acquire)
    }

    /// Resolves when the connection should be shut down: it had its time to finish, or all that comes is refused.
    pub(super) async fn over(&self) {
        let over = pin!(self.over.notified());
        // Which of the two it was makes no difference.
        let _ = until(over, self.connection.closing()).await;
    }

    /// The clock is looked at only while an old connection is still there.
    fn is_due(&self) -> bool {
        self.connection.is_superseded() && self.superseded.get_or_init(Instant::now).elapsed() >= self.delay
    }

    fn is_overdue(&self) -> bool {
        let since = self.superseded.get();
        since.is_some_and(|since| since.elapsed() >= self.delay + PATIENCE)
    }
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(super) struct Waiting(Arc<PerConnection>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whether a request may begin: not if the peer is not trusted any more. If our own identity was revoked, nothing is wrong
/// with the peer: it learns with the answer that it has to go, and loses nothing.
pub(super) fn admits(connection: &Connection) -> bool {
    connection.stands() || matches!(connection.why(), Some(Ended::Identity(_))) && connection.peer_stands()
}
