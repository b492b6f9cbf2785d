//! What is of one host alone.

use std::time::Duration;

use keydir_postgres::Bb8Manager;

use crate::directory::{login_with, logins, plain, primary};
use crate::server::{Database, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn bb8_ends_nothing_that_is_in_use() {
    let database = Database::new().await;
    database.with(&["r1", "r2"]).await;
    let (dir, plain) = plain(&database, logins(&database, &["r1"]));
    let manager = Bb8Manager::new(&plain).with_window(Duration::ZERO);
    let pool = bb8::Pool::builder().max_size(3).test_on_check_out(false);
    let pool = pool.build(manager.clone()).await.unwrap();
    let _sweeper = manager.sweep(&pool);
    // The pool says nothing about either of these.
    let own = pool.dedicated_connection().await.unwrap();
    own.simple_query("LISTEN something").await.unwrap();
    drop(pool.get().await.unwrap());
    let untested = pool.get().await.unwrap();
    untested.simple_query("BEGIN").await.unwrap();
    dir.publish(logins(&database, &["r1", "r2"])).unwrap();
    database.until_sessions("r2", 1).await;
    dir.publish(logins(&database, &["r2"])).unwrap();
    assert!(eventually(|| !own.lease().stands()));
    // Once around: the sweeper has looked.
    let other = pool.get().await.unwrap();
    other.simple_query("").await.unwrap();
    own.simple_query("SELECT 1").await.unwrap();
    untested.simple_query("COMMIT").await.unwrap();
    drop(untested);
    drop(own);
    database.until_sessions("r1", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pool_of_deadpool_postgres_makes_new_sessions_with_what_is_current() {
    use deadpool_postgres::{Manager, ManagerConfig, Pool};

    let database = Database::new().await;
    database.with(&["r1", "r2"]).await;
    let (dir, plain) = plain(&database, logins(&database, &["r1"]));
    let manager = Manager::from_connect(tokio_postgres::Config::new(), plain, ManagerConfig::default());
    let pool = Pool::builder(manager).max_size(1).build().unwrap();
    let user = async || -> String {
        let client = pool.get().await.unwrap();
        client.query_one("SELECT session_user::text", &[]).await.unwrap().get(0)
    };
    assert_eq!(user().await, database.role("r1"));
    dir.publish(logins(&database, &["r2"])).unwrap();
    assert_eq!(user().await, database.role("r1"), "what is pooled stays");
    pool.retain(|_, _| false);
    assert_eq!(user().await, database.role("r2"));

    dir.publish(primary(login_with(&database, "r2", "wrong"))).unwrap();
    pool.retain(|_, _| false);
    let error = pool.get().await.map(drop).unwrap_err();
    let mut all = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        all = format!("{all}: {error}");
        cause = error.source();
    }
    assert!(
        all.contains("with r2: db error: FATAL: password authentication failed"),
        "{all}"
    );
}
