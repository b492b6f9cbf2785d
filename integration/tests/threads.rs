//! The threads of keydir: there while somebody needs them, gone afterwards; and what happens when inotify is used up.
//! One process, one test after the other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

use std::fs;
use std::time::Duration;

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
