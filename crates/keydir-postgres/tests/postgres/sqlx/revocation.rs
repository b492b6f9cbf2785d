//! Sessions of a revoked login.

use super::{LONG, fill, pool, sessions, until, user, with_roles};
use crate::directory::logins;

#[tokio::test(flavor = "multi_thread")]
async fn idle_sessions_go_at_once() {
    let database = with_roles(&["r1", "r2"]).await;
    let (dir, pool, _rotation) = pool(&database, logins(&database, &["r1"]), LONG).await;
    fill(&pool).await;
    assert_eq!(sessions(&database, "r1").await, 4);
    // Nobody asks for a session.
    dir.publish(logins(&database, &["r2"])).unwrap();
    until(async || sessions(&database, "r1").await == 0).await;
    assert_eq!(user(&pool).await, database.role("r2"));
}

/// So do those of a login that was superseded before.
#[tokio::test(flavor = "multi_thread")]
async fn also_those_whose_turn_has_not_come() {
    let database = with_roles(&["r1", "r2"]).await;
    let (dir, pool, rotation) = pool(&database, logins(&database, &["r1"]), LONG).await;
    fill(&pool).await;
    dir.publish(logins(&database, &["r1", "r2"])).unwrap();
    super::until_it_is(&rotation, "r2").await;
    until(async || sessions(&database, "r1").await == 3).await;
    dir.publish(logins(&database, &["r2"])).unwrap();
    until(async || sessions(&database, "r1").await == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_query_is_cut() {
    let database = with_roles(&["r1", "r2"]).await;
    let (dir, pool, _rotation) = pool(&database, logins(&database, &["r1"]), LONG).await;
    let mut busy = pool.acquire().await.unwrap();
    let mut other = pool.begin().await.unwrap();
    dir.publish(logins(&database, &["r2"])).unwrap();
    until(async || user(&pool).await == database.role("r2")).await;
    for connection in [&mut *busy, &mut *other] {
        let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(connection).await.unwrap();
        assert_eq!(one, 1);
    }
    assert_eq!(sessions(&database, "r1").await, 2);
    // At their return, though nobody asks for one.
    drop(busy);
    until(async || sessions(&database, "r1").await == 1).await;
    other.commit().await.unwrap();
    until(async || sessions(&database, "r1").await == 0).await;
}

/// What one asks for directly is not asked about by sqlx, but at its return.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_counts_the_pool_as_a_use() {
    let database = with_roles(&["r1", "r2"]).await;
    let (dir, pool, _rotation) = pool(&database, logins(&database, &["r1"]), LONG).await;
    let uses = |id: &str| {
        let report = dir.report();
        let revision = report.sets[0].revisions.iter().find(|(found, _)| found.as_str() == id);
        revision.map_or(0, |(_, revision)| revision.uses)
    };
    assert!(uses("r1") >= 1);
    let busy = pool.acquire().await.unwrap();
    dir.publish(logins(&database, &["r2"])).unwrap();
    until(async || uses("r2") >= 1).await;
    assert!(uses("r1") >= 1);
    drop(busy);
    until(async || uses("r1") == 0).await;
    assert_eq!(sessions(&database, "r1").await, 0);
}
