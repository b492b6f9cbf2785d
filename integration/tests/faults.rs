//! Faults of reading, injected one by one: what worked goes on working, the report says what is wrong, and when the
//! fault is gone the directory is followed again. docs/reliability.md lists them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keydir::{Dir, Hold, Live, OpenErrorKind, ReadError};
use keydir_integration::views::{Bad, Tokens};
use keydir_integration::{Entry, ManualClock, Tree, eventually};

fn entries<const N: usize>(entries: [(&str, Entry); N]) -> BTreeMap<String, Entry> {
    entries
        .into_iter()
        .map(|(name, entry)| (name.to_owned(), entry))
        .collect()
}

fn one() -> BTreeMap<String, Entry> {
    entries([("r1.token.primary", "one".into())])
}

fn two() -> BTreeMap<String, Entry> {
    entries([("r1.token", "one".into()), ("r2.token.primary", "two".into())])
}

fn primary(live: &Live<Tokens>) -> String {
    live.primary().unwrap().to_string()
}

fn open(path: &Path) -> Live<Tokens> {
    Dir::builder(path)
        .poll(Duration::from_millis(50))
        .open()
        .unwrap()
        .view(Tokens::default())
        .unwrap()
}

fn published(entries: &BTreeMap<String, Entry>) -> Tree {
    let mut tree = Tree::new();
    tree.publish(entries);
    tree
}

/// The whole directory is held, and `reload` says why.
fn assert_held(live: &Live<Tokens>, reason: &str) {
    eventually("the directory is held", || {
        let set = live.load();
        set.iter()
            .all(|key| set.state(key).is_some_and(|state| state.held == Some(Hold::Unreadable)))
    });
    assert_eq!(primary(live), "one");
    assert!(!live.dir().healthy(Duration::from_secs(60)));
    assert!(!live.load().is_adopted());
    let error = live.dir().reload().unwrap_err().to_string();
    assert!(error.contains(reason) && error.contains(live.dir().path()), "{error}");
    assert!(live.load().primary().unwrap().stands());
}

fn assert_follows(live: &Live<Tokens>, expected: &str) {
    eventually("the directory is followed again", || primary(live) == expected);
    eventually("it is healthy again", || live.dir().healthy(Duration::from_secs(60)));
    assert!(live.load().is_adopted());
}

#[test]
fn a_directory_that_is_not_there() {
    let tree = Tree::new();
    let error = Dir::open(tree.path().join("gone")).unwrap_err();
    assert!(
        matches!(error.kind, OpenErrorKind::Read(ReadError::Io { .. })),
        "{error}"
    );
    assert!(
        error.to_string().contains("gone: cannot open it: No such file"),
        "{error}"
    );
}

#[test]
fn a_directory_that_comes_later_is_waited_for() {
    let tree = Tree::new();
    let path = tree.path().join("a/b");
    let waits = std::thread::spawn({
        let path = path.clone();
        move || {
            Dir::builder(path)
                .wait(Duration::from_secs(20))
                .open()
                .unwrap()
                .view(Tokens::default())
                .unwrap()
        }
    });
    // One thing after the other: a parent, the directory, a set that is not usable, and one that is.
    fs::create_dir(tree.path().join("a")).unwrap();
    let publisher = || keydir::Publisher::open(&path).unwrap();
    publisher()
        .publish(&[("r1.token".to_owned(), "!".into())].into())
        .unwrap();
    publisher()
        .publish(&[("r1.token.primary".to_owned(), "one".into())].into())
        .unwrap();
    assert_eq!(primary(&waits.join().unwrap()), "one");
}

#[test]
fn an_empty_start_serves_what_comes() {
    let tree = Tree::new();
    let dir = Dir::builder(tree.path().join("later")).allow_empty().open().unwrap();
    let live = dir.view(Tokens::default()).unwrap();
    assert_eq!(live.primary().unwrap_err().code(), "missing");
    let mut publisher = keydir::Publisher::open(tree.path().join("later")).unwrap();
    publisher
        .publish(&[("r1.token.primary".to_owned(), "one".into())].into())
        .unwrap();
    eventually("the set comes", || live.primary().is_ok());
}

#[test]
fn a_directory_that_is_removed_and_comes_back() {
    let outer = Tree::new();
    let path = outer.path().join("secrets");
    let publish = |entries: &BTreeMap<String, Entry>| {
        let tree = published(entries);
        let to = outer.path().join("new");
        assert!(
            std::process::Command::new("cp")
                .arg("-a")
                .arg(tree.path())
                .arg(&to)
                .status()
                .unwrap()
                .success()
        );
        fs::rename(to, &path).unwrap();
    };
    publish(&one());
    let live = open(&path);
    fs::remove_dir_all(&path).unwrap();
    assert_held(&live, "No such file");
    publish(&two());
    assert_follows(&live, "two");
}

#[test]
fn links_at_and_above_the_path_are_swapped() {
    let (a, b) = (published(&one()), published(&two()));
    let outer = Tree::new();
    let place = |name: &str, target: &Path| {
        symlink(target, outer.path().join("next")).unwrap();
        fs::rename(outer.path().join("next"), outer.path().join(name)).unwrap();
    };
    place("at", a.path());
    fs::create_dir(outer.path().join("holds-a")).unwrap();
    fs::create_dir(outer.path().join("holds-b")).unwrap();
    symlink(a.path(), outer.path().join("holds-a/secrets")).unwrap();
    symlink(b.path(), outer.path().join("holds-b/secrets")).unwrap();
    place("above", Path::new("holds-a"));
    // No poll helps here: events alone must tell.
    let slow = |path: &str| {
        let dir = Dir::builder(outer.path().join(path))
            .poll(Duration::from_secs(3600))
            .open()
            .unwrap();
        dir.view(Tokens::default()).unwrap()
    };
    let (at, above) = (slow("at"), slow("above/secrets"));
    place("at", b.path());
    place("above", Path::new("holds-b"));
    assert_follows(&at, "two");
    assert_follows(&above, "two");
}

#[test]
fn the_link_data_is_broken_in_every_way() {
    let outside = Tree::new();
    for (break_it, reason) in [
        (
            &(|data: &Path| symlink("..gone", data).unwrap()) as &dyn Fn(&Path),
            "leads nowhere",
        ),
        (&|data| symlink(outside.path(), data).unwrap(), "leaves the directory"),
        (&|data| symlink("..", data).unwrap(), "leaves the directory"),
        (&|data| symlink("..data", data).unwrap(), "loops"),
        (&|data| fs::write(data, "").unwrap(), "is no link"),
        (&|data| fs::create_dir(data).unwrap(), "is no link"),
        (
            &|data| {
                fs::write(data.with_file_name("file"), "").unwrap();
                symlink("file", data).unwrap();
            },
            "leads to no directory",
        ),
    ] {
        let mut tree = published(&one());
        let live = open(tree.path());
        let data = tree.path().join("..data");
        fs::remove_file(&data).unwrap();
        break_it(&data);
        assert_held(&live, reason);
        let _ = fs::remove_dir(&data);
        tree.publish(&two());
        assert_follows(&live, "two");
    }
}

#[test]
fn entries_that_are_no_files_neither_block_nor_act() {
    let outside = Tree::new();
    fs::write(outside.path().join("secret"), "outside").unwrap();
    let to_outside = Entry::Link(outside.path().join("secret").display().to_string());
    for (entry, code) in [
        (Entry::Fifo, "not-regular"),
        (Entry::Socket, "not-regular"),
        (Entry::Dir(BTreeMap::new()), "not-regular"),
        (Entry::Link("r2.token.primary".to_owned()), "link"),
        (Entry::Link("../../../../../../../etc/hostname".to_owned()), "link"),
        (Entry::Link("/dev/zero".to_owned()), "link"),
        (Entry::Link("nowhere".to_owned()), "link"),
        (to_outside, "link"),
    ] {
        let mut tree = published(&one());
        let live = open(tree.path());
        let shown = format!("{entry:?}");
        tree.publish(&entries([("r1.token", "one".into()), ("r2.token.primary", entry)]));
        live.dir().reload().unwrap();
        // It was no candidate before, so the mark on it means nothing, and the last good primary goes on.
        assert_eq!(primary(&live), "one");
        let problems = live.dir().problems();
        let found = problems
            .iter()
            .any(|problem| problem.code == code && problem.subject == "r2.token.primary");
        assert!(found, "{shown}: {problems:?}");
        tree.publish(&two());
        assert_follows(&live, "two");
    }
}

#[test]
fn a_device_is_not_opened() {
    let mut tree = published(&one());
    let live = open(tree.path());
    tree.publish(&entries([("r1.token.primary", "one".into())]));
    let inside = tree.path().join("..data/r2.token");
    // The watchdog's numbers: to open that would act. Nothing answers to it here.
    let status = std::process::Command::new("mknod")
        .arg(&inside)
        .args(["c", "10", "130"])
        .status()
        .unwrap();
    assert!(status.success(), "mknod needs root: run the tests as root");
    live.dir().reload().unwrap();
    let problems = live.dir().problems();
    let found = problems
        .iter()
        .any(|problem| problem.message.contains("device") && problem.subject == "r2.token");
    assert!(found, "{problems:?}");
}

#[test]
fn binary_garbage_names_and_contents() {
    let mut tree = published(&one());
    let live = open(tree.path());
    let garbage: Vec<u8> = (0..=255).rev().collect();
    tree.publish(&entries([
        ("r1.token.primary", Entry::File(garbage.clone())),
        ("r2.token", Entry::File(garbage)),
        ("r3 .token", "x".into()),
        (".hidden", "x".into()),
        ("r1.token.primary~", "x".into()),
        ("r4.REVOKED", "x".into()),
    ]));
    live.dir().reload().unwrap();
    assert_eq!((primary(&live).as_str(), live.load().len()), ("one", 1));
    let codes: Vec<_> = live
        .dir()
        .problems()
        .iter()
        .map(|problem| (problem.code, problem.subject.clone()))
        .collect();
    let expected = [
        ("stray", "r1.token.primary~"),
        ("stray", "r3 .token"),
        ("stray-marker", "r4.REVOKED"),
    ];
    for (code, subject) in expected {
        assert!(codes.contains(&(code, subject.to_owned())), "{codes:?}");
    }
    tree.publish(&two());
    assert_follows(&live, "two");
}

#[test]
fn a_view_that_panics_or_fails_sets_one_revision_aside() {
    for bad in [Bad::Refuses, Bad::PanicsInParse] {
        let mut tree = published(&one());
        let live = Dir::open(tree.path()).unwrap().view(Tokens { bad }).unwrap();
        tree.publish(&entries([
            ("r1.token", "one".into()),
            ("r2.token.primary", "!".into()),
            ("r3.token", "three".into()),
        ]));
        live.dir().reload().unwrap();
        let set = live.snapshot();
        let ids: Vec<_> = set.iter().map(|key| key.id().as_str()).collect();
        assert_eq!(
            (primary(&live).as_str(), ids.as_slice()),
            ("one", ["r1", "r3"].as_slice())
        );
        assert_eq!(set.no_primary().unwrap().code(), "unusable");
    }
}

#[test]
fn a_set_that_cannot_be_combined_leaves_the_last_one_less_what_was_revoked() {
    for bad in [Bad::FailsInCombine, Bad::PanicsInCombine] {
        let mut tree = published(&entries([
            ("r1.token.primary", "one".into()),
            ("r0.token", "zero".into()),
        ]));
        let live = Dir::open(tree.path()).unwrap().view(Tokens { bad }).unwrap();
        let zero = Arc::clone(live.load().get("r0").unwrap());
        tree.publish(&entries([
            ("r1.token", "one".into()),
            ("r0.revoked", "".into()),
            ("r2.token.primary", "!".into()),
        ]));
        live.dir().reload().unwrap();
        let set = live.snapshot();
        let ids: Vec<_> = set.iter().map(|key| key.id().as_str()).collect();
        assert_eq!((ids.as_slice(), set.whole()), (["r1"].as_slice(), &1));
        assert!(set.problems().iter().any(|problem| problem.code == "not-combined"));
        assert!(!zero.stands());
        assert!(!set.is_adopted());
        tree.publish(&two());
        assert_follows(&live, "two");
    }
}

#[test]
fn a_hung_read_is_reported_and_stops_nobody_else() {
    let lock = Arc::new(Mutex::new(()));
    let (mut hangs, mut others) = (published(&one()), published(&one()));
    let bad = Bad::HangsInParse(Arc::clone(&lock));
    let hung = Dir::open(hangs.path()).unwrap().view(Tokens { bad }).unwrap();
    let other = open(others.path());

    let held = lock.lock().unwrap();
    hangs.publish(&entries([
        ("r1.token", "one".into()),
        ("r2.token.primary", "!two".into()),
    ]));
    // Who asks is told, and the last good set goes on.
    let error = hung.dir().reload().unwrap_err();
    assert!(matches!(error.read, Some(ReadError::Stuck { .. })), "{error}");
    assert!(!hung.dir().healthy(Duration::from_secs(60)));
    assert_eq!(primary(&hung), "one");
    let report = keydir::report();
    let fault = report
        .directories
        .iter()
        .find(|dir| dir.path == hung.dir().path())
        .unwrap()
        .fault
        .clone();
    assert!(fault.is_some_and(|fault| fault.contains("hung")));
    // Others go on, and new ones can be opened.
    others.publish(&two());
    assert_follows(&other, "two");
    assert_eq!(primary(&open(published(&one()).path())), "one");

    drop(held);
    eventually("it is followed again", || primary(&hung) == "!two");
    eventually("it is healthy again", || hung.dir().healthy(Duration::from_secs(60)));
}

#[test]
fn another_mount_over_the_directory_is_seen() {
    let tree = published(&one());
    let live = open(tree.path());
    let mount = |args: &[&str]| {
        let status = std::process::Command::new(args[0])
            .args(&args[1..])
            .arg(tree.path())
            .status()
            .unwrap();
        assert!(status.success(), "mounting needs root: run the tests as root");
    };
    mount(&["mount", "-t", "tmpfs", "-o", "size=1m", "keydir-test"]);
    let mut publisher = keydir::Publisher::open(tree.path()).unwrap();
    publisher
        .publish(&[("r2.token.primary".to_owned(), "two".into())].into())
        .unwrap();
    drop(publisher);
    eventually("the new mount is read", || primary(&live) == "two");
    mount(&["umount"]);
    // What is under it again is another publication.
    eventually("the old one is read again", || primary(&live) == "one");
}

#[test]
fn a_full_disk_leaves_the_old_set() {
    let tree = Tree::new();
    let run = |args: &[&str]| {
        let status = std::process::Command::new(args[0])
            .args(&args[1..])
            .arg(tree.path())
            .status()
            .unwrap();
        assert!(status.success(), "mounting needs root: run the tests as root");
    };
    run(&["mount", "-t", "tmpfs", "-o", "size=256k", "keydir-test"]);
    let mut publisher = keydir::Publisher::open(tree.path()).unwrap();
    let old: keydir::Files = [("r1.token.primary".to_owned(), "one".into())].into();
    publisher.publish(&old).unwrap();
    let live = open(tree.path());
    let mut new = old.clone();
    new.insert("r2.token".to_owned(), vec![b'x'; 512 << 10].into());
    let error = publisher.publish(&new).unwrap_err();
    assert!(
        error.to_string().contains("No space left") && !error.published(),
        "{error}"
    );
    assert_eq!(publisher.current().unwrap(), old);
    live.dir().reload().unwrap();
    assert_eq!((primary(&live).as_str(), live.load().is_adopted()), ("one", true));
    // With room again, the same publisher goes on.
    new.insert("r2.token".to_owned(), "two".into());
    publisher.publish(&new).unwrap();
    eventually("the new set is read", || live.load().len() == 2);
    drop((publisher, live));
    run(&["umount", "-l"]);
}

#[test]
fn time_alone_moves_nothing_but_validity() {
    // A clock that jumps back and forth, while nothing is dated.
    let clock = ManualClock::at(1_000_000);
    let tree = published(&one());
    let dir = Dir::builder(tree.path()).clock(Arc::new(clock.clone())).open().unwrap();
    let live = dir.view(Tokens::default()).unwrap();
    let before = live.primary().unwrap();
    for time in [0, u64::from(u32::MAX), 5] {
        clock.set(time);
        dir.reload().unwrap();
        assert!(Arc::ptr_eq(&before, &live.primary().unwrap()));
    }
}
