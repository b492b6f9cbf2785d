//! A few threads that do what may hang or panic, so that nobody else does.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Something to be done again and again, such as checking a directory.
pub(crate) trait Task: Send + Sync {
    /// Does it. Never runs twice at a time; the workers see to nothing else.
    fn run(self: Arc<Self>);
    /// It has been running for this long.
    fn stuck(&self, running: Duration);
    /// It panicked.
    fn panicked(&self);
}

const THREADS: usize = 2;
/// So many hung threads are given up; further tasks then wait for one of them.
const MAX_WRITTEN_OFF: usize = 64;

#[derive(Clone, Default)]
pub(crate) struct Workers(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    tasks: VecDeque<Arc<dyn Task>>,
    idle: usize,
    /// Threads, those written off not counted.
    threads: usize,
    written_off: usize,
    next_thread: u64,
    running: HashMap<u64, Running>,
    stopped: bool,
}

struct Running {
    task: Arc<dyn Task>,
    since: Instant,
    written_off: bool,
}

impl Workers {
    /// Runs each task as soon as a thread is free.
    pub(crate) fn submit(&self, tasks: impl IntoIterator<Item = Arc<dyn Task>>) {
        let mut queue = self.0.lock();
        queue.tasks.extend(tasks);
        if queue.tasks.is_empty() {
            return;
        }
        if queue.idle > 0 {
            self.0.wake.notify_one();
        } else if queue.threads < THREADS {
            self.spawn(&mut queue);
        }
    }

    /// Whether anything is running or waiting.
    pub(crate) fn is_busy(&self) -> bool {
        let queue = self.0.lock();
        !queue.tasks.is_empty() || queue.running.values().any(|running| !running.written_off)
    }

    /// Writes off the threads whose task has been running for longer than `limit`, and replaces them.
    pub(crate) fn write_off(&self, limit: Duration) {
        let mut hung = Vec::new();
        let mut queue = self.0.lock();
        let mut replace = 0;
        for running in queue.running.values_mut() {
            let elapsed = running.since.elapsed();
            if elapsed >= limit {
                hung.push((Arc::clone(&running.task), elapsed));
                replace += usize::from(!std::mem::replace(&mut running.written_off, true));
            }
        }
        for _ in 0..replace {
            queue.written_off += 1;
            queue.threads = queue.threads.saturating_sub(1);
        }
        while !queue.tasks.is_empty() && queue.threads < THREADS && queue.written_off < MAX_WRITTEN_OFF {
            self.spawn(&mut queue);
            if queue.threads == 0 {
                break;
            }
        }
        drop(queue);
        for (task, elapsed) in hung {
            task.stuck(elapsed);
        }
    }

    /// Lets the threads end when they have nothing to do. Does not wait for them.
    pub(crate) fn stop(&self) {
        self.0.lock().stopped = true;
        self.0.wake.notify_all();
    }

    fn spawn(&self, queue: &mut Queue) {
        let number = queue.next_thread;
        queue.next_thread += 1;
        let shared = Arc::clone(&self.0);
        let spawned = std::thread::Builder::new()
            .name(format!("keydir-read-{number}"))
            .spawn(move || shared.work(number));
        match spawned {
            Ok(_) => queue.threads += 1,
            Err(error) => tracing::error!(%error, "no thread could be started to read key directories"),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, number: u64) {
        let mut queue = self.lock();
        loop {
            let Some(task) = queue.tasks.pop_front() else {
                if queue.stopped {
                    queue.threads = queue.threads.saturating_sub(1);
                    return;
                }
                queue.idle += 1;
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.idle = queue.idle.saturating_sub(1);
                continue;
            };
            if queue.idle > 0 && !queue.tasks.is_empty() {
                self.wake.notify_one();
            }
            let running = Running {
                task: Arc::clone(&task),
                since: Instant::now(),
                written_off: false,
            };
            queue.running.insert(number, running);
            drop(queue);
            let kept = Arc::clone(&task);
            if catch_unwind(AssertUnwindSafe(|| task.run())).is_err() {
                kept.panicked();
            }
            // A task may end the workers when it is dropped, so that must not happen under the lock.
            let ran = self.lock().running.remove(&number);
            let written_off = ran.as_ref().is_some_and(|ran| ran.written_off);
            drop((ran, kept));
            queue = self.lock();
            if written_off {
                // It has come back after all, and was replaced meanwhile.
                queue.written_off = queue.written_off.saturating_sub(1);
                if queue.threads >= THREADS {
                    return;
                }
                queue.threads += 1;
            }
        }
    }
}
