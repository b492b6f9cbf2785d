//! How long after the publication the last session of a login has gone that is retired or revoked.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::all_threads;
use super::place::{Mode, Place};
use super::pool::{KINDS, Kind, Pool, SIZE};
use super::server::PATIENCE;
use crate::Work;
use crate::stats::quantile;
use crate::table::{Table, time};

const RUNS: usize = 20;
/// Each takes the whole window.
const LONG_RUNS: usize = 10;
/// Of what keeps a session busy.
const QUERY: &str = "SELECT pg_sleep(0.01)";

#[derive(Clone, Copy)]
struct Case {
    kind: Kind,
    end: End,
    busy: bool,
}

#[derive(Clone, Copy)]
enum End {
    Revoked,
    /// Another is the primary, within this window; without any it is what keydir takes.
    Retired(Option<Duration>),
}

pub(super) fn bench(work: Work, table: &mut Table) {
    let ends = [End::Revoked, End::Retired(Some(Duration::ZERO)), End::Retired(None)];
    for end in ends {
        let cases = KINDS
            .into_iter()
            .flat_map(|kind| [false, true].map(|busy| Case { kind, end, busy }));
        let runtime = all_threads();
        match end {
            // They wait, most of the time.
            End::Retired(None) => {
                let runs = work.of(LONG_RUNS);
                let all: Vec<_> = cases.map(|case| (case, runtime.spawn(case.run(runs)))).collect();
                for (case, times) in all {
                    case.row(table, runtime.block_on(times).unwrap());
                }
            }
            _ => {
                for case in cases {
                    case.row(table, runtime.block_on(case.run(work.of(RUNS))));
                }
            }
        }
    }
}

impl Case {
    fn row(self, table: &mut Table, mut times: Vec<Duration>) {
        let end = match self.end {
            End::Revoked => "revoked".to_owned(),
            End::Retired(None) => "retired, window as it is".to_owned(),
            End::Retired(Some(window)) => format!("retired, window {} s", window.as_secs()),
        };
        let busy = if self.busy { "busy" } else { "idle" };
        let measure = format!(
            "{}, {busy}, {end}: until the last of {SIZE} sessions has gone",
            self.kind.name()
        );
        let [median, max] = [0.5, 1.0].map(|share| time(quantile(&mut times, share)));
        table.text(&measure, &format!("{median}, at most {max}"));
    }

    async fn run(self, runs: usize) -> Vec<Duration> {
        let place = Place::new(Mode::Plain).await;
        let watch = place.watch().await;
        let window = match self.end {
            End::Revoked => None,
            End::Retired(window) => window,
        };
        let pool = Pool::new(self.kind, &place.login, window).await;
        let mut workers = match self.busy {
            true => workers(&pool),
            false => JoinSet::new(),
        };
        let mut times = Vec::new();
        for run in 1..=runs {
            let [old, new] = [run, run + 1].map(|number| format!("r{number}"));
            place.create(&new).await;
            place.publish(&[&new, &old]);
            let role = place.database.role(&old);
            let full = async {
                while watch.sessions(&role).await < SIZE as i64 {
                    if !self.busy {
                        pool.fill().await;
                    }
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(PATIENCE, full).await.expect("the pool is not filled");
            let begun = Instant::now();
            match self.end {
                End::Revoked => place.publish(&[&new]),
                End::Retired(_) => place.publish(&[&old, &new]),
            }
            let gone = async {
                while watch.sessions(&role).await > 0 {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(PATIENCE, gone).await.expect("the sessions stay");
            times.push(begun.elapsed());
            place.publish(&[&new]);
        }
        assert!(workers.try_join_next().is_none(), "a worker has failed");
        times
    }
}

/// They keep all sessions busy until they are dropped.
fn workers(pool: &Pool) -> JoinSet<()> {
    let work = async |pool: Pool| loop {
        let client = pool.get().await.unwrap();
        client.batch_execute(QUERY).await.unwrap();
    };
    (0..SIZE).map(|_| work(pool.clone())).collect()
}
