//! P9: a new connection, by SCRAM.

use std::time::{Duration, Instant};

use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::place::{MODES, Mode, Place};
use super::{counted, one_thread};
use crate::Work;
use crate::callgrind::cost;
use crate::stats::median;
use crate::table::{Table, number, time};

/// Of each side, by turns.
pub(super) const ROUNDS: usize = 501;
const IN_A_ROUND: usize = 2;
const COUNTED: usize = 10;
pub(super) const GOAL: f64 = 1.02;

pub(super) fn bench(work: Work, table: &mut Table) {
    for mode in MODES {
        let runtime = one_thread();
        let times = runtime.block_on(async {
            let place = Place::new(mode).await;
            let (config, tls) = (place.config(), place.tls());
            side_by_side(
                work.of(ROUNDS),
                async || place.login.connect().await.unwrap(),
                async || plain(&config, &tls).await,
            )
            .await
        });
        times.row(table, &format!("a new connection, {}", mode.name()));
        let [ours, plain] = ["keydir", "plain"].map(|side| {
            let arguments = ["postgres", "connect", side, mode.name()];
            cost("postgres::counted", &arguments, work.of(COUNTED))
        });
        let mut row = |unit: &str, [ours, plain]: [f64; 2]| {
            let measure = format!("a new connection, {}: {unit} of the client", mode.name());
            table.ratio(&measure, number(ours), number(plain), ours / plain, None);
        };
        row("instructions", [ours, plain].map(|cost| cost.instructions.round()));
        row("allocations", [ours, plain].map(|cost| cost.allocations));
    }
}

async fn plain(config: &Config, tls: &MakeRustlsConnect) -> Client {
    let (client, connection) = config.connect(tls.clone()).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Seconds for one connection.
pub(super) struct Times {
    ratios: Vec<f64>,
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

/// By turns; each begins as often as the other.
pub(super) async fn side_by_side<A, B>(rounds: usize, ours: impl AsyncFn() -> A, theirs: impl AsyncFn() -> B) -> Times {
    let mut times = Times {
        ratios: Vec::new(),
        ours: Vec::new(),
        theirs: Vec::new(),
    };
    for round in 0..rounds {
        let (one, other) = match round % 2 {
            0 => (seconds(&ours).await, seconds(&theirs).await),
            _ => {
                let other = seconds(&theirs).await;
                (seconds(&ours).await, other)
            }
        };
        times.ratios.push(one / other);
        times.ours.push(one);
        times.theirs.push(other);
    }
    times
}

async fn seconds<T>(connect: &impl AsyncFn() -> T) -> f64 {
    let begun = Instant::now();
    for _ in 0..IN_A_ROUND {
        drop(connect().await);
    }
    begun.elapsed().as_secs_f64() / IN_A_ROUND as f64
}

impl Times {
    /// How often each has connected.
    pub(super) fn connections(&self) -> usize {
        self.ratios.len() * IN_A_ROUND
    }

    pub(super) fn row(mut self, table: &mut Table, measure: &str) {
        let [ours, theirs] = [&mut self.ours, &mut self.theirs].map(|times| Duration::from_secs_f64(median(times)));
        table.ratio(measure, time(ours), time(theirs), median(&mut self.ratios), Some(GOAL));
    }
}

pub(super) fn inside(arguments: &[&str]) {
    let [side, mode, count] = arguments else {
        panic!("side, mode, count")
    };
    let runtime = one_thread();
    let place = runtime.block_on(Place::new(Mode::named(mode)));
    let (config, tls) = (place.config(), place.tls());
    let connect = async |count: usize| {
        for _ in 0..count {
            match *side {
                "keydir" => drop(place.login.connect().await.unwrap()),
                _ => drop(plain(&config, &tls).await),
            }
        }
    };
    runtime.block_on(connect(2));
    counted(&runtime, connect(count.parse().unwrap()));
}
