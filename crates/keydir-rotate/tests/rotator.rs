//! One directory, on a real disk, with everything that can go wrong between two steps.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails shall panic"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use keydir::{Files, Publisher};
use keydir_rotate::{
    Directory, Links, LocalStore, Now, Phase, Rotator, Set, Settings, Situation, State, Step, Store, StoreError,
};
use tempfile::TempDir;

const BEGIN: u64 = 1_795_392_000;
const LENGTHS: &str = "rotate_every = '1 day'\npropagation = '2 min'\noverlap = '1 hour'\n";

/// In memory where there is such a place: a disk makes the syncs slow, and nothing else different.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

fn settings(path: &Path, more: &str) -> Settings {
    let text = format!("[[directory]]\npath = '{}'\n{LENGTHS}{more}\n", path.display());
    Settings::parse(&text, "policy.toml").unwrap()
}

fn at(wall: u64) -> Now {
    Now { wall, since_jump: None }
}

fn alone(wall: u64) -> Situation<'static> {
    static NONE: LazyLock<Links> = LazyLock::new(Links::default);
    Situation {
        consumers: &[],
        links: &NONE,
        now: at(wall),
    }
}

fn files(path: &Path) -> Files {
    Publisher::open(path).unwrap().current().unwrap()
}

fn names(files: &Files) -> String {
    let names: Vec<&str> = files
        .keys()
        .map(String::as_str)
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.join(" ")
}

/// Runs until the first rotation has ended; every set on the way.
fn rotate<S: Store>(rotator: &mut Rotator<S>, mut published: impl FnMut()) -> Vec<Step> {
    let (mut now, mut steps) = (BEGIN, Vec::new());
    while !steps.iter().any(|step| matches!(step, Step::Retire(_))) {
        match rotator.step(&alone(now)).unwrap() {
            Some(step) => {
                published();
                if step == Step::Begin {
                    rotator.change(at(now), Set::request).unwrap();
                }
                steps.push(step);
            }
            None => now += 60,
        }
    }
    steps
}

#[test]
fn a_directory_is_begun_and_rotated() {
    for (make, parts) in [
        ("make = 'token'", "token"),
        ("make = 'password'", "password"),
        ("make = { symmetric = 32 }", "key"),
        ("make = { key_pair = 'ed25519' }", "private public"),
    ] {
        let folder = folder();
        let path = folder.path().join("keys");
        let settings = settings(&path, make);
        let mut rotator = Rotator::of(&settings.directories[0]);
        let mut seen = Vec::new();
        let steps = rotate(&mut rotator, || seen.push(names(&files(&path))));
        seen.dedup();
        let r = |id: &str| id.parse().unwrap();
        assert_eq!(
            steps,
            [Step::Begin, Step::Stage, Step::Promote(r("r2")), Step::Retire(r("r1"))]
        );
        let of = |id: &str, marked: bool| {
            let parts: Vec<&str> = parts.split(' ').collect();
            // The mark is on the first naming part.
            let name = |(number, part): (usize, &&str)| {
                let mark = if marked && number == 0 { ".primary" } else { "" };
                format!("{id}.{part}{mark}")
            };
            parts.iter().enumerate().map(name).collect::<Vec<_>>().join(" ")
        };
        let expected = [
            of("r1", true),
            format!("{} {}", of("r1", true), of("r2", false)),
            format!("{} {}", of("r1", false), of("r2", true)),
            of("r2", true),
        ];
        assert_eq!(seen, expected, "{make}");
    }
}

/// A store that fails at one of its calls: before anything is done, or after.
struct Fails {
    inner: LocalStore,
    left: usize,
    after: bool,
}

impl Fails {
    fn now(&mut self) -> bool {
        self.left = self.left.wrapping_sub(1);
        self.left == 0
    }
}

impl Store for Fails {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn read(&mut self) -> Result<Files, StoreError> {
        if self.now() {
            return Err(StoreError::new("injected"));
        }
        self.inner.read()
    }

    fn update(&mut self, next: &mut dyn FnMut(&Files) -> Option<Files>) -> Result<(), StoreError> {
        match self.now() {
            true if self.after => {
                self.inner.update(next)?;
                Err(StoreError::new("injected"))
            }
            true => Err(StoreError::new("injected")),
            false => self.inner.update(next),
        }
    }
}

/// A program that makes and takes away something outside: a file by the revision's name.
fn outside(folder: &Path) -> String {
    let script = folder.join("outside.sh");
    let accounts = folder.join("accounts");
    fs::create_dir_all(&accounts).unwrap();
    let text = format!(
        "case $1 in\nmint) test -f {0}/$KEYDIR_REVISION || echo secret-$KEYDIR_REVISION > {0}/$KEYDIR_REVISION\n\
         printf '{{\"username\": \"u-%s\", \"password\": \"%s\"}}' $KEYDIR_REVISION $(cat {0}/$KEYDIR_REVISION);;\n\
         destroy) rm -f {0}/$KEYDIR_REVISION;;\nesac\n",
        accounts.display()
    );
    fs::write(&script, text).unwrap();
    let script = script.display();
    format!("make = {{ command = {{ mint = ['sh', '{script}', 'mint'], destroy = ['sh', '{script}', 'destroy'] }} }}")
}

fn accounts(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder.join("accounts")).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Whatever fails, whenever, and whoever goes on: the same end, always with a primary, and nothing is left outside.
#[test]
fn a_failure_at_any_call_changes_nothing_of_the_end() {
    let mut failures = 0;
    for after in [false, true] {
        for call in 1.. {
            let folder = folder();
            let path = folder.path().join("logins");
            let settings = settings(&path, &outside(folder.path()));
            let directory = &settings.directories[0];
            let store = Fails {
                inner: LocalStore::new(&path),
                left: call,
                after,
            };
            let failed = finish(&mut Rotator::with_store(directory, store));
            if failed {
                failures += 1;
                let left = files(&path);
                let is_begun = names(&left).contains(".primary");
                assert!(is_begun || names(&left).is_empty(), "{}", names(&left));
                // Another process goes on.
                assert!(!finish(&mut Rotator::of(directory)));
            }
            assert_eq!(names(&files(&path)), "r2.password.primary r2.username");
            assert_eq!(
                accounts(folder.path()),
                BTreeSet::from(["r2".to_owned()]),
                "call {call}, after {after}"
            );
            if !failed {
                break;
            }
        }
    }
    assert!(failures > 15, "{failures}");
}

/// One rotation, and everything that belongs to it; whether a failure came in between.
fn finish<S: Store>(rotator: &mut Rotator<S>) -> bool {
    let mut now = BEGIN;
    loop {
        let step = rotator.look(&alone(now)).and_then(|look| {
            if look.state.number == 1 && !look.state.requested {
                rotator.change(at(now), Set::request)?;
            }
            Ok((look.state, rotator.step(&alone(now))?))
        });
        match step {
            Ok((_, Some(_))) => {}
            Ok((state, None)) if state.number == 2 && state.revisions.len() == 1 => return false,
            Ok((_, None)) => now += 60,
            Err(error) => {
                assert!(error.to_string().contains("injected"), "{error}");
                return true;
            }
        }
    }
}

#[test]
fn a_program_that_fails_changes_nothing() {
    let folder = folder();
    let path = folder.path().join("logins");
    let mut now = BEGIN;
    let good = settings(&path, &outside(folder.path()));
    let mut rotator = Rotator::of(&good.directories[0]);
    assert_eq!(rotator.step(&alone(now)).unwrap(), Some(Step::Begin));
    rotator.change(at(now), Set::request).unwrap();
    for (mint, said) in [
        ("['false']", "false has failed"),
        ("['/nonexistent/program']", "cannot be run"),
        ("['echo', 'hello']", "has to print a JSON object"),
        ("['echo', '{}']", "has to print a JSON object"),
        ("['echo', '{\"primary\": \"x\"}']", "has to print a JSON object"),
    ] {
        let bad = settings(&path, &format!("make = {{ command = {{ mint = {mint} }} }}"));
        let error = Rotator::of(&bad.directories[0]).step(&alone(now)).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        assert!(error.to_string().contains("logins"), "{error}");
        assert_eq!(names(&files(&path)), "r1.password.primary r1.username");
    }
    // The intent is there, and is taken up by whoever can.
    let state = State::of_files(&files(&path)).unwrap().unwrap();
    assert_eq!(state.in_phase(Phase::Intended).count(), 1);
    now += 1;
    assert_eq!(rotator.step(&alone(now)).unwrap(), Some(Step::Stage));
    assert_eq!(
        names(&files(&path)),
        "r1.password.primary r1.username r2.password r2.username"
    );
}

#[test]
fn what_is_broken_is_told_and_left_alone() {
    let folder = folder();
    let path: PathBuf = folder.path().join("keys");
    let settings = settings(&path, "make = 'token'");
    let directory: &Directory = &settings.directories[0];
    let mut publisher = Publisher::open(&path).unwrap();
    for (state, said) in [("{", "is broken"), (r#"{"version": 7}"#, "version 7")] {
        publisher
            .publish(
                &[
                    ("r1.token.primary".into(), "1".into()),
                    (".rotation.json".into(), state.into()),
                ]
                .into(),
            )
            .unwrap();
        let before = publisher.current().unwrap();
        drop(publisher);
        let error = Rotator::of(directory).step(&alone(BEGIN)).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        publisher = Publisher::open(&path).unwrap();
        assert!(publisher.current().unwrap() == before);
    }
    publisher
        .publish(&[("r1.token.primary".into(), "1".into())].into())
        .unwrap();
    // Another writer has it.
    let error = Rotator::of(directory).step(&alone(BEGIN)).unwrap_err();
    assert!(error.to_string().contains("another writer"), "{error}");
}

/// A volume that is not there yet, or a folder that may not be seen, is no directory that wants to be begun.
#[test]
fn what_cannot_be_seen_is_not_empty() {
    let folder = folder();
    let path = folder.path().join("keys");
    std::os::unix::fs::symlink(folder.path().join("nowhere"), &path).unwrap();
    let settings = settings(&path, "make = 'token'");
    let error = Rotator::of(&settings.directories[0]).look(&alone(BEGIN)).unwrap_err();
    assert!(error.to_string().contains("cannot open it"), "{error}");
}

#[test]
fn two_rotators_do_each_step_once() {
    let folder = folder();
    let path = folder.path().join("keys");
    let settings = settings(&path, "make = 'token'");
    let work = || {
        let mut rotator = Rotator::of(&settings.directories[0]);
        let mut done = Vec::new();
        for minute in 0..400 {
            // One that finds the other at work tries again.
            loop {
                let asked = match minute % 100 {
                    50 => rotator.change(at(BEGIN + minute * 60), Set::request),
                    _ => Ok(()),
                };
                match asked.and_then(|()| rotator.step(&alone(BEGIN + minute * 60))) {
                    Ok(None) => break,
                    Ok(Some(_)) if minute % 100 == 50 => break,
                    Ok(Some(step)) => done.push(step),
                    Err(error) => assert!(error.to_string().contains("another writer"), "{error}"),
                }
            }
        }
        done
    };
    std::thread::scope(|scope| {
        let both = [scope.spawn(work), scope.spawn(work)];
        for one in both {
            one.join().unwrap();
        }
    });
    let state = State::of_files(&files(&path)).unwrap().unwrap();
    let staged = state.in_phase(Phase::Staged).count();
    let retiring = state.in_phase(Phase::Retiring).count();
    assert!(staged + retiring <= 1, "{state:?}");
    assert_eq!(state.in_phase(Phase::Primary).count(), 1);
}
