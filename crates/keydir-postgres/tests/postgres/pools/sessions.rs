//! Which sessions go, when and how.

use std::collections::BTreeSet;
use std::time::Duration;

use keydir_postgres::{Login, SslMode};

use super::{KINDS, Pool, SIZE, WINDOW};
use crate::directory::{credentials, logins, password, plain};
use crate::proxy::Proxy;
use crate::server::{Database, PATIENCE, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn idle_sessions_of_a_revoked_login_go_at_once() {
    for kind in KINDS {
        let database = Database::new().await;
        database.with(&["r1", "r2"]).await;
        let (dir, plain) = plain(&database, logins(&database, &["r2", "r1"]));
        // Longer than anybody waits: what goes, goes because of the revocation.
        let pool = Pool::new(kind, &plain, 100 * PATIENCE).await;
        pool.fill().await;
        database.until_sessions("r1", SIZE).await;
        let busy = pool.get().await.unwrap();
        dir.publish(logins(&database, &["r2"])).unwrap();
        database.until_sessions("r1", 1).await;
        assert!(!busy.lease().stands());
        // Its work may end; then it goes too.
        busy.query_one("SELECT 1", &[]).await.unwrap();
        drop(busy);
        database.until_sessions("r1", 0).await;
        assert_eq!(pool.fill().await, BTreeSet::from(["r2".to_owned()]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_sessions_of_a_superseded_login_go_in_their_turn() {
    for kind in KINDS {
        let database = Database::new().await;
        database.with(&["r1", "r2"]).await;
        let (dir, plain) = plain(&database, logins(&database, &["r1"]));
        let pool = Pool::new(kind, &plain, 100 * PATIENCE).await;
        pool.fill().await;
        dir.publish(logins(&database, &["r1", "r2"])).unwrap();
        // The new login was tried in the place of one of them, and stays there. Nobody has asked for a session.
        database.until_sessions("r2", 1).await;
        database.until_sessions("r1", SIZE - 1).await;
        assert_eq!(pool.fill().await.len(), 2);

        let quick = Pool::new(kind, &plain, WINDOW).await;
        quick.fill().await;
        database.until_sessions("r2", 1 + SIZE).await;
        dir.publish(logins(&database, &["r2", "r1"])).unwrap();
        database.until_sessions("r2", 1).await;
    }
}

/// A connect that is overtaken by a promotion is what it was begun as.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_login_is_never_taken_for_another() {
    for kind in KINDS {
        let database = Database::new().await;
        database.with(&["r1", "r2"]).await;
        let proxy = Proxy::before(database.server.port).await;
        let (dir, credentials) = credentials(logins(&database, &["r1"]));
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(proxy.address.port())
            .dbname(&database.name);
        let login = Login::new(config, &credentials, SslMode::Disable).unwrap();
        // bb8 makes one session when it is built.
        let building = tokio::spawn(async move {
            let pool = Pool::new(kind, &login, Duration::ZERO).await;
            let taken = pool.get().await.unwrap();
            let user: String = taken.query_one("SELECT session_user::text", &[]).await.unwrap().get(0);
            (pool, user, taken.lease().revision().to_string())
        });
        assert!(eventually(|| proxy.arrived() >= 1));
        dir.publish(logins(&database, &["r1", "r2"])).unwrap();
        proxy.let_through(100);
        let (pool, user, revision) = building.await.unwrap();
        assert_eq!(user, database.role(&revision), "{kind:?}");
        database.until_sessions("r1", 0).await;
        let taken = pool.get().await.unwrap();
        assert_eq!(*taken.lease().revision(), *"r2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_primary_is_tried_in_one_place_and_costs_no_request() {
    for kind in KINDS {
        let database = Database::new().await;
        database.with(&["r1"]).await;
        database.create("r2", "PASSWORD 'not yet'").await;
        let (dir, plain) = plain(&database, logins(&database, &["r1"]));
        let pool = Pool::new(kind, &plain, WINDOW).await;
        pool.fill().await;
        dir.publish(logins(&database, &["r1", "r2"])).unwrap();
        while database.refused("r2") < 2 {
            let client = pool.get().await.unwrap();
            assert_eq!(*client.lease().revision(), *"r1");
            client.query_one("SELECT 1", &[]).await.unwrap();
            drop(client);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let sql = format!("ALTER ROLE {} PASSWORD '{}'", database.role("r2"), password("r2"));
        database.sql(&sql).await;
        database.until_sessions("r1", 0).await;
        assert_eq!(pool.fill().await, BTreeSet::from(["r2".to_owned()]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_dropped_is_looked_after_no_more() {
    for kind in KINDS {
        let database = Database::new().await;
        database.with(&["r1", "r2"]).await;
        let (dir, plain) = plain(&database, logins(&database, &["r1"]));
        let pool = Pool::new(kind, &plain, WINDOW).await;
        pool.fill().await;
        drop(pool);
        database.until_sessions("r1", 0).await;
        drop(plain);
        // The sweeper would keep the set.
        assert!(eventually(|| dir.report().sets.is_empty()), "{kind:?}");
        dir.publish(logins(&database, &["r1", "r2"])).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_sessions_say_good_bye() {
    for kind in KINDS {
        let database = Database::new().await;
        database.with(&["r1", "r2"]).await;
        let (dir, plain) = plain(&database, logins(&database, &["r1"]));
        let pool = Pool::new(kind, &plain, WINDOW).await;
        pool.fill().await;
        let pids = database
            .sql(&format!(
                "SELECT pid FROM pg_stat_activity WHERE usename = '{}'",
                database.role("r1")
            ))
            .await
            .concat();
        assert_eq!(pids.len(), SIZE);
        dir.publish(logins(&database, &["r1", "r2"])).unwrap();
        database.until_sessions("r1", 0).await;
        for pid in pids {
            let lines = || database.server.lines(&format!("[{pid}] "));
            assert!(eventually(|| lines()
                .iter()
                .any(|line| line.contains("disconnection:"))));
            let rough = lines()
                .into_iter()
                .find(|line| line.contains("could not receive") || line.contains("unexpected EOF"));
            assert_eq!(rough, None);
        }
    }
}
