//! The end of a pool.

use keydir::Dir;

use super::{LONG, fill, pool, sessions, until, until_it_is, user, with_roles};
use crate::directory::logins;

fn uses(dir: &Dir) -> usize {
    let report = dir.report();
    let revisions = report.sets.iter().flat_map(|set| set.revisions.values());
    revisions.map(|revision| revision.uses).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_pool_that_is_dropped() {
    let database = with_roles(&["r1"]).await;
    let (dir, pool, rotation) = pool(&database, logins(&database, &["r1"]), LONG).await;
    fill(&pool).await;
    drop((pool, rotation));
    until(async || sessions(&database, "r1").await == 0).await;
    until(async || uses(&dir) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_on_after_a_pool_is_closed() {
    let database = with_roles(&["r1", "r2"]).await;
    let (dir, pool, rotation) = pool(&database, logins(&database, &["r1"]), LONG).await;
    fill(&pool).await;
    pool.close().await;
    until(async || sessions(&database, "r1").await == 0).await;
    dir.publish(logins(&database, &["r1", "r2"])).unwrap();
    assert_eq!(rotation.revision().unwrap().as_str(), "r1");
    drop(rotation);
    until(async || uses(&dir) == 0).await;
    assert_eq!(database.asked("r2"), 0);
}

/// A pool goes on with what it has, also where it finds its sessions dead.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_not_looked_after() {
    let database = with_roles(&["r1", "r2"]).await;
    let (dir, pool, rotation) = pool(&database, logins(&database, &["r1"]), LONG).await;
    fill(&pool).await;
    until_it_is(&rotation, "r1").await;
    drop(rotation);
    dir.publish(logins(&database, &["r1", "r2"])).unwrap();
    database
        .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE '{db}%'")
        .await;
    for _ in 0..8 {
        assert_eq!(user(&pool).await, database.role("r1"));
    }
}
