//! The layout that a publisher leaves, what it refuses, and what is left when it is killed.

use super::*;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

static STEPS_LEFT: AtomicUsize = AtomicUsize::new(usize::MAX);
const CHILD: &str = "KEYDIR_TEST_KILL_AT";

pub(super) fn step() {
    if STEPS_LEFT.load(Ordering::Relaxed) != usize::MAX && STEPS_LEFT.fetch_sub(1, Ordering::Relaxed) == 0 {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

fn files(files: &[(&str, &str)]) -> Files {
    files
        .iter()
        .map(|(name, content)| ((*name).to_owned(), Secret::from(*content)))
        .collect()
}

fn old() -> Files {
    files(&[("r1.token.primary", "one"), ("r0.token", "zero")])
}

fn new() -> Files {
    files(&[
        ("r1.token", "one"),
        ("r2.token.primary", "two"),
        (".rotation.json", "{}"),
    ])
}

fn entries(path: &Path) -> BTreeSet<String> {
    path.read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn leaves_exactly_the_layout_of_the_kubelet() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = Publisher::open(dir.path()).unwrap();
    for set in [old(), new()] {
        publisher.publish(&set).unwrap();
        assert_eq!(publisher.current().unwrap(), set);
        let target = dir
            .path()
            .join("..data")
            .read_link()
            .unwrap()
            .into_os_string()
            .into_string()
            .unwrap();
        let visible = set.keys().filter(|name| !name.starts_with('.')).cloned();
        let expected: BTreeSet<String> = visible.chain([DATA.to_owned(), target]).collect();
        assert_eq!(entries(dir.path()), expected);
        for name in set.keys().filter(|name| !name.starts_with('.')) {
            let mode = dir.path().join(name).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
    drop(publisher);
    let mut publisher = Publisher::open(dir.path()).unwrap().group_readable();
    publisher.publish(&old()).unwrap();
    let mode = dir.path().join("r0.token").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}

#[test]
fn refuses_what_readers_would_not_take() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = Publisher::open(dir.path()).unwrap();
    publisher.publish(&old()).unwrap();
    for (bad, expected) in [
        (files(&[("r1.key.tmp", "")]), "no name of the convention"),
        (files(&[("../r1.key", "")]), "no name of the convention"),
        (files(&[("r1.key", ""), ("R1.crt", "")]), "differ only in case"),
        (
            files(&[("r1.key", &"x".repeat((1 << 20) + 1))]),
            "more than 1048576 bytes",
        ),
    ] {
        let error = publisher.publish(&bad).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(publisher.current().unwrap(), old());
    }
}

#[test]
fn a_plain_directory_is_converted_only_on_purpose() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("r1.token.primary"), "one").unwrap();
    let mut publisher = Publisher::open(dir.path()).unwrap();
    let error = publisher.publish(&new()).unwrap_err();
    assert!(error.to_string().contains("plain directory"), "{error}");
    let mut publisher = publisher.convert();
    let mut set = publisher.current().unwrap();
    set.insert("r2.token".to_owned(), "two".into());
    publisher.publish(&set).unwrap();
    assert_eq!(publisher.current().unwrap(), set);
    assert!(dir.path().join("r1.token.primary").is_symlink());
}

/// Runs in a process of its own, which dies at the step that the parent says.
#[test]
fn child_that_is_killed() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let (step, path) = told.split_once(':').unwrap();
    let mut publisher = Publisher::open(path).unwrap();
    STEPS_LEFT.store(step.parse().unwrap(), Ordering::Relaxed);
    publisher.publish(&new()).unwrap();
}

#[test]
fn killed_at_every_step_and_run_again_ends_the_same() {
    let mut killed = 0;
    for step in 0.. {
        let dir = tempfile::tempdir().unwrap();
        Publisher::open(dir.path()).unwrap().publish(&old()).unwrap();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["publisher::tests::child_that_is_killed", "--exact"])
            .env(CHILD, format!("{step}:{}", dir.path().display()))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        let mut publisher = Publisher::open(dir.path()).unwrap();
        let found = publisher.current().unwrap();
        assert!(
            found == old() || found == new(),
            "step {step}: neither the old set nor the new"
        );
        publisher.publish(&new()).unwrap();
        assert_eq!(publisher.current().unwrap(), new());
        let hidden = entries(dir.path()).into_iter().filter(|name| name.starts_with(".."));
        assert_eq!(hidden.count(), 2, "step {step}: something was left behind");
        if status.success() {
            break;
        }
        killed += 1;
    }
    assert!(killed > 15, "killed at {killed} steps only");
}

#[test]
fn a_set_is_read_whole_while_others_are_published() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = Publisher::open(dir.path()).unwrap();
    publisher.publish(&old()).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..50 {
                publisher.publish(&new()).unwrap();
                publisher.publish(&old()).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let found = Publisher::read(dir.path()).unwrap();
            assert!(found == old() || found == new());
        }
    });
    assert!(Publisher::read(dir.path().join("nowhere")).is_err());
}

#[test]
fn the_lock_goes_with_the_publisher_though_a_child_has_the_directory_open() {
    let folder = tempfile::tempdir().unwrap();
    let publisher = Publisher::open(folder.path()).unwrap();
    // What a fork does.
    let of_the_child = rustix::io::dup(&publisher.root).unwrap();
    assert!(Publisher::open(folder.path()).is_err_and(|error| error.is_locked()));
    drop(publisher);
    assert!(Publisher::open(folder.path()).is_ok());
    drop(of_the_child);
}
