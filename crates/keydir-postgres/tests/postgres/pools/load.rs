//! Logins rotate while queries run.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::{KINDS, Kind, Pool, SIZE, WINDOW};
use crate::directory::{login, logins, password, plain, primary};
use crate::server::{Database, PATIENCE, eventually};

fn show(error: impl Display) -> String {
    error.to_string()
}

/// Commits rows, one a transaction, until told to stop; what failed.
async fn work(worker: i32, pool: Pool, done: Arc<AtomicBool>, committed: Arc<AtomicU64>) -> Vec<String> {
    let mut failed = Vec::new();
    let mut seq = 1_i64;
    while !done.load(Ordering::Relaxed) {
        let transaction = async {
            let mut client = pool.get().await.map_err(show)?;
            let transaction = client.transaction().await.map_err(show)?;
            transaction
                .execute("INSERT INTO keydir_ledger VALUES ($1, $2)", &[&worker, &seq])
                .await
                .map_err(show)?;
            transaction.commit().await.map_err(show)
        };
        match transaction.await {
            Ok(()) => {
                seq += 1;
                committed.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => failed.push(error),
        }
    }
    failed
}

/// Stage, promote, and when nobody is logged in with it any more, NOLOGIN and DROP: nothing fails, nothing is lost, and
/// there are never more sessions than the pool may have.
async fn rotates_under_load(kind: Kind, rotations: usize) {
    let database = Database::new().await;
    database
        .sql("CREATE TABLE keydir_ledger (worker int, seq bigint, UNIQUE (worker, seq)); CREATE ROLE {db}_owner; GRANT ALL ON keydir_ledger TO {db}_owner")
        .await;
    let member = format!("PASSWORD '{}' IN ROLE {}_owner", password("r0"), database.name);
    database.create("r0", &member).await;
    let (dir, plain) = plain(&database, logins(&database, &["r0"]));
    let plain = plain.role(format!("{}_owner", database.name));
    let pool = Pool::new(kind, &plain, WINDOW).await;

    let (done, committed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut workers = JoinSet::new();
    // More than there are sessions, so that each is always in demand. bb8 would let some of them starve.
    let count = match kind {
        Kind::Deadpool => 2 * SIZE,
        Kind::Bb8 => SIZE,
    };
    for worker in 0..count as i32 {
        workers.spawn(work(worker, pool.clone(), Arc::clone(&done), Arc::clone(&committed)));
    }
    let most = Arc::new(AtomicUsize::new(0));
    let counter = tokio::spawn({
        let (most, server, name) = (Arc::clone(&most), database.server, database.name.clone());
        async move {
            let mut config = tokio_postgres::Config::new();
            config.host_path(server.socket()).port(server.port).user("postgres");
            let (client, connection) = config.dbname("postgres").connect(tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            let sql =
                format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND usename <> 'postgres'");
            loop {
                let row = client.query_one(&sql, &[]).await.unwrap();
                most.fetch_max(row.get::<_, i64>(0) as usize, Ordering::Relaxed);
            }
        }
    });

    for rotation in 1..=rotations {
        let (old, new) = (format!("r{}", rotation - 1), format!("r{rotation}"));
        let member = format!("PASSWORD '{}' IN ROLE {}_owner", password(&new), database.name);
        database.create(&new, &member).await;
        dir.publish([primary(login(&database, &old)), login(&database, &new)].concat())
            .unwrap();
        dir.publish(logins(&database, &[&old, &new])).unwrap();
        let safe = async {
            loop {
                let client = pool.get().await.unwrap();
                if plain.safe_to_retire(&old, &client).await.is_ok() {
                    return;
                }
                drop(client);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, safe).await.unwrap();
        assert_eq!(database.sessions(&old).await, 0);
        database
            .sql(&format!("ALTER ROLE {0} NOLOGIN; DROP ROLE {0}", database.role(&old)))
            .await;
        dir.publish(logins(&database, &[&new])).unwrap();
        let before = committed.load(Ordering::Relaxed);
        assert!(eventually(|| committed.load(Ordering::Relaxed) >= before + 20));
    }
    done.store(true, Ordering::Relaxed);
    let failed = workers.join_all().await.concat();
    counter.abort();
    assert_eq!(failed, Vec::<String>::new());
    let rows = database
        .sql("SELECT count(*), count(DISTINCT (worker, seq)), (SELECT sum(m) FROM (SELECT max(seq) m FROM keydir_ledger GROUP BY worker) x) FROM keydir_ledger")
        .await;
    let committed = committed.load(Ordering::Relaxed).to_string();
    assert_eq!(rows, [[committed.clone(), committed.clone(), committed.clone()]]);
    let most = most.load(Ordering::Relaxed);
    assert!(most <= SIZE, "{most} sessions at once");
    println!("{kind:?}: {committed} transactions, {rotations} rotations, 0 failed, at most {most} sessions");
}

#[tokio::test(flavor = "multi_thread")]
async fn deadpool_rotates_under_load() {
    rotates_under_load(Kind::Deadpool, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bb8_rotates_under_load() {
    rotates_under_load(Kind::Bb8, 6).await;
}

/// As many callers as sessions, each of which takes the next in the moment in which it gives one back: of bb8, who waits
/// gets none. In one thread nobody comes in between.
#[tokio::test]
async fn rotates_where_no_session_is_ever_idle() {
    for kind in KINDS {
        let database = Database::new().await;
        database.with(&["r0", "r1", "r2", "r3"]).await;
        let (dir, plain) = plain(&database, logins(&database, &["r0"]));
        let pool = Pool::new(kind, &plain, WINDOW).await;
        let mut callers = JoinSet::new();
        for _ in 0..SIZE {
            let pool = pool.clone();
            callers.spawn(async move {
                loop {
                    let client = pool.get().await.unwrap();
                    client.batch_execute("SELECT pg_sleep(0.005)").await.unwrap();
                }
            });
        }
        database.until_sessions("r0", SIZE).await;
        let rotations = async {
            for (old, new) in [("r0", "r1"), ("r1", "r2"), ("r2", "r3")] {
                dir.publish(logins(&database, &[old, new])).unwrap();
                database.until_sessions(old, 0).await;
            }
        };
        let rotated = tokio::time::timeout(PATIENCE, rotations).await;
        assert!(rotated.is_ok(), "{kind:?}");
        assert!(callers.try_join_next().is_none(), "a caller has failed");
    }
}
