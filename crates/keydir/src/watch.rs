//! The process's one notifier: says which directories something happened to. The only place that knows notify.
//!
//! It may be absent, exhausted or blind; polling backs it up, so that nothing here is ever fatal.

use std::collections::{BTreeSet, HashMap, HashSet};
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
    by_task: HashMap<u64, Vec<PathBuf>>,
    by_dir: HashMap<PathBuf, Vec<Wanted>>,
    /// What the notifier watches.
    watched: HashMap<PathBuf, Identity>,
    /// Where what is wanted and what is watched may differ: so that one directory of many costs no look at the others.
    changed: BTreeSet<PathBuf>,
}

struct Wanted {
    task: u64,
    name: Option<OsString>,
    identity: Identity,
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
            lock(table).lose(&dir);
            complete = false;
        } else {
            let table = lock(table);
            fresh.extend(table.by_dir.get(&dir).into_iter().flatten().map(|wanted| wanted.task));
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
                        table.lose(path);
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
    fn change(&mut self, Request { task, interests }: Request) {
        for dir in self.by_task.remove(&task).unwrap_or_default() {
            if let Some(wanted) = self.by_dir.get_mut(&dir) {
                wanted.retain(|wanted| wanted.task != task);
                if wanted.is_empty() {
                    self.by_dir.remove(&dir);
                }
            }
            self.changed.insert(dir);
        }
        if interests.is_empty() {
            return;
        }
        let dirs = interests.iter().map(|interest| interest.dir.clone());
        self.by_task.insert(task, dirs.collect());
        for Interest { dir, name, identity } in interests {
            self.changed.insert(dir.clone());
            self.by_dir
                .entry(dir)
                .or_default()
                .push(Wanted { task, name, identity });
        }
    }

    /// A watch is gone, or could not be had.
    fn lose(&mut self, dir: &Path) {
        self.watched.remove(dir);
        if self.by_dir.contains_key(dir) {
            self.changed.insert(dir.to_owned());
        }
    }

    /// What is to be watched, and what no longer.
    fn differences(&mut self) -> (Vec<(PathBuf, Identity)>, Vec<PathBuf>) {
        let (mut add, mut remove) = (Vec::new(), Vec::new());
        for dir in std::mem::take(&mut self.changed) {
            let watched = self.watched.get(&dir).copied();
            match self.by_dir.get(&dir) {
                None if watched.is_some() => remove.push(dir),
                None => {}
                // The latest look is right, should they disagree.
                Some(wanted) => match wanted.last().map(|wanted| wanted.identity) {
                    Some(identity) if watched != Some(identity) => add.push((dir, identity)),
                    _ => {}
                },
            }
        }
        (add, remove)
    }

    fn wanted(&self, path: &Path, tasks: &mut HashSet<u64>) {
        if let Some(wanted) = self.by_dir.get(path) {
            tasks.extend(wanted.iter().map(|wanted| wanted.task));
        }
        let (Some(dir), name) = (path.parent(), path.file_name()) else {
            return;
        };
        for wanted in self.by_dir.get(dir).into_iter().flatten() {
            if wanted.name.is_none() || wanted.name.as_deref() == name {
                tasks.insert(wanted.task);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIRS: [&str; 4] = ["/a", "/b", "/c", "/d"];

    /// A task's next wish, as indices of directories; or a directory whose watch is lost.
    fn step() -> impl Strategy<Value = Result<(u64, Vec<usize>), usize>> {
        let dirs = proptest::collection::vec(0..DIRS.len(), 0..3);
        prop_oneof![3 => (0..4u64, dirs).prop_map(Ok), 1 => (0..DIRS.len()).prop_map(Err)]
    }

    /// What `bring_in_line` does if all goes well.
    fn bring_in_line(table: &mut Table) {
        let (add, remove) = table.differences();
        for dir in remove {
            assert!(table.watched.remove(&dir).is_some());
        }
        table.watched.extend(add);
    }

    proptest! {
        #[test]
        fn whatever_is_wanted_is_watched_and_nothing_else(steps in proptest::collection::vec(step(), 0..40)) {
            let mut table = Table::default();
            let mut wishes: HashMap<u64, Vec<usize>> = HashMap::new();
            for step in steps {
                match step {
                    Ok((task, dirs)) => {
                        let interests = dirs.iter().map(|dir| Interest {
                            dir: DIRS[*dir].into(),
                            name: None,
                            identity: Identity::for_tests(1),
                        });
                        table.change(Request { task, interests: interests.collect() });
                        wishes.insert(task, dirs);
                    }
                    Err(dir) => table.lose(Path::new(DIRS[dir])),
                }
                bring_in_line(&mut table);
                let wanted: BTreeSet<_> = wishes.values().flatten().map(|dir| PathBuf::from(DIRS[*dir])).collect();
                prop_assert_eq!(table.watched.keys().cloned().collect::<BTreeSet<_>>(), wanted.clone());
                for dir in DIRS {
                    let mut tasks = HashSet::new();
                    table.wanted(Path::new(dir), &mut tasks);
                    let expected = wishes.iter().filter(|(_, dirs)| dirs.iter().any(|of| DIRS[*of] == dir));
                    prop_assert_eq!(tasks, expected.map(|(task, _)| *task).collect::<HashSet<_>>());
                }
                prop_assert!(table.changed.is_empty(), "one change costs no look at all the others");
            }
        }
    }

    #[test]
    fn a_directory_that_was_replaced_is_watched_anew() {
        let mut table = Table::default();
        let mut see = |identity| {
            let interest = Interest {
                dir: "/a".into(),
                name: None,
                identity: Identity::for_tests(identity),
            };
            table.change(Request {
                task: 1,
                interests: vec![interest],
            });
            let (add, _) = table.differences();
            table.watched.extend(add.clone());
            add.len()
        };
        assert_eq!([see(1), see(1), see(2), see(2)], [1, 0, 1, 0]);
    }
}
