//! P9: taking an idle session out of a pool and giving it back.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bb8_postgres::PostgresConnectionManager;
use rustix::time::ClockId;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::place::{MODES, Mode, Place};
use super::pool::{KINDS, Kind, Pool, SIZE};
use super::{counted, one_thread};
use crate::Work;
use crate::callgrind::cost;
use crate::stats::{computed, median};
use crate::table::{Table, nanoseconds, number, time};

/// Where the server's processes run makes a difference, for as long as they are there.
const POOLS: usize = 31;
/// Of each side, by turns, with one pool.
const ROUNDS: usize = 11;
const COUNTED: usize = 5_000;
const GOAL: f64 = 1.03;

pub(super) fn bench(work: Work, table: &mut Table) {
    for kind in KINDS {
        for mode in MODES {
            times(work, table, kind, mode);
            let [ours, plain] = ["keydir", "plain"].map(|side| {
                let arguments = ["postgres", "checkout", kind.name(), side, mode.name()];
                cost("postgres::counted", &arguments, work.of(COUNTED))
            });
            let name = format!("{} check-out, {}", kind.name(), mode.name());
            let [instructions, theirs] = [ours, plain].map(|cost| cost.instructions.round());
            let measure = format!("{name}: instructions of the client");
            table.ratio(
                &measure,
                number(instructions),
                number(theirs),
                instructions / theirs,
                None,
            );
            // Those of all that has gone before vary a little.
            let [ours, plain] = [ours, plain].map(|cost| (cost.allocations * 10.0).round().max(0.0) / 10.0);
            table.count(&format!("{name}: allocations of the client"), ours, Some(plain), None);
        }
    }
}

/// bb8 asks the server each time.
fn in_a_round(kind: Kind) -> usize {
    match kind {
        Kind::Deadpool => 5_000,
        Kind::Bb8 => 100,
    }
}

fn times(work: Work, table: &mut Table, kind: Kind, mode: Mode) {
    let (mut ratios, mut all) = (Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..work.of(POOLS) {
        let runtime = one_thread();
        let (ours, plain) = runtime.block_on(async {
            let place = Place::new(mode).await;
            (Side::keydir(&place, kind).await, Side::plain(&place, kind).await)
        });
        for round in 0..ROUNDS {
            let once = |side: &Side| {
                let clock = Clock::start(kind);
                runtime.block_on(side.check_out(in_a_round(kind)));
                clock.read().as_secs_f64() / in_a_round(kind) as f64
            };
            // Each is the first as often as the other.
            let (ours, plain) = match round % 2 {
                0 => (once(&ours), once(&plain)),
                _ => {
                    let plain = once(&plain);
                    (once(&ours), plain)
                }
            };
            ratios.push(ours / plain);
            all[0].push(ours);
            all[1].push(plain);
        }
    }
    let [ours, plain] = all.map(|mut times| match kind {
        Kind::Deadpool => nanoseconds(median(&mut times) * 1e9),
        Kind::Bb8 => time(Duration::from_secs_f64(median(&mut times))),
    });
    let (kind, mode) = (kind.name(), mode.name());
    let measure = format!("{kind} check-out and return, {mode}: time");
    table.ratio(&measure, ours, plain, median(&mut ratios), Some(GOAL));
}

/// What deadpool does is computed here; bb8 waits for the server.
enum Clock {
    Computed(Duration),
    Elapsed(Instant),
}

impl Clock {
    fn start(kind: Kind) -> Self {
        match kind {
            Kind::Deadpool => Self::Computed(computed(ClockId::ThreadCPUTime)),
            Kind::Bb8 => Self::Elapsed(Instant::now()),
        }
    }

    fn read(&self) -> Duration {
        match self {
            Self::Computed(begun) => computed(ClockId::ThreadCPUTime) - *begun,
            Self::Elapsed(begun) => begun.elapsed(),
        }
    }
}

pub(super) fn inside(arguments: &[&str]) {
    let [kind, side, mode, count] = arguments else {
        panic!("kind, side, mode, count")
    };
    let runtime = one_thread();
    let kind = Kind::named(kind);
    let side = runtime.block_on(async {
        let place = Place::new(Mode::named(mode)).await;
        match *side {
            "keydir" => Side::keydir(&place, kind).await,
            _ => Side::plain(&place, kind).await,
        }
    });
    runtime.block_on(side.check_out(100));
    counted(&runtime, side.check_out(count.parse().unwrap()));
}

/// A pool that is full of idle sessions.
enum Side {
    Keydir(Pool),
    Deadpool(deadpool_postgres::Pool),
    Bb8(bb8::Pool<PostgresConnectionManager<MakeRustlsConnect>>),
}

impl Side {
    async fn keydir(place: &Place, kind: Kind) -> Self {
        let pool = Pool::new(kind, &place.login, None).await;
        pool.fill().await;
        Self::Keydir(pool)
    }

    async fn plain(place: &Place, kind: Kind) -> Self {
        let (config, tls) = (place.config(), place.tls());
        match kind {
            Kind::Deadpool => {
                let pool = deadpool_postgres::Pool::builder(deadpool_postgres::Manager::new(config, tls));
                let pool = pool.max_size(SIZE).build().unwrap();
                let mut taken = Vec::new();
                for _ in 0..SIZE {
                    taken.push(pool.get().await.unwrap());
                }
                Self::Deadpool(pool)
            }
            Kind::Bb8 => {
                let pool = bb8::Pool::builder().max_size(SIZE as u32);
                let pool = pool.build(PostgresConnectionManager::new(config, tls)).await.unwrap();
                let mut taken = Vec::new();
                for _ in 0..SIZE {
                    taken.push(pool.get_owned().await.unwrap());
                }
                Self::Bb8(pool)
            }
        }
    }

    async fn check_out(&self, count: usize) {
        macro_rules! check_out {
            ($pool:expr) => {
                for _ in 0..count {
                    drop(black_box($pool.get().await.unwrap()));
                }
            };
        }
        match self {
            Self::Keydir(Pool::Deadpool(pool)) => check_out!(pool),
            Self::Keydir(Pool::Bb8(pool, _)) => check_out!(pool),
            Self::Deadpool(pool) => check_out!(pool),
            Self::Bb8(pool) => check_out!(pool),
        }
    }
}
