//! Hooks of the pool's owner.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sqlx::Executor;
use sqlx::postgres::PgPoolOptions;

use super::{SHORT, fill, login, sessions, until, user, with_roles};
use crate::directory::logins;

#[tokio::test(flavor = "multi_thread")]
async fn they_go_on_working() {
    let database = with_roles(&["r1", "r2"]).await;
    let (dir, login) = login(&database, logins(&database, &["r1"]));
    let [made, taken, returned] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
    let count = |number: &Arc<AtomicUsize>| number.load(Ordering::SeqCst);
    let (on_made, on_taken, on_returned) = (Arc::clone(&made), Arc::clone(&taken), Arc::clone(&returned));
    let (pool, _rotation) = login
        .with_window(SHORT)
        .after_connect(move |connection, _| {
            on_made.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move { connection.execute("SET work_mem = '1234kB'").await.map(drop) })
        })
        .before_acquire(move |_, _| {
            // The third time it wants a new one.
            let third = on_taken.fetch_add(1, Ordering::SeqCst) == 2;
            Box::pin(async move { Ok(!third) })
        })
        .after_release(move |connection, _| {
            on_returned.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move { connection.execute("RESET search_path").await.map(|_| true) })
        })
        .connect(PgPoolOptions::new().max_connections(1))
        .await
        .unwrap();
    let is_set = async || {
        let set: String = sqlx::query_scalar("SHOW work_mem").fetch_one(&pool).await.unwrap();
        assert_eq!(set, "1234kB");
    };
    assert_eq!(count(&made), 1);
    for _ in 0..4 {
        is_set().await;
    }
    until(async || (count(&made), count(&taken)) == (2, 4)).await;
    until(async || count(&returned) == 4).await;
    dir.publish(logins(&database, &["r1", "r2"])).unwrap();
    until(async || user(&pool).await == database.role("r2")).await;
    is_set().await;
    assert_eq!(count(&made), 3);
}

/// Sessions that take back all that was set say still what they were made with.
#[tokio::test(flavor = "multi_thread")]
async fn discarded_settings() {
    let database = with_roles(&["r1", "r2"]).await;
    let (dir, login) = login(&database, logins(&database, &["r1"]));
    let (pool, rotation) = login
        .with_window(SHORT)
        .after_release(|connection, _| Box::pin(async move { connection.execute("DISCARD ALL").await.map(|_| true) }))
        .connect(PgPoolOptions::new().max_connections(3))
        .await
        .unwrap();
    fill(&pool).await;
    fill(&pool).await;
    let census = rotation.sessions().await.unwrap();
    assert_eq!(census.values().copied().collect::<Vec<_>>(), [3]);
    assert_eq!(database.asked("r1"), 1 + 3);
    dir.publish(logins(&database, &["r1", "r2"])).unwrap();
    until(async || sessions(&database, "r1").await == 0).await;
}
