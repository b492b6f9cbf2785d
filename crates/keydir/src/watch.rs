//! The process's one notifier: says which directories something happened to. The only place that knows notify.
//!
//! It may be absent, exhausted or blind; polling backs it up, so that nothing here is ever fatal.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::interest::{Identity, Interest};

/// What happened: to these directories, or perhaps to any (the queue of events overflowed).
pub(crate) enum Happened {
    To(HashSet<u64>),
    ToAny,
}

type Handler = Arc<dyn Fn(Happened) + Send + Sync>;

/// Asks for watches from a thread of its own, since asking may hang where a file system is dead.
pub(crate) struct Watch {
    requests: Sender<Request>,
}

struct Request {
    task: u64,
    /// Empty: nothing any more.
    interests: Vec<Interest>,
}

/// Who wants to know of what.
#[derive(Default)]
struct Table {
    by_task: HashMap<u64, Vec<Interest>>,
    by_dir: HashMap<PathBuf, Vec<(u64, Option<OsString>)>>,
    /// What the notifier watches.
    watched: BTreeMap<PathBuf, Identity>,
}

/// How long to wait before what could not be watched is tried again.
const RETRY: Duration = Duration::from_secs(60);

impl Watch {
    pub(crate) fn start(handler: Handler) -> std::io::Result<Self> {
        let (requests, inbox) = channel();
        std::thread::Builder::new()
            .name("keydir-notify".to_owned())
            .spawn(move || serve(&inbox, &handler))?;
        Ok(Self { requests })
    }

    /// From now on, `task` wants to know of these, and of nothing else.
    pub(crate) fn set(&self, task: u64, interests: Vec<Interest>) {
        let _ = self.requests.send(Request { task, interests });
    }
}

/// Ends when the [`Watch`] is dropped, and takes the notifier along.
fn serve(inbox: &Receiver<Request>, handler: &Handler) {
    let table = Arc::new(Mutex::new(Table::default()));
    let mut notifier: Option<RecommendedWatcher> = None;
    let mut complete = true;
    loop {
        let request = match complete {
            true => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => inbox.recv_timeout(RETRY),
        };
        match request {
            Ok(request) => lock(&table).change(request),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if notifier.is_none() {
            notifier = start_notifier(&table, handler);
        }
        complete = notifier
            .as_mut()
            .is_some_and(|notifier| bring_in_line(notifier, &table, handler));
    }
}

/// Has exactly what is wanted watched; false if something could not be.
fn bring_in_line(notifier: &mut RecommendedWatcher, table: &Mutex<Table>, handler: &Handler) -> bool {
    let (add, remove) = lock(table).differences();
    for dir in remove {
        // It fails for what is gone already.
        let _ = notifier.unwatch(&dir);
        lock(table).watched.remove(&dir);
    }
    let mut complete = true;
    let mut fresh = HashSet::new();
    for (dir, identity) in add {
        // Said before it is watched: an event that takes it away again must not come too early.
        lock(table).watched.insert(dir.clone(), identity);
        if let Err(error) = notifier.watch(&dir, RecursiveMode::NonRecursive) {
            tracing::warn!(directory = %dir.display(), %error, "cannot be watched; it is polled");
            lock(table).watched.remove(&dir);
            complete = false;
        } else {
            let table = lock(table);
            fresh.extend(table.by_dir.get(&dir).into_iter().flatten().map(|(task, _)| task));
        }
    }
    // What happened between their last look and this watch, nobody has told.
    if !fresh.is_empty() {
        handler(Happened::To(fresh));
    }
    complete
}

fn start_notifier(table: &Arc<Mutex<Table>>, handler: &Handler) -> Option<RecommendedWatcher> {
    let (table, handler) = (Arc::clone(table), Arc::clone(handler));
    let started = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let happened = match event {
            Ok(event) if event.need_rescan() => {
                tracing::debug!("events were lost: every directory is looked at");
                Happened::ToAny
            }
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => return,
            Ok(event) => {
                let removed = matches!(
                    event.kind,
                    EventKind::Remove(_) | EventKind::Modify(notify::event::ModifyKind::Name(_))
                );
                let mut table = lock(&table);
                let mut tasks = HashSet::new();
                for path in &event.paths {
                    table.wanted(path, &mut tasks);
                    if removed {
                        // Its watch went with it: whatever appears there next has to be watched anew.
                        table.watched.remove(path);
                    }
                }
                Happened::To(tasks)
            }
            Err(_) => Happened::ToAny,
        };
        if !matches!(&happened, Happened::To(tasks) if tasks.is_empty()) {
            handler(happened);
        }
    });
    started
        .inspect_err(|error| tracing::warn!(%error, "changes cannot be watched; key directories are polled"))
        .ok()
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Table {
    fn change(&mut self, request: Request) {
        let before = match request.interests.is_empty() {
            true => self.by_task.remove(&request.task),
            false => self.by_task.insert(request.task, request.interests.clone()),
        };
        for interest in before.unwrap_or_default() {
            if let Some(wanted) = self.by_dir.get_mut(&interest.dir) {
                wanted.retain(|(task, _)| *task != request.task);
            }
        }
        for interest in request.interests {
            self.by_dir
                .entry(interest.dir)
                .or_default()
                .push((request.task, interest.name));
        }
        self.by_dir.retain(|_, wanted| !wanted.is_empty());
    }

    /// What is to be watched, and what no longer.
    fn differences(&self) -> (Vec<(PathBuf, Identity)>, Vec<PathBuf>) {
        let wanted = self.by_task.values().flatten();
        let missing = wanted.filter(|interest| self.watched.get(&interest.dir) != Some(&interest.identity));
        let add: BTreeMap<_, _> = missing
            .map(|interest| (interest.dir.clone(), interest.identity))
            .collect();
        let remove = self.watched.keys().filter(|dir| !self.by_dir.contains_key(*dir));
        (add.into_iter().collect(), remove.cloned().collect())
    }

    fn wanted(&self, path: &Path, tasks: &mut HashSet<u64>) {
        if let Some(wanted) = self.by_dir.get(path) {
            tasks.extend(wanted.iter().map(|(task, _)| task));
        }
        let (Some(dir), name) = (path.parent(), path.file_name()) else {
            return;
        };
        for (task, wanted) in self.by_dir.get(dir).into_iter().flatten() {
            if wanted.is_none() || wanted.as_deref() == name {
                tasks.insert(*task);
            }
        }
    }
}
