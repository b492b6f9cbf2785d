//! Requests without a pause, and what carried each.

use std::fmt::Display;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

const WORKERS: usize = 6;

/// The numbers of the revisions that a request went out on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Carried {
    pub(crate) server: u64,
    pub(crate) client: u64,
}

impl Carried {
    /// From `r3 CN=r2`.
    pub(crate) fn from(answer: &str) -> Self {
        let (server, client) = answer.split_once(' ').unwrap();
        let number = |name: &str| name.trim_start_matches("CN=").trim_start_matches('r').parse().unwrap();
        Self {
            server: number(server),
            client: number(client),
        }
    }
}

/// How it went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) answered: usize,
    pub(crate) failed: usize,
    /// On what was removed before they began.
    pub(crate) violations: usize,
}

pub(crate) struct Load {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicUsize,
    failed: AtomicUsize,
    violations: AtomicUsize,
    /// What came before these was removed, so that no request that begins now may be carried by it.
    server: AtomicU64,
    client: AtomicU64,
    log: Mutex<Vec<String>>,
}

impl Load {
    pub(crate) fn start<F, E>(request: impl Fn() -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Carried, E>> + Send,
        E: Display + Send,
    {
        let shared = Arc::<Shared>::default();
        let worker = |_| {
            let (shared, request) = (Arc::clone(&shared), request.clone());
            tokio::spawn(async move {
                while !shared.stop.load(SeqCst) {
                    let floor = (shared.server.load(SeqCst), shared.client.load(SeqCst));
                    match request().await {
                        Ok(carried) => shared.answered(floor, carried),
                        Err(error) => {
                            shared.failed.fetch_add(1, SeqCst);
                            shared.log(format!("failed: {error}"));
                        }
                    }
                }
            })
        };
        let workers = (0..WORKERS).map(worker).collect();
        Self { shared, workers }
    }

    /// From now on no request may begin on a server's revision before this one.
    pub(crate) fn servers_from(&self, revision: u64) {
        self.shared.server.store(revision, SeqCst);
    }

    /// From now on no request may begin on a client's revision before this one.
    pub(crate) fn clients_from(&self, revision: u64) {
        self.shared.client.store(revision, SeqCst);
    }

    /// Waits for more answers, so that what comes next happens under load.
    pub(crate) async fn more(&self) {
        let before = self.shared.answered.load(SeqCst);
        while self.shared.answered.load(SeqCst) < before + 60 && self.shared.failed.load(SeqCst) < 100 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends, and makes sure that all was well and that both sides have counted the same.
    pub(crate) async fn end_well(self, served: &AtomicUsize) {
        let shared = Arc::clone(&self.shared);
        let counts = self.end().await;
        println!("{} answered, 0 failed, 0 on what was removed", counts.answered);
        let expected = Counts {
            answered: served.load(SeqCst),
            failed: 0,
            violations: 0,
        };
        let log = shared.log.lock().unwrap();
        assert_eq!(counts, expected, "{log:#?}");
    }

    pub(crate) async fn end(self) -> Counts {
        self.shared.stop.store(true, SeqCst);
        for worker in self.workers {
            worker.await.unwrap();
        }
        Counts {
            answered: self.shared.answered.load(SeqCst),
            failed: self.shared.failed.load(SeqCst),
            violations: self.shared.violations.load(SeqCst),
        }
    }
}

impl Shared {
    fn answered(&self, floor: (u64, u64), carried: Carried) {
        self.answered.fetch_add(1, SeqCst);
        if carried.server < floor.0 || carried.client < floor.1 {
            self.violations.fetch_add(1, SeqCst);
            self.log(format!("{carried:?}, though all before {floor:?} was removed"));
        }
    }

    fn log(&self, line: String) {
        let mut log = self.log.lock().unwrap();
        if log.len() < 20 {
            log.push(line);
        }
    }
}
