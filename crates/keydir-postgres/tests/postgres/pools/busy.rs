//! Workers that keep a pool busy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Pool, SIZE};
use crate::server::PATIENCE;

/// They ask the server something all the time.
pub(super) struct Busy {
    workers: JoinSet<Vec<String>>,
    done: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
}

impl Busy {
    /// As many as there are sessions: bb8 gives a session that comes back to whoever asks next, and lets others starve.
    pub(super) fn start(pool: &Pool) -> Self {
        let (done, answers) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut workers = JoinSet::new();
        for _ in 0..SIZE {
            workers.spawn(ask(pool.clone(), Arc::clone(&done), Arc::clone(&answers)));
        }
        Self { workers, done, answers }
    }

    /// Until they had so many answers more.
    pub(super) async fn until_more(&self, more: u64) {
        let goal = self.answers.load(Ordering::Relaxed) + more;
        let come = async {
            while self.answers.load(Ordering::Relaxed) < goal {
                sleep(Duration::from_millis(1)).await;
            }
        };
        assert!(timeout(PATIENCE, come).await.is_ok(), "there are no answers");
    }

    /// What has failed.
    pub(super) async fn stop(self) -> Vec<String> {
        self.done.store(true, Ordering::Relaxed);
        self.workers.join_all().await.concat()
    }
}

async fn ask(pool: Pool, done: Arc<AtomicBool>, answers: Arc<AtomicU64>) -> Vec<String> {
    let mut failed = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let answer = async {
            let client = pool.get().await?;
            client.query_one("SELECT 1", &[]).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        };
        match answer.await {
            Ok(()) => drop(answers.fetch_add(1, Ordering::Relaxed)),
            Err(error) => {
                failed.push(error.to_string());
                sleep(Duration::from_millis(1)).await;
            }
        }
    }
    failed
}
