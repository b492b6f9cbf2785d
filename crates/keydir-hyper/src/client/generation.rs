//! A time in which nothing was revoked: what was connected in it may be used for as long as it stands.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use keydir_rustls::rustls::ClientConfig;
use keydir_rustls::{Connector, IdentityKey, Term};
use tokio::sync::Notify;

/// A time in which nothing that a client trusts, or has presented, was revoked. Whatever keeps connections belongs to
/// one: it stands until something is revoked, and is replaced then ([`Swap`](crate::Swap)). Cheap to clone.
#[derive(Clone)]
pub struct Generation(Arc<Shared>);

struct Shared {
    connector: Connector,
    term: Term,
    /// It has come to its end by what only its connections know, or its clock.
    spoiled: AtomicBool,
    /// When the first certificate ends that was presented in it; in seconds since 1970.
    expires: AtomicU64,
    wake: Arc<Notify>,
}

impl Generation {
    /// Begins before anything is connected in it. `wake` is told when it is over before its time.
    pub(crate) fn begin(connector: &Connector, wake: &Arc<Notify>) -> Self {
        Self(Arc::new(Shared {
            term: connector.begin(),
            connector: connector.clone(),
            spoiled: AtomicBool::new(false),
            expires: AtomicU64::new(u64::MAX),
            wake: Arc::clone(wake),
        }))
    }

    /// Whether nothing was revoked since it began: a few atomic loads, exact from the moment of loading. Once it is
    /// `false` it stays so.
    pub fn stands(&self) -> bool {
        !self.0.spoiled.load(Ordering::Acquire) && self.0.connector.stands(&self.0.term)
    }

    /// What connects in it.
    pub fn connector(&self) -> &Connector {
        &self.0.connector
    }

    /// The connector's config, for hosts that make their own handshakes, such as reqwest.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.0.connector.config()
    }

    /// Ends it: a connection of it has learnt that it may not go on.
    pub(crate) fn spoil(&self) {
        self.0.spoiled.store(true, Ordering::Release);
        self.0.wake.notify_one();
    }

    /// Notes what is presented in it. What has expired before does not end it: the next one would present the same.
    pub(crate) fn presents(&self, key: &IdentityKey) {
        let end = key.piece().not_after.duration_since(SystemTime::UNIX_EPOCH);
        let end = end.map_or(0, |end| end.as_secs());
        if self.now() < Duration::from_secs(end) && end < self.0.expires.fetch_min(end, Ordering::AcqRel) {
            self.0.wake.notify_one();
        }
    }

    /// How long it is until something expires that was presented; `None` if nothing was.
    pub(crate) fn until_expiry(&self) -> Option<Duration> {
        match self.0.expires.load(Ordering::Acquire) {
            u64::MAX => None,
            end => Some(Duration::from_secs(end).saturating_sub(self.now())),
        }
    }

    /// Since 1970, by the clock of the identity's directory.
    fn now(&self) -> Duration {
        let identity = self.0.connector.identity();
        let now = identity.map(|identity| identity.live().dir().clock().now());
        let since_1970 = now.and_then(|now| now.duration_since(SystemTime::UNIX_EPOCH).ok());
        since_1970.unwrap_or_default()
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation")
            .field("stands", &self.stands())
            .finish_non_exhaustive()
    }
}
