//! What a recorder of the facade `metrics` is told: the same series as the report has, and the end of each.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use keydir::{Broken, Candidates, Dir, Fingerprint, Live, Parsed, Piece, Revision, Unusable, Usage, View};
use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// Keeps the value of each series, by its text.
#[derive(Default)]
struct Kept {
    values: Mutex<BTreeMap<String, f64>>,
    described: Mutex<HashSet<String>>,
    panics: AtomicBool,
}

struct Cell(&'static Kept, String);

impl Cell {
    fn with(&self, change: impl FnOnce(&mut f64)) {
        assert!(!self.0.panics.load(Ordering::SeqCst), "the recorder panics");
        change(lock(&self.0.values).entry(self.1.clone()).or_default());
    }
}

impl CounterFn for Cell {
    fn increment(&self, value: u64) {
        self.with(|now| *now += value as f64);
    }

    fn absolute(&self, _: u64) {
        panic!("not asked for");
    }
}

impl GaugeFn for Cell {
    fn increment(&self, _: f64) {
        panic!("not asked for");
    }

    fn decrement(&self, _: f64) {
        panic!("not asked for");
    }

    fn set(&self, value: f64) {
        self.with(|now| *now = value);
    }
}

struct Handle(&'static Kept);

impl Handle {
    fn cell(&self, key: &Key) -> Arc<Cell> {
        assert!(lock(&self.0.described).contains(key.name()), "{key}");
        let mut series = key.name().to_owned();
        let mut separator = '{';
        for label in key.labels() {
            write!(series, "{separator}{}={:?}", label.key(), label.value()).unwrap();
            separator = ',';
        }
        Arc::new(Cell(self.0, series + "}"))
    }
}

impl Recorder for Handle {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        assert!(name.as_str().ends_with("_total"));
        lock(&self.0.described).insert(name.as_str().to_owned());
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        lock(&self.0.described).insert(name.as_str().to_owned());
    }

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        panic!("there are none");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Tokens;

impl View for Tokens {
    type Item = ();
    type Whole = ();

    fn usage(&self) -> &Usage {
        const USAGE: Usage = Usage::new("login").naming(&[&["token"]]).text(&["token"]).presents();
        &USAGE
    }

    fn parse(&self, revision: &Revision<'_>) -> Result<Parsed<()>, Unusable> {
        let text = revision.text("token")?;
        let validity = Piece {
            fingerprint: Fingerprint::of(text.as_bytes()),
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000),
        };
        Ok(Parsed::new(()).piece(validity))
    }

    fn combine(&self, _: &Candidates<'_, ()>) -> Result<(), Broken> {
        Ok(())
    }
}

/// The series of the report's text.
fn reported(dir: &Dir) -> BTreeMap<String, f64> {
    let mut report = keydir::report();
    report.directories = vec![dir.report()];
    let text = report.prometheus();
    let series = text.lines().filter(|line| !line.starts_with('#'));
    let series = series.map(|line| line.rsplit_once(' ').unwrap());
    series
        .map(|(series, value)| (series.to_owned(), value.parse().unwrap()))
        .collect()
}

fn publish(live: &Live<Tokens>, files: &[(&str, &str)]) {
    live.dir().publish(files.iter().copied()).unwrap();
}

/// One test, since a process has one recorder.
#[test]
fn a_recorder_is_told_what_the_report_says() {
    let kept: &'static Kept = Box::leak(Box::default());
    metrics::set_global_recorder(Handle(kept)).unwrap_or_else(|_| panic!("there is a recorder"));
    let values = || lock(&kept.values).clone();

    let dir = Dir::in_memory([("r1.token.primary", "one")]);
    let live = dir.view(Tokens).unwrap();
    assert_eq!(values(), reported(&dir));
    assert!(values().keys().any(|series| series.starts_with("keydir_adopted{")));

    // What rests on a revision is told with the next look.
    let first = live.primary().unwrap().hold();
    publish(&live, &[("r1.token", "one"), ("r2.token.primary", "two")]);
    let series = |name: &str, revision: &str, more: &str| {
        format!("keydir_revision_{name}{{directory=\"(memory)\",use=\"login\",revision=\"{revision}\"{more}}}")
    };
    assert_eq!(values()[&series("uses", "r1", "")], 1.0);
    let as_primary = series("not_after_timestamp_seconds", "r1", ",primary=\"true\"");
    let mut rest = values();
    assert!(rest.remove(&as_primary).unwrap().is_nan(), "r1 is the primary no more");
    assert_eq!(rest, reported(&dir));

    // What is gone is 0, or no time at all, and counters stay.
    drop(first);
    publish(&live, &[("r2.token.primary", "two")]);
    let now = values();
    for name in ["in_force", "primary", "held", "pending", "uses"] {
        assert_eq!(now[&series(name, "r1", "")], 0.0, "{name}");
    }
    assert!(now[&series("not_after_timestamp_seconds", "r1", ",primary=\"false\"")].is_nan());
    assert_eq!(
        now["keydir_revocations_total{directory=\"(memory)\",use=\"login\"}"],
        1.0
    );
    let of_r2 = |values: &BTreeMap<String, f64>| -> Vec<_> {
        let of_it = values.iter().filter(|(series, _)| !series.contains("r1"));
        of_it.map(|(series, value)| (series.clone(), *value)).collect()
    };
    assert_eq!(of_r2(&now), of_r2(&reported(&dir)));

    // A recorder that panics harms nobody else.
    kept.panics.store(true, Ordering::SeqCst);
    publish(&live, &[("r3.token.primary", "three")]);
    assert_eq!(live.primary().unwrap().id().as_str(), "r3");
    assert!(dir.report().fault.is_none());
    kept.panics.store(false, Ordering::SeqCst);
    publish(&live, &[("r4.token.primary", "four")]);
    assert_eq!(values()[&series("primary", "r4", "")], 1.0);

    // A directory that is closed, and opened again: counters go on.
    let loads = "keydir_loads_total{directory=\"(memory)\",outcome=\"ok\"}";
    let before = values()[loads];
    drop((live, dir));
    // A thread that has just looked at it may be the last to let go.
    let start = Instant::now();
    while !values()["keydir_adopted{directory=\"(memory)\",use=\"login\"}"].is_nan()
        || values()[&series("primary", "r4", "")] != 0.0
    {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing was taken back");
        std::thread::yield_now();
    }
    let again = Dir::in_memory([("r1.token.primary", "one")]);
    let _live = again.view(Tokens).unwrap();
    assert_eq!(values()[loads], before + 1.0);
}
