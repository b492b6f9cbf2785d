//! Any tree of names and bytes, in any layout, and any sequence of such trees: a set or a typed error, never a panic,
//! never a hang; and the next good publication is followed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use keydir::{Dir, OpenErrorKind, Problem, ReadError, uses};
use keydir_integration::views::AnyUse;
use keydir_integration::{Entry, Tree};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

fn name() -> impl Strategy<Value = String> {
    let id = prop_oneof![
        "r[0-3]",
        "[a-zA-Z0-9_.-]{1,8}",
        Just("tls".to_owned()),
        Just("flat".to_owned())
    ];
    let parts: Vec<&str> = uses::ALL.iter().flat_map(|usage| usage.parts()).collect();
    let part = prop_oneof![8 => prop::sample::select(parts).prop_map(str::to_owned), 1 => "[a-z]{1,5}"];
    let file = (id, part, any::<bool>()).prop_map(|(id, part, marked)| {
        let mark = if marked { ".primary" } else { "" };
        format!("{id}.{part}{mark}")
    });
    prop_oneof![
        10 => file,
        2 => "r[0-3][.]revoked",
        1 => "[^/\0]{1,20}",
        1 => Just(".rotation.json".to_owned()),
    ]
    .prop_filter("no names that mean something to the file system", |name| {
        !name.starts_with("..") && name != "."
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let pem = |label: &str| {
        let label = label.to_owned();
        prop::collection::vec(any::<u8>(), 0..60).prop_map(move |bytes| {
            let body: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            Entry::File(format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n").into_bytes())
        })
    };
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Entry::File),
        4 => "[ -~\n]{0,40}".prop_map(|text| Entry::File(text.into_bytes())),
        1 => pem("CERTIFICATE"),
        1 => pem("PRIVATE KEY"),
        1 => prop::sample::select(fixtures()).prop_map(Entry::File),
        1 => Just(Entry::Fifo),
        1 => Just(Entry::Dir(BTreeMap::new())),
        1 => prop_oneof!["r[0-3][.]key", "[.]{2}/x", "/dev/zero", Just("..data".to_owned())].prop_map(Entry::Link),
    ]
}

/// Real keys and certificates, so that what is read goes beyond the first check.
fn fixtures() -> Vec<Vec<u8>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/fixtures");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
        .iter()
        .filter(|path| path.is_file())
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

fn tree() -> impl Strategy<Value = BTreeMap<String, Entry>> {
    prop::collection::btree_map(name(), entry(), 0..8)
}

fn assert_sane(problems: &[Problem]) {
    for problem in problems {
        assert_ne!(problem.cause, Some("panic"), "{problem}");
        assert!(!problem.message.is_empty() && !problem.advice.is_empty());
    }
}

fn run(trees: &[BTreeMap<String, Entry>], kubelet: bool, flat: bool, which: usize) {
    let mut on_disk = Tree::new();
    let usage = uses::ALL[which].name();
    let mut live = None;
    for tree in trees {
        match kubelet {
            true => on_disk.publish(tree),
            false => on_disk.replace(tree),
        }
        let Some(live) = &live else {
            let builder = Dir::builder(on_disk.path()).poll(Duration::from_secs(3600));
            let dir = if flat { builder.flat() } else { builder }.open().unwrap();
            match dir.view(AnyUse::named(usage)) {
                Ok(opened) => live = Some(opened),
                Err(error) => assert!(matches!(error.kind, OpenErrorKind::Start { .. }), "{error}"),
            }
            assert_sane(&dir.problems());
            continue;
        };
        let before = live.snapshot();
        if let Err(error) = live.dir().reload() {
            assert!(
                !matches!(error.read, Some(ReadError::Panicked | ReadError::Stuck { .. })),
                "{error}"
            );
        }
        let set = live.snapshot();
        assert_sane(set.problems());
        // What was presented goes on being presented, unless it had to stop.
        assert!(set.primary().is_ok() || before.primary().is_err() || usage == "symmetric" || usage == "signing");
        let report = serde_json::to_string(&live.dir().report()).unwrap();
        assert!(report.contains(usage));
    }
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn in_the_kubelet_layout(trees in prop::collection::vec(tree(), 1..5), flat in prop::bool::weighted(0.2), which in 0..uses::ALL.len()) {
        run(&trees, true, flat, which);
    }
}

proptest! {
    #![proptest_config(config(30))]

    #[test]
    fn in_a_plain_directory(trees in prop::collection::vec(tree(), 1..3), flat in prop::bool::weighted(0.2), which in 0..uses::ALL.len()) {
        run(&trees, false, flat, which);
    }
}
