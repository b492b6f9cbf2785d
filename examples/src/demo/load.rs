//! Clients that keep the servers busy: new connections, resumed ones, and some that are kept alive throughout.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::{Side, client};
use crate::client::{Client, Connection, RequestError};
use crate::failure::Failure;
use crate::target::Target;

/// Each client sends two requests so often: one on its kept connection, one on its short-lived one.
const TICK: Duration = Duration::from_millis(10);
/// A short-lived connection carries so many requests.
const REQUESTS: u32 = 4;

/// Everything that is counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) requests: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) handshakes: AtomicU64,
    pub(super) resumed: AtomicU64,
    first_failure: Mutex<Option<String>>,
}

pub(super) struct Load {
    counters: Arc<Counters>,
    stop: watch::Sender<bool>,
    /// Each gives back how often its kept connection was renewed.
    clients: Vec<JoinHandle<u32>>,
}

/// How it went.
pub(super) struct Outcome {
    pub(super) failed: u64,
    pub(super) first_failure: Option<String>,
    requests: u64,
    handshakes: u64,
    resumed: u64,
    renewed: u32,
}

impl Load {
    pub(super) fn start(sides: &[Side], targets: &[Target; 2]) -> Result<Self, Failure> {
        let counters = Arc::<Counters>::default();
        let (stop, stopped) = watch::channel(false);
        let [in_memory, in_tickets] = targets;
        let mut clients = Vec::new();
        for (number, side) in sides.iter().enumerate() {
            let target = if number % 2 == 0 { in_memory } else { in_tickets };
            let worker = Worker {
                client: client(side)?,
                side: side.clone(),
                target: target.clone(),
                counters: Arc::clone(&counters),
            };
            clients.push(tokio::spawn(worker.work(stopped.clone())));
        }
        Ok(Self {
            counters,
            stop,
            clients,
        })
    }

    pub(super) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Lets every request finish, and counts.
    pub(super) async fn stop(self) -> Outcome {
        let _ = self.stop.send(true);
        let mut renewed = 0;
        for client in self.clients {
            match client.await {
                Ok(times) => renewed += times,
                Err(error) => self.counters.fail(&format!("a client ended: {error}")),
            }
        }
        let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let first_failure = self.counters.first_failure.lock();
        Outcome {
            failed: count(&self.counters.failed),
            first_failure: first_failure.unwrap_or_else(PoisonError::into_inner).clone(),
            requests: count(&self.counters.requests),
            handshakes: count(&self.counters.handshakes),
            resumed: count(&self.counters.resumed),
            renewed,
        }
    }
}

impl Outcome {
    pub(super) fn lines(&self) -> [String; 2] {
        let Self {
            requests,
            handshakes,
            resumed,
            renewed,
            ..
        } = self;
        [
            format!("{requests} requests, {handshakes} handshakes, {resumed} of them resumed"),
            format!("{renewed} times a kept connection was renewed in time, so that none was cut"),
        ]
    }
}

impl Counters {
    fn fail(&self, why: &str) {
        self.failed.fetch_add(1, Ordering::SeqCst);
        let mut first = self.first_failure.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| why.to_owned());
    }
}

struct Worker {
    client: Client,
    side: Side,
    target: Target,
    counters: Arc<Counters>,
}

impl Worker {
    async fn work(mut self, mut stop: watch::Receiver<bool>) -> u32 {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut kept = None;
        let mut short = None;
        let mut carried = 0;
        let mut renewed = 0;
        loop {
            tokio::select! {
                _ = stop.changed() => break,
                _ = ticks.tick() => {}
            }
            if kept.as_ref().is_some_and(Connection::is_stale) {
                kept = None;
                renewed += 1;
            }
            self.request(&mut kept).await;
            if carried == REQUESTS || short.as_ref().is_some_and(Connection::is_stale) {
                (short, carried) = (None, 0);
            }
            self.request(&mut short).await;
            carried += 1;
        }
        renewed
    }

    /// One request, on a new connection if there is none.
    async fn request(&mut self, connection: &mut Option<Connection>) {
        let done = match connection {
            Some(connection) => connection.get(&self.target).await.map(|status| status.as_u16()),
            None => self.connect(connection).await,
        };
        self.counters.requests.fetch_add(1, Ordering::SeqCst);
        let why = match done {
            Ok(200) => return,
            Ok(status) => format!("the server answered {status}"),
            Err(error) => error.causes(),
        };
        *connection = None;
        self.counters.fail(&why);
    }

    /// A new connection and its first request. The leaf is held meanwhile: who retires it can see in the report that a
    /// handshake rests on it. A TLS 1.3 server has not looked at it before the first answer is there.
    async fn connect(&mut self, place: &mut Option<Connection>) -> Result<u16, RequestError> {
        let leaf = self.side.identity.primary().ok();
        let _held = leaf.as_ref().map(|leaf| leaf.hold());
        let mut connection = self.client.connect(&self.target).await?;
        let status = connection.get(&self.target).await?;
        self.counters.handshakes.fetch_add(1, Ordering::SeqCst);
        if connection.handshake().resumed {
            self.counters.resumed.fetch_add(1, Ordering::SeqCst);
        }
        *place = Some(connection);
        Ok(status.as_u16())
    }
}
