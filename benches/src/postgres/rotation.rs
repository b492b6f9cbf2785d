//! P10: transactions a second while a login rotates, beside just before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::all_threads;
use super::place::{Mode, Place, Watch};
use super::pool::{KINDS, Kind, Pool};
use super::server::PATIENCE;
use crate::Work;
use crate::stats::median;
use crate::table::{Table, number};

const ROUNDS: usize = 15;
/// One without a rotation, and one that begins with one.
const PERIOD: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);
const WORKERS: i32 = 8;
/// Shorter than what keydir takes, so that all of a rotation is within the period; and all sessions at once.
const WINDOWS: [Duration; 2] = [Duration::from_secs(1), Duration::ZERO];
/// 0.95 of the transactions a second are this much of the time for one.
const GOAL: f64 = 1.0 / 0.95;

pub(super) fn bench(work: Work, table: &mut Table) {
    for kind in KINDS {
        for window in WINDOWS {
            all_threads().block_on(rotate(work, table, kind, window));
        }
    }
}

#[derive(Default)]
struct Tally {
    done: AtomicBool,
    committed: AtomicU64,
    failed: AtomicU64,
}

async fn rotate(work: Work, table: &mut Table, kind: Kind, window: Duration) {
    let place = Place::new(Mode::Plain).await;
    place
        .database
        .sql("CREATE TABLE ledger (worker int, seq bigint); GRANT INSERT ON ledger TO PUBLIC")
        .await;
    let watch = place.watch().await;
    let pool = Pool::new(kind, &place.login, Some(window)).await;
    let tally = Arc::<Tally>::default();
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        workers.spawn(commit(worker, pool.clone(), Arc::clone(&tally)));
    }
    rate(&tally, &watch, async {}).await;
    let (mut ratios, mut rates) = (Vec::new(), [Vec::new(), Vec::new()]);
    for round in 1..=work.of(ROUNDS) {
        let before = rate(&tally, &watch, async {}).await;
        let during = rate(&tally, &watch, turn_over(&place, &watch, round)).await;
        ratios.push(before / during);
        rates[0].push(during);
        rates[1].push(before);
    }
    tally.done.store(true, Ordering::Relaxed);
    workers.join_all().await;

    let rows = place
        .database
        .sql("SELECT count(DISTINCT (worker, seq)) FROM ledger")
        .await;
    let committed = tally.committed.load(Ordering::Relaxed);
    assert_eq!(rows, [[committed.to_string()]], "the server counts otherwise");
    let [during, before] = rates.map(|mut rates| number(median(&mut rates).round()));
    let name = format!("{}, window {} s", kind.name(), window.as_secs());
    let measure = format!("{name}: transactions a second during a rotation, before to during");
    table.ratio(&measure, during, before, median(&mut ratios), Some(GOAL));
    let failed = tally.failed.load(Ordering::Relaxed) as f64;
    table.count(&format!("{name}: failed of {committed}"), failed, None, Some(0.0));
}

/// Transactions a second, over one period in which this begins and ends.
async fn rate(tally: &Tally, watch: &Watch, meanwhile: impl Future<Output = ()>) -> f64 {
    let committed = || tally.committed.load(Ordering::Relaxed);
    let (begun, before) = (Instant::now(), committed());
    // Somebody looks at the sessions in each period, so that the two differ by the rotation alone.
    let look = async {
        while begun.elapsed() < PERIOD {
            watch.sessions("postgres").await;
            sleep(LOOK).await;
        }
    };
    tokio::join!(look, meanwhile);
    (committed() - before) as f64 / begun.elapsed().as_secs_f64()
}

/// The whole of a rotation: from the new role to the end of the old one.
async fn turn_over(place: &Place, watch: &Watch, round: usize) {
    let [old, new] = [round, round + 1].map(|number| format!("r{number}"));
    place.create(&new).await;
    place.publish(&[&new, &old]);
    place.publish(&[&old, &new]);
    let role = place.database.role(&old);
    let gone = async {
        while watch.sessions(&role).await > 0 {
            sleep(LOOK).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("the old login stays");
    place.database.sql(&format!("DROP ROLE {role}")).await;
    place.publish(&[&new]);
}

async fn commit(worker: i32, pool: Pool, tally: Arc<Tally>) {
    let mut seq = 1_i64;
    while !tally.done.load(Ordering::Relaxed) {
        let transaction = async {
            let mut client = pool.get().await?;
            let transaction = client.transaction().await?;
            let row = "INSERT INTO ledger VALUES ($1, $2)";
            transaction.execute(row, &[&worker, &seq]).await?;
            transaction.commit().await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        };
        match transaction.await {
            Ok(()) => {
                seq += 1;
                tally.committed.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                eprintln!("failed: {error}");
                tally.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
