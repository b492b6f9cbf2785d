//! The process's one notifier: says which directories something happened to. The only place that knows notify.
//!
//! It may be absent, exhausted or blind; polling backs it up, so that nothing here is ever fatal.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::interest::Interest;

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
    watched: BTreeMap<PathBuf, (u64, u64)>,
    by_dir: HashMap<PathBuf, Vec<(u64, Option<std::ffi::OsString>)>>,
}

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
    while let Ok(request) = inbox.recv() {
        if notifier.is_none() {
            notifier = start_notifier(&table, handler);
        }
        let (add, remove) = lock(&table).change(request);
        let Some(notifier) = &mut notifier else {
            lock(&table).watched.clear();
            continue;
        };
        for dir in remove {
            // It fails for what is gone already.
            let _ = notifier.unwatch(&dir);
        }
        for dir in add {
            if let Err(error) = notifier.watch(&dir, RecursiveMode::NonRecursive) {
                tracing::warn!(directory = %dir.display(), %error, "cannot be watched; it is polled");
                lock(&table).watched.remove(&dir);
            }
        }
    }
}

fn start_notifier(table: &Arc<Mutex<Table>>, handler: &Handler) -> Option<RecommendedWatcher> {
    let (table, handler) = (Arc::clone(table), Arc::clone(handler));
    let started = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let happened = match event {
            Ok(event) if event.need_rescan() => Happened::ToAny,
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
    /// Takes up a request; which directories are to be watched and no longer watched for it.
    fn change(&mut self, request: Request) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let before = match request.interests.is_empty() {
            true => self.by_task.remove(&request.task),
            false => self.by_task.insert(request.task, request.interests.clone()),
        };
        for interest in before.unwrap_or_default() {
            if let Some(wanted) = self.by_dir.get_mut(&interest.dir) {
                wanted.retain(|(task, _)| *task != request.task);
            }
        }
        let mut add = Vec::new();
        for interest in request.interests {
            if self.watched.get(&interest.dir) != Some(&interest.identity) {
                self.watched.insert(interest.dir.clone(), interest.identity);
                add.push(interest.dir.clone());
            }
            self.by_dir
                .entry(interest.dir)
                .or_default()
                .push((request.task, interest.name));
        }
        self.by_dir.retain(|_, wanted| !wanted.is_empty());
        let remove: Vec<PathBuf> = self
            .watched
            .keys()
            .filter(|dir| !self.by_dir.contains_key(*dir))
            .cloned()
            .collect();
        self.watched.retain(|dir, _| self.by_dir.contains_key(dir));
        (add, remove)
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
