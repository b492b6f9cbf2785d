//! R1: a snapshot is one publication, and publications never go backwards, however fast the writer is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keydir::{Broken, Candidates, Dir, Parsed, Revision, Unusable, Usage, View};
use keydir_integration::{Entry, Tree, eventually};

/// The full counts are for `cargo xtask prove torn`.
fn scale() -> u64 {
    std::env::var("KEYDIR_PROVE").map_or(1, |_| 20)
}

/// Every file of publication n holds n, over and over. The whole is n, or none if the files are of several.
struct Numbers;

impl View for Numbers {
    type Item = u64;
    type Whole = Option<u64>;

    fn usage(&self) -> &Usage {
        const USAGE: Usage = Usage::new("number").naming(&[&["key"]]).accepts();
        &USAGE
    }

    fn parse(&self, revision: &Revision<'_>) -> Result<Parsed<u64>, Unusable> {
        number(revision.need("key")?)
            .map(Parsed::new)
            .ok_or_else(|| Unusable::new("torn", "it is torn in itself"))
    }

    fn combine(&self, keys: &Candidates<'_, u64>) -> Result<Option<u64>, Broken> {
        let mut numbers: Vec<u64> = keys.iter().map(|(_, number)| **number).collect();
        numbers.dedup();
        Ok(if let [number] = numbers[..] { Some(number) } else { None })
    }
}

fn content(number: u64, size: usize) -> Vec<u8> {
    number.to_be_bytes().repeat(size / 8)
}

/// The number that stands all over `content`, if it is the same one everywhere.
fn number(content: &[u8]) -> Option<u64> {
    let first = content.first_chunk()?;
    (content[8..] == content[..content.len() - 8]).then(|| u64::from_be_bytes(*first))
}

fn files(number: u64) -> BTreeMap<String, Entry> {
    let file = |(id, size): (u32, usize)| (format!("r{id}.key"), Entry::File(content(number, size)));
    [(1, 65536), (2, 32), (3, 32)].into_iter().map(file).collect()
}

/// Reads by the visible links, one after the other, as programs do that know nothing of the layout.
fn naive(dir: &Path) -> Option<bool> {
    let read = |id: u32| number(&fs::read(dir.join(format!("..data/r{id}.key"))).ok()?);
    let numbers: Vec<u64> = (1..=3).map(read).collect::<Option<_>>()?;
    Some(numbers.windows(2).any(|pair| pair[0] != pair[1]))
}

#[test]
fn reads_of_the_kubelet_layout_are_never_torn() {
    let reads = 50_000 * scale();
    let mut tree = Tree::new();
    tree.publish(&files(0));
    let path = tree.path().to_owned();
    let live = Dir::open(&path).unwrap().view(Numbers).unwrap();
    let (done, published) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut seen, mut last, mut overtaken) = (0_u64, 0, 0_u64);
    let (mut naive_reads, mut naive_torn) = (0_u64, 0_u64);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1.. {
                tree.publish(&files(number));
                published.store(number, Ordering::SeqCst);
                if done.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        for _ in 0..reads {
            naive_reads += 1;
            naive_torn += u64::from(naive(&path) == Some(true));
            overtaken += u64::from(live.dir().reload().is_err());
            let set = live.load();
            let number = set.whole().expect("the set holds parts of two publications");
            assert!(number >= last, "went back from {last} to {number}");
            assert_eq!(set.len(), 3);
            seen += u64::from(number != last);
            last = number;
        }
        done.store(true, Ordering::SeqCst);
    });
    println!(
        "torn: {reads} reads, {seen} publications seen of {}, {overtaken} overtaken; naive reader: {naive_torn} of {naive_reads} torn",
        published.load(Ordering::SeqCst)
    );
    assert!(seen >= 500 * scale(), "only {seen} publications were seen");
    assert!(
        naive_torn * 1000 >= naive_reads,
        "the naive reader tore only {naive_torn} of {naive_reads}"
    );
}

#[test]
fn a_plain_directory_is_read_only_when_it_stands_still() {
    let tree = Tree::new();
    let write = |number: u64| {
        for (name, entry) in files(number) {
            let Entry::File(content) = entry else { unreachable!() };
            let hidden = tree.path().join(format!(".{name}"));
            fs::write(&hidden, content).unwrap();
            fs::rename(hidden, tree.path().join(name)).unwrap();
        }
    };
    write(0);
    let live = Dir::builder(tree.path())
        .poll(Duration::from_millis(20))
        .open()
        .unwrap()
        .view(Numbers)
        .unwrap();
    let mut next = 1;

    // While the writer never pauses, the last set is kept.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        write(next);
        next += 1;
        assert_eq!(live.load().whole(), &Some(0));
    }
    assert!(next > 50, "the writer was too slow to prove anything: {next}");

    // With pauses, every publication is seen, and none is torn.
    let mut changes = live.subscribe();
    for _ in 0..10 * scale() {
        write(next);
        eventually("the publication is seen", || {
            if let Some(change) = changes.try_recv() {
                assert!(change.now.whole().is_some(), "torn");
            }
            *live.load().whole() == Some(next)
        });
        next += 1;
    }
}
