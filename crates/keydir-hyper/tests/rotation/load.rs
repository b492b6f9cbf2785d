//! Callers that ask without a pause while something rotates, and what came of it.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const CALLERS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(60);
/// What was not answered by then has failed.
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) const ALPN: [&str; 2] = ["http/1.1", "h2"];

fn of(proof: u64, test: u64) -> u64 {
    if env::var_os("KEYDIR_PROVE").is_some() {
        proof
    } else {
        test
    }
}

pub(crate) fn rotations() -> u64 {
    of(200, 10)
}

/// Of the ways that do not hold.
pub(crate) fn rotations_of_a_control() -> u64 {
    of(20, 5)
}

/// So many requests end between two steps of a rotation.
pub(crate) fn a_step() -> usize {
    usize::try_from(of(200, 25)).unwrap()
}

/// How often somebody tries what was removed, for each removal.
pub(crate) const TRIES: usize = 5;

/// Tells the other side which revisions were removed when the request began: all before this one.
pub(crate) const FLOOR: &str = "x-floor";

pub(crate) struct Load {
    state: Arc<State>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    floor: AtomicU64,
    stop: AtomicBool,
    ok: AtomicUsize,
    on_removed: AtomicUsize,
    ended: [AtomicUsize; CALLERS],
    errors: Mutex<BTreeMap<String, usize>>,
}

impl Load {
    /// `ask` sends one request, told what was removed before it; the answer is the revision that carried it, where the
    /// client is the one to say.
    pub(crate) fn start<F>(ask: impl Fn(u64) -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = Result<Option<u64>, String>> + Send,
    {
        let state = Arc::<State>::default();
        let call = |n: usize| {
            let (state, ask) = (Arc::clone(&state), ask.clone());
            tokio::spawn(async move {
                while !state.stop.load(SeqCst) {
                    let floor = state.floor.load(SeqCst);
                    let answer = timeout(LIMIT, ask(floor)).await;
                    state.note(floor, answer.unwrap_or_else(|_| Err("no answer".to_owned())));
                    state.ended[n].fetch_add(1, SeqCst);
                }
            })
        };
        Self {
            tasks: (0..CALLERS).map(call).collect(),
            state,
        }
    }

    fn ended(&self) -> [usize; CALLERS] {
        self.state.ended.each_ref().map(|ended| ended.load(SeqCst))
    }

    /// So many requests more have ended.
    pub(crate) async fn step(&self) {
        let before: usize = self.ended().iter().sum();
        until("requests end", || {
            self.ended().iter().sum::<usize>() >= before + a_step()
        })
        .await;
    }

    /// What is under way now has ended.
    pub(crate) async fn settled(&self) {
        let before = self.ended();
        let all = || self.ended().iter().zip(before).all(|(now, before)| *now > before);
        until("what was under way ends", all).await;
    }

    /// Requests that begin from now on may not be carried by a revision before this one.
    pub(crate) fn removed_before(&self, revision: u64) {
        self.state.floor.store(revision, SeqCst);
    }

    pub(crate) async fn end(self) -> Counts {
        self.state.stop.store(true, SeqCst);
        for task in self.tasks {
            timeout(PATIENCE, task).await.unwrap().unwrap();
        }
        let errors = self.state.errors.lock().unwrap().clone();
        Counts {
            ok: self.state.ok.load(SeqCst),
            failed: errors.values().sum(),
            on_removed: self.state.on_removed.load(SeqCst),
            errors,
        }
    }
}

impl State {
    fn note(&self, floor: u64, answer: Result<Option<u64>, String>) {
        match answer {
            Ok(carried_by) => {
                self.ok.fetch_add(1, SeqCst);
                if carried_by.is_some_and(|revision| revision < floor) {
                    self.on_removed.fetch_add(1, SeqCst);
                }
            }
            Err(error) => *self.errors.lock().unwrap().entry(error).or_default() += 1,
        }
    }
}

/// As the client counts.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) ok: usize,
    pub(crate) failed: usize,
    /// Where the client is the one to say.
    pub(crate) on_removed: usize,
    pub(crate) errors: BTreeMap<String, usize>,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests, {} failed", self.ok + self.failed, self.failed)
    }
}

/// Waits until it is so.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "still not so: {what}");
        sleep(Duration::from_millis(1)).await;
    }
}
