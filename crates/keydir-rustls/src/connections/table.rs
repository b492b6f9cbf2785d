//! The connections that are alive, and what ends them.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use keydir::Changes;
use rustls::pki_types::CertificateDer;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::connection::{Connection, Rests};
use super::ended::Ended;
use crate::admission::Admission;
use crate::chosen::Choice;
use crate::identity::Identity;
use crate::identity_view::IdentityView;
use crate::view::AnchorsView;

/// The clock may be set, so the ends of certificates are looked at so often at least.
const LOOK: Duration = Duration::from_secs(30);
/// So many connections are looked at before other tasks get their turn.
const BATCH: usize = 64;
/// Connections that end together close so far apart, as far as the grace allows.
const APART: Duration = Duration::from_millis(1);

/// All connections of one acceptor or connector.
pub(super) struct Table {
    admission: Option<Admission>,
    identities: Vec<Identity>,
    live: Mutex<Live>,
    /// The first end of a certificate, in seconds since 1970.
    first_end: AtomicU64,
    sweeping: AtomicBool,
    /// Whether the application's rule has to be asked again.
    anew: AtomicBool,
    wake: Arc<Notify>,
}

#[derive(Default)]
struct Live {
    number: u64,
    connections: HashMap<u64, Arc<Rests>>,
}

/// A connection that is in the table for as long as this is kept.
pub(super) struct Registered {
    table: Arc<Table>,
    number: u64,
    connection: Connection,
}

impl Registered {
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.table.lock().connections.remove(&self.number);
        self.connection.0.over();
    }
}

impl Table {
    pub(super) fn new(admission: Option<Admission>, identities: Vec<Identity>) -> Arc<Self> {
        Arc::new(Self {
            admission,
            identities,
            live: Mutex::default(),
            first_end: AtomicU64::new(u64::MAX),
            sweeping: AtomicBool::new(false),
            anew: AtomicBool::new(false),
            wake: Arc::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.lock().connections.len()
    }

    /// Registers a connection whose handshake is done, and only then judges it: whatever is revoked from now on finds
    /// it in the table, and whatever was revoked before is seen here.
    pub(super) fn register(
        self: &Arc<Self>,
        identities: Vec<Choice>,
        chain: Arc<[CertificateDer<'static>]>,
        resumed: bool,
        grace: Duration,
    ) -> Result<Registered, Ended> {
        self.start();
        let rests = Rests::new(identities, self.admission.clone(), chain, resumed, grace);
        let rests = Arc::new(rests);
        let number = {
            let mut live = self.lock();
            live.number += 1;
            let number = live.number;
            live.connections.insert(number, Arc::clone(&rests));
            number
        };
        let registered = Registered {
            table: Arc::clone(self),
            number,
            connection: Connection(rests),
        };
        if !registered.connection.stands()
            && let Some(why) = registered.connection.why()
        {
            return Err(why.clone());
        }
        let not_after = registered.connection.0.not_after();
        if not_after < self.first_end.fetch_min(not_after, Ordering::AcqRel) {
            self.wake.notify_one();
        }
        Ok(registered)
    }

    /// Asks for every connection again, also where nothing has changed in a directory.
    pub(super) fn recheck(&self) {
        self.anew.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// One task for all connections, on the runtime of the first; if that ends, the next connection starts it again.
    fn start(self: &Arc<Self>) {
        if self.sweeping.swap(true, Ordering::AcqRel) {
            return;
        }
        let sweeper = Sweeper {
            table: Arc::downgrade(self),
            wake: Arc::clone(&self.wake),
            trust: self.admission.as_ref().map(|admission| admission.live().subscribe()),
            identities: self
                .identities
                .iter()
                .map(|identity| identity.live().subscribe())
                .collect(),
        };
        tokio::spawn(sweeper.run());
    }

    fn now(&self) -> u64 {
        self.admission.as_ref().map_or(0, |admission| admission.now().as_secs())
    }

    fn until_first_end(&self) -> Duration {
        let first_end = self.first_end.load(Ordering::Acquire);
        let until = Duration::from_secs(first_end.saturating_sub(self.now()).saturating_add(1));
        until.min(LOOK)
    }

    async fn sweep(&self) {
        let anew = self.anew.swap(false, Ordering::AcqRel);
        self.first_end.store(u64::MAX, Ordering::Release);
        let now = self.now();
        let connections: Vec<_> = self.lock().connections.values().cloned().collect();
        let count = u32::try_from(connections.len()).unwrap_or(u32::MAX);
        let mut ended = 0;
        for (n, rests) in (1..).zip(&connections) {
            if !rests.has_ended() {
                match rests.judge_at(now, anew) {
                    Ok(()) => {
                        self.first_end.fetch_min(rests.not_after(), Ordering::AcqRel);
                    }
                    Err(why) => {
                        let window = APART.saturating_mul(count).min(rests.grace / 2);
                        rests.end(why, spread(ended, window));
                        ended += 1;
                    }
                }
            }
            if n % BATCH == 0 {
                yield_now().await;
            }
        }
        if ended > 0 {
            tracing::info!(ended, of = count, "connections rest on what was revoked: they end");
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

/// The n-th of any number of places in a window, each far from those before it.
fn spread(n: u32, window: Duration) -> Duration {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    window.mul_f64((f64::from(n) * GOLDEN).fract())
}

struct Sweeper {
    table: Weak<Table>,
    wake: Arc<Notify>,
    trust: Option<Changes<AnchorsView>>,
    identities: Vec<Changes<IdentityView>>,
}

impl Sweeper {
    async fn run(mut self) {
        loop {
            // Also at the start: what happened before the subscription nobody has told.
            let Some(table) = self.table.upgrade() else { return };
            table.sweep().await;
            let pause = table.until_first_end();
            drop(table);
            self.wait(pause).await;
        }
    }

    /// Until something has changed, somebody wakes us, or time is up.
    async fn wait(&mut self, pause: Duration) {
        let wake = Arc::clone(&self.wake);
        let mut woken = pin!(wake.notified());
        let mut pause = pin!(sleep(pause));
        poll_fn(|context| {
            let ready = [
                self.trust.as_mut().is_some_and(|changes| changed(changes, context)),
                self.identities
                    .iter_mut()
                    .fold(false, |any, changes| changed(changes, context) | any),
                woken.as_mut().poll(context).is_ready(),
                pause.as_mut().poll(context).is_ready(),
            ];
            match ready.contains(&true) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

fn changed(changes: &mut (impl Stream + Unpin), context: &mut Context<'_>) -> bool {
    Pin::new(changes).poll_next(context).is_ready()
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Some(table) = self.table.upgrade() {
            table.sweeping.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_closes_at_once_and_the_rest_all_over_the_window() {
        let window = Duration::from_millis(1000);
        let mut at: Vec<_> = (0..100).map(|n| spread(n, window).as_millis()).collect();
        assert_eq!(at[0], 0);
        at.sort_unstable();
        let gaps: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| (4..=20).contains(gap)), "{gaps:?}");
        assert!(at.last().is_some_and(|last| *last < 1000));
    }
}
