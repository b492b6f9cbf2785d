//! The threads of keydir: there while somebody needs them, gone afterwards; and what happens when inotify is used up.
//! One process, one test after the other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use std::{fs, io};

use keydir::Dir;
use keydir_integration::views::Tokens;
use keydir_integration::{Entry, Tree, eventually, without_events};

fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
    let mut names: Vec<String> = tasks
        .filter_map(|task| name(task.ok()?))
        .map(|name| name.trim().to_owned())
        .collect();
    names.retain(|name| name.starts_with("keydir-") || name.starts_with("notify"));
    names.sort();
    names
}

fn publish(tree: &mut Tree, token: &str) {
    tree.publish(&[("r1.token.primary".to_owned(), Entry::from(token))].into());
}

/// In one process and one after the other, since they count threads and use up inotify.
#[test]
fn threads_and_events() {
    threads_come_and_go_and_a_missing_notifier_is_no_fault();
    events_alone_are_enough();
    lost_events_are_made_up_for();
}

fn threads_come_and_go_and_a_missing_notifier_is_no_fault() {
    // Many directories, one set of threads.
    let mut trees: Vec<Tree> = (0..50).map(|_| Tree::new()).collect();
    trees.iter_mut().for_each(|tree| publish(tree, "one"));
    let open = |tree: &Tree| Dir::open(tree.path()).unwrap().view(Tokens::default()).unwrap();
    let lives: Vec<_> = trees.iter().map(open).collect();
    let running = threads();
    assert!(running.len() <= 5, "{running:?}");
    assert!(running.iter().any(|name| name == "keydir-watch"), "{running:?}");

    // A subscriber alone keeps its set alive, and is told.
    let mut changes = lives[0].subscribe();
    drop(lives);
    publish(&mut trees[0], "two");
    assert_eq!(
        changes
            .recv_timeout(Duration::from_secs(20))
            .unwrap()
            .now
            .primary()
            .unwrap()
            .as_str(),
        "two"
    );

    // After the last user, nothing is left; and the next user starts anew.
    drop(changes);
    eventually("all threads have ended", || threads().is_empty());
    let live = open(&trees[1]);
    assert!(!threads().is_empty());
    drop(live);
    eventually("all threads have ended", || threads().is_empty());

    // No inotify instance is to be had: polling alone.
    let instances = without_events();
    let dir = Dir::builder(trees[2].path())
        .poll(Duration::from_millis(50))
        .open()
        .unwrap();
    let live = dir.view(Tokens::default()).unwrap();
    publish(&mut trees[2], "two");
    eventually("polling sees it", || live.primary().unwrap().as_str() == "two");
    drop(instances);
    drop((live, dir));
    eventually("all threads have ended", || threads().is_empty());
}

fn events_alone_are_enough() {
    let mut tree = Tree::new();
    publish(&mut tree, "one");
    let dir = Dir::builder(tree.path())
        .poll(Duration::from_secs(3600))
        .open()
        .unwrap();
    let live = dir.view(Tokens::default()).unwrap();
    for n in 0..20 {
        let token = format!("token {n}");
        publish(&mut tree, &token);
        eventually("an event tells", || live.primary().unwrap().as_str() == token);
    }
}

/// Says that it is over, also if the test panics.
struct AtTheEnd<'a>(&'a AtomicBool);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

static LOST: AtomicUsize = AtomicUsize::new(0);

/// Counts how often keydir says that events were lost.
struct CountLost;

impl io::Write for CountLost {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if String::from_utf8_lossy(line).contains("events were lost") {
            LOST.fetch_add(1, Ordering::SeqCst);
        }
        Ok(line.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The queue of inotify overflows again and again while another directory is published to: whose event is lost then,
/// nobody knows. There is no polling to help.
fn lost_events_are_made_up_for() {
    const LIMIT: &str = "/proc/sys/fs/inotify/max_queued_events";
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
        .with_writer(|| CountLost)
        .init();
    eventually("all threads have ended", || threads().is_empty());
    let mut trees = [Tree::new(), Tree::new(), Tree::new()];
    for (tree, token) in trees.iter_mut().zip(["noisy", "even", "odd"]) {
        publish(tree, token);
    }
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("current");
    // A single event tells of it.
    let swap = |to: &Tree| {
        let next = folder.path().join(".next");
        symlink(to.path(), &next).unwrap();
        fs::rename(next, &link).unwrap();
    };
    swap(&trees[1]);
    let before = fs::read_to_string(LIMIT).unwrap();
    let may_set = fs::write(LIMIT, "8").is_ok();
    let open = |path: &Path| {
        let dir = Dir::builder(path).poll(Duration::from_secs(3600));
        dir.open().unwrap().view(Tokens::default()).unwrap()
    };
    let (_noise, live) = (open(trees[0].path()), open(&link));
    // A queue has the limit of the time when it was made.
    eventually("the notifier runs", || {
        threads().iter().any(|name| name.starts_with("notify"))
    });
    if may_set {
        fs::write(LIMIT, before).unwrap();
    }

    let over = AtomicBool::new(false);
    let noisy = trees[0].path();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (over, names) = (&over, [0, 1].map(|n| noisy.join(format!("..noise {thread} {n}"))));
            scope.spawn(move || {
                fs::write(&names[0], "").unwrap();
                while !over.load(Ordering::SeqCst) {
                    fs::rename(&names[0], &names[1]).unwrap();
                    fs::rename(&names[1], &names[0]).unwrap();
                }
            });
        }
        let _end = AtTheEnd(&over);
        for _ in 0..100 {
            for (tree, token) in [(&trees[2], "odd"), (&trees[1], "even")] {
                swap(tree);
                eventually("the publication is seen", || live.primary().unwrap().as_str() == token);
            }
        }
    });
    let lost = LOST.load(Ordering::SeqCst);
    println!("threads: events were lost {lost} times");
    // Only root can make the queue so short that it surely overflows.
    assert!(lost > 0 || !may_set, "the fault did not happen");
}
