//! What one connection rests on, and whether that still stands.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use keydir::{Key, RevisionId, Use};
use rustls::pki_types::CertificateDer;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::ended::Ended;
use crate::admission::Admission;
use crate::chosen::Choice;
use crate::identity_view::IdentityKey;
use crate::peer::Peer;

/// A grace that no clock can hold is one of 30 years.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// A connection as the application sees it: whom it is with, what it rests on, and whether that still stands. Cheap to
/// clone, and may be kept longer than the stream.
#[derive(Clone)]
pub struct Connection(pub(super) Arc<Rests>);

/// What a connection rests on.
pub(super) struct Rests {
    /// Those that may have been presented: one, but for a resumed session of a client that presented several.
    pub(super) identities: Vec<Choice>,
    /// Who decides about the peer, if it has shown certificates.
    pub(super) admission: Option<Admission>,
    pub(super) chain: Arc<[CertificateDer<'static>]>,
    pub(super) resumed: bool,
    pub(super) grace: Duration,
    peer: OnceLock<Peer>,
    /// The trust under which the peer was judged last.
    serial: AtomicU64,
    /// The end of what vouches for the peer, in seconds since 1970.
    not_after: AtomicU64,
    end: OnceLock<End>,
    told: Notify,
    counted: Mutex<Counted>,
}

struct End {
    why: Ended,
    closes: Instant,
    cut: Instant,
}

/// The uses in the report, for as long as the stream is there.
#[derive(Default)]
struct Counted {
    over: bool,
    _identities: Vec<Use>,
    ca: Option<(RevisionId, Use)>,
}

impl Connection {
    /// The key of our own identity that the handshake presented. `None` if the peer did not ask for one.
    ///
    /// A client's resumed session rests on the handshake that it comes from: this is what the client presented last.
    pub fn identity(&self) -> Option<&Arc<Key<IdentityKey>>> {
        self.0.identities.last().map(|choice| &choice.key)
    }

    /// Who the peer is; `None` if it has shown no certificate.
    pub fn peer(&self) -> Option<&Peer> {
        self.0.peer.get()
    }

    /// Whether the handshake resumed a session.
    pub fn is_resumed(&self) -> bool {
        self.0.resumed
    }

    /// Whether our identity was the primary at the handshake and no longer is: a new connection would present another.
    /// Nothing is wrong with this one, but who rotates waits for it to go.
    pub fn is_superseded(&self) -> bool {
        let choice = self.0.identities.last();
        choice.is_some_and(|choice| !choice.superseded && choice.key.is_superseded())
    }

    /// Whether what the connection rests on is neither revoked nor refused at this moment: our identity, the peer's
    /// CA, the peer by its CRL and by the application's rule. Ask before each use, such as a request: this is exact
    /// from the moment of loading, and costs a few atomic loads as long as nothing has changed. Only the end of a
    /// certificate's validity shows up to a second later.
    pub fn stands(&self) -> bool {
        match self.0.judge() {
            Ok(()) => true,
            Err(why) => {
                self.0.end(why, Duration::ZERO);
                false
            }
        }
    }

    /// Likewise of the peer alone: whether it is trusted, whatever has become of our own identity.
    pub fn peer_stands(&self) -> bool {
        !matches!(self.why(), Some(Ended::Peer { .. })) && self.0.judge_peer_if_changed().is_ok()
    }

    /// Why the connection does not stand, if it does not.
    pub fn why(&self) -> Option<&Ended> {
        self.0.end.get().map(|end| &end.why)
    }

    /// Resolves as soon as the connection does not [stand](Self::stands) any more. When the stream is gone nobody looks
    /// after the connection any more, and this may wait for ever: wait beside what uses the stream, not alone.
    ///
    /// # Cancel safety
    /// May be dropped and asked for again at any time; nothing is missed.
    pub fn ended(&self) -> impl Future<Output = Ended> + Send + 'static {
        let rests = Arc::clone(&self.0);
        async move { rests.wait().await.why.clone() }
    }

    /// Resolves when a connection that has [ended](Self::ended) and is idle should be shut down, so that the peer does
    /// not find it dead in the middle of a request: in the second half of the grace, spread where many end together.
    /// In the first half there is time to tell the peer with the next answer; at the end of the grace the stream
    /// fails.
    ///
    /// # Cancel safety
    /// May be dropped and asked for again at any time; nothing is missed.
    pub fn closing(&self) -> impl Future<Output = Ended> + Send + 'static {
        let rests = Arc::clone(&self.0);
        async move {
            let end = rests.wait().await;
            sleep_until(end.closes).await;
            end.why.clone()
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("identity", &self.identity().map(|key| key.id()))
            .field("peer", &self.peer())
            .field("ended", &self.why())
            .finish_non_exhaustive()
    }
}

impl Rests {
    pub(super) fn new(
        identities: Vec<Choice>,
        admission: Option<Admission>,
        chain: Arc<[CertificateDer<'static>]>,
        resumed: bool,
        grace: Duration,
    ) -> Self {
        let counted = Counted {
            _identities: identities.iter().map(|choice| choice.key.hold()).collect(),
            ..Counted::default()
        };
        Self {
            identities,
            admission: admission.filter(|_| !chain.is_empty()),
            chain,
            resumed,
            grace,
            peer: OnceLock::new(),
            serial: AtomicU64::new(0), // of no trust
            not_after: AtomicU64::new(u64::MAX),
            end: OnceLock::new(),
            told: Notify::new(),
            counted: Mutex::new(counted),
        }
    }

    /// Asks again only if something has changed.
    fn judge(&self) -> Result<(), Ended> {
        if let Some(end) = self.end.get() {
            return Err(end.why.clone());
        }
        if let Some(revoked) = self
            .identities
            .iter()
            .map(|choice| &choice.key)
            .find(|key| !key.stands())
        {
            return Err(Ended::Identity(revoked.id().clone()));
        }
        self.judge_peer_if_changed()
    }

    fn judge_peer_if_changed(&self) -> Result<(), Ended> {
        match &self.admission {
            Some(admission) if admission.serial() != self.serial.load(Ordering::Acquire) => self.judge_peer(admission),
            _ => Ok(()),
        }
    }

    /// For the sweep: asks again also if time has passed, or if the application's rule may have changed.
    pub(super) fn judge_at(&self, now: u64, anew: bool) -> Result<(), Ended> {
        self.judge()?;
        match &self.admission {
            Some(admission) if anew || now > self.not_after() => self.judge_peer(admission),
            _ => Ok(()),
        }
    }

    fn judge_peer(&self, admission: &Admission) -> Result<(), Ended> {
        let chain = self.chain.iter().map(AsRef::as_ref);
        let admitted = admission.admits(chain, admission.now()).map_err(|error| Ended::Peer {
            ca: self.peer.get().and_then(|peer| peer.ca().cloned()),
            error,
        })?;
        self.not_after.store(admitted.not_after, Ordering::Release);
        self.serial.store(admitted.serial, Ordering::Release);
        let ca = &admitted.revision;
        self.peer.get_or_init(|| Peer::new(Arc::clone(&self.chain), ca.clone()));
        let counted = &mut *self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if !counted.over && counted.ca.as_ref().map(|(counted, _)| counted) != ca.as_ref() {
            counted.ca = ca.clone().and_then(|ca| Some((ca.clone(), admission.hold(&ca)?)));
        }
        Ok(())
    }

    pub(super) fn not_after(&self) -> u64 {
        self.not_after.load(Ordering::Acquire)
    }

    /// Whether it is known already that the connection does not stand.
    pub(super) fn has_ended(&self) -> bool {
        self.end.get().is_some()
    }

    /// What stands in the way of using the stream: the grace is over.
    pub(super) fn cut(&self) -> Option<&Ended> {
        let end = self.end.get()?;
        (Instant::now() >= end.cut).then_some(&end.why)
    }

    /// Ends the connection; its turn to close comes so long after the half of the grace. The first reason stays.
    pub(super) fn end(&self, why: Ended, delay: Duration) {
        let now = Instant::now();
        let later = |wait| now.checked_add(wait).unwrap_or_else(|| now + FOR_EVER);
        let end = End {
            why,
            closes: later(self.grace / 2 + delay),
            cut: later(self.grace),
        };
        if self.end.set(end).is_ok() {
            self.told.notify_waiters();
        }
    }

    async fn wait(&self) -> &End {
        loop {
            let told = self.told.notified();
            if let Some(end) = self.end.get() {
                return end;
            }
            told.await;
        }
    }

    pub(super) async fn wait_until_cut(&self) {
        let end = self.wait().await;
        sleep_until(end.cut).await;
    }

    /// The stream is gone.
    pub(super) fn over(&self) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        *counted = Counted {
            over: true,
            ..Counted::default()
        };
    }
}
