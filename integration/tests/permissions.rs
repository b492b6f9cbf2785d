//! Faults of reading that root would not notice. They have a process of their own, whose threads all gave up root's
//! right to read everything.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use keydir::{Dir, Hold, Live};
use keydir_integration::views::Tokens;
use keydir_integration::{Entry, Tree, eventually, without_read_override};

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
fn a_directory_that_may_not_be_read_for_a_while() {
    without_read_override();
    let mut tree = published(&one());
    let live = open(tree.path());
    let mode = |mode| fs::set_permissions(tree.path(), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o000);
    assert_held(&live, "Permission denied");
    mode(0o700);
    tree.publish(&two());
    assert_follows(&live, "two");
}

#[test]
fn files_that_are_too_large_too_many_or_unreadable() {
    without_read_override();
    let big = |size| Entry::File(vec![b'x'; size]);
    let mut tree = published(&one());
    let dir = Dir::builder(tree.path()).limits(1000, 3000, 10).open().unwrap();
    let live = dir.view(Tokens::default()).unwrap();

    // A fault of its revision alone: held if it was good before, set aside if not.
    for bad in [big(1001), Entry::Unreadable] {
        tree.publish(&entries([("r1.token.primary", bad.clone()), ("r2.token", bad)]));
        dir.reload().unwrap();
        let set = live.snapshot();
        let held = set.state(set.primary().unwrap()).unwrap().held.clone();
        assert!(matches!(held, Some(Hold::Unusable(_))), "{held:?}");
        assert_eq!((primary(&live).as_str(), set.len()), ("one", 1));
    }

    // A fault of the directory.
    let four = ["r1.token.primary", "r2.token", "r3.token", "r4.token"].map(|name| (name, big(900)));
    tree.publish(&entries(four));
    assert_held(&live, "more than 3000 bytes in all");
    let many = (0..11).map(|n| (format!("r{n}.token"), "x".into())).collect();
    tree.publish(&many);
    assert_held(&live, "more than 10 entries");
    tree.publish(&two());
    assert_follows(&live, "two");
}
