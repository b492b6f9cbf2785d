//! P1: reading the current set and its primary, beside a bare `ArcSwap`, while a writer swaps.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use keydir::{Broken, Candidates, Dir, Live, Parsed, Reader, Revision, Unusable, Usage, View, uses};
use rustix::time::ClockId;

use crate::Work;
use crate::callgrind;
use crate::stats::{computed, mean, median, quantile};
use crate::table::{Table, nanoseconds};

/// Loads of which each time is taken for the tail.
const BATCH: usize = 256;
/// Batches of one kind before it is the other's turn.
const SLICE: usize = 64;
const SWAP_EVERY: Duration = Duration::from_millis(10);

/// A token that is a number.
struct Numbers;

struct Number(u64);

impl View for Numbers {
    type Item = Number;
    type Whole = ();

    fn usage(&self) -> &Usage {
        const USAGE: Usage = uses::TOKEN;
        &USAGE
    }

    fn parse(&self, revision: &Revision<'_>) -> Result<Parsed<Number>, Unusable> {
        let number = revision.text("token")?.parse();
        Ok(Parsed::new(Number(
            number.map_err(|_| Unusable::new("number", "no number"))?,
        )))
    }

    fn combine(&self, _: &Candidates<'_, Number>) -> Result<(), Broken> {
        Ok(())
    }
}

/// As deep as ours: the set, its primary or a reason, the key, what is in it.
struct BareSet {
    primary: Result<Arc<BareKey>, String>,
}

struct BareKey {
    _id: String,
    item: Arc<Number>,
}

impl BareSet {
    fn new(number: u64) -> Arc<Self> {
        let key = BareKey {
            _id: format!("r{number}"),
            item: Arc::new(Number(number)),
        };
        Arc::new(Self {
            primary: Ok(Arc::new(key)),
        })
    }
}

struct Both {
    live: Live<Numbers>,
    bare: ArcSwap<BareSet>,
}

impl Both {
    fn new() -> Self {
        let dir = Dir::in_memory([("r0.token.primary", "0")]);
        Self {
            live: dir.view(Numbers).unwrap(),
            bare: ArcSwap::new(BareSet::new(0)),
        }
    }

    fn swap(&self, number: u64) {
        let file = (format!("r{number}.token.primary"), number.to_string());
        self.live.dir().publish([file]).unwrap();
        self.bare.store(BareSet::new(number));
    }
}

#[inline(never)]
fn loads_of_live(live: &Live<Numbers>, count: usize) -> u64 {
    let mut sum = 0;
    for _ in 0..count {
        let set = black_box(live).load();
        sum += set.primary().map_or(0, |key| key.0);
    }
    sum
}

#[inline(never)]
fn loads_of_reader(reader: &mut Reader<Numbers>, count: usize) -> u64 {
    let mut sum = 0;
    for _ in 0..count {
        let set = black_box(&mut *reader).load();
        sum += set.primary().map_or(0, |key| key.0);
    }
    sum
}

#[inline(never)]
fn loads_of_bare(bare: &ArcSwap<BareSet>, count: usize) -> u64 {
    let mut sum = 0;
    for _ in 0..count {
        let set = black_box(bare).load();
        sum += set.primary.as_ref().map_or(0, |key| key.item.0);
    }
    sum
}

/// Of one kind: nanoseconds a load, computed, by slice; and elapsed, by batch.
#[derive(Default)]
struct Times {
    slices: Vec<f64>,
    batches: Vec<f64>,
}

impl Times {
    fn slice(&mut self, mut loads: impl FnMut(usize) -> u64) {
        let begun = computed(ClockId::ThreadCPUTime);
        for _ in 0..SLICE {
            let begun = Instant::now();
            black_box(loads(BATCH));
            self.batches.push(begun.elapsed().as_secs_f64() * 1e9 / BATCH as f64);
        }
        let took = computed(ClockId::ThreadCPUTime) - begun;
        self.slices.push(took.as_secs_f64() * 1e9 / (SLICE * BATCH) as f64);
    }
}

pub(crate) fn bench(work: Work) {
    let mut table = Table::new();
    let all = thread::available_parallelism().map_or(1, usize::from);
    let seconds = Duration::from_millis(work.of(10_000) as u64);
    for threads in [1, all] {
        let [live, reader, bare] = &mut times(threads, seconds);
        let name = format!("{threads} thread{}", if threads == 1 { "" } else { "s" });
        let mut row = |what: &str, ours: &mut Times, goal| {
            // Pairs of neighbours: what the machine does else hits both.
            let mut ratios: Vec<f64> = ours.slices.iter().zip(&bare.slices).map(|(a, b)| a / b).collect();
            let ratio = median(&mut ratios);
            table.ratio(
                &format!("{what}, {name}: mean"),
                nanoseconds(mean(&ours.slices)),
                nanoseconds(mean(&bare.slices)),
                ratio,
                goal,
            );
            let tails = [&mut *ours, &mut *bare].map(|times| quantile(&mut times.batches, 0.999));
            table.ratio(
                &format!("{what}, {name}: p99.9"),
                nanoseconds(tails[0]),
                nanoseconds(tails[1]),
                tails[0] / tails[1],
                None,
            );
        };
        row("`load` + `primary`", live, Some(1.1));
        row("`Reader::load` + `primary`", reader, Some(0.3));
    }
    let [live, reader, bare] = ["live", "reader", "bare"]
        .map(|kind| callgrind::cost(&format!("loads_of_{kind}"), &["load", kind], work.of(100_000)));
    for (what, ours, goal) in [("`load`", live, 1.1), ("`Reader::load`", reader, 0.3)] {
        table.ratio(
            &format!("{what} + `primary`: instructions"),
            format!("{:.2}", ours.instructions),
            format!("{:.2}", bare.instructions),
            ours.instructions / bare.instructions,
            Some(goal),
        );
    }
    table.count(
        "`load` + `primary`: allocations",
        live.allocations,
        Some(bare.allocations),
        Some(0.0),
    );
    table.count(
        "`Reader::load` + `primary`: allocations",
        reader.allocations,
        Some(bare.allocations),
        Some(0.0),
    );
    table.print();
}

/// All kinds by turns, on so many threads at once, while a writer swaps both.
fn times(threads: usize, during: Duration) -> [Times; 3] {
    let both = Both::new();
    let done = AtomicBool::new(false);
    let mut sum: [Times; 3] = Default::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1.. {
                thread::sleep(SWAP_EVERY);
                if done.load(Ordering::Relaxed) {
                    return;
                }
                both.swap(number);
            }
        });
        let read = || {
            let mut reader = both.live.reader();
            let [mut live, mut cached, mut bare]: [Times; 3] = Default::default();
            let begun = Instant::now();
            while begun.elapsed() < during {
                bare.slice(|count| loads_of_bare(&both.bare, count));
                live.slice(|count| loads_of_live(&both.live, count));
                cached.slice(|count| loads_of_reader(&mut reader, count));
            }
            [live, cached, bare]
        };
        let readers: Vec<_> = (0..threads).map(|_| scope.spawn(read)).collect();
        for reader in readers {
            for (sum, times) in sum.iter_mut().zip(reader.join().unwrap()) {
                sum.slices.extend(times.slices);
                sum.batches.extend(times.batches);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    sum
}

/// Loads of one kind, with ten swaps among them, to be counted.
pub(crate) fn inside(arguments: &[&str]) {
    let [kind, count] = arguments else {
        panic!("kind and count")
    };
    let count = count.parse::<usize>().unwrap() / 10;
    let both = Both::new();
    let mut reader = both.live.reader();
    // The first load of a thread makes a place for its guards.
    drop((both.live.load(), both.bare.load()));
    for number in 1..=10 {
        both.swap(number);
        let sum = match *kind {
            "live" => loads_of_live(&both.live, count),
            "reader" => loads_of_reader(&mut reader, count),
            "bare" => loads_of_bare(&both.bare, count),
            other => panic!("no kind {other}"),
        };
        assert_eq!(sum, number * count as u64);
    }
}
