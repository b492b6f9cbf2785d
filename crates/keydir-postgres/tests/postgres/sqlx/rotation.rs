//! Rotations while transactions run, and while nothing runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use super::{LONG, SHORT, create, fill, login, pool, sessions, until, until_it_is, user, with_roles};
use crate::directory::{logins, primary};
use crate::server::Database;

const WORKERS: i32 = 8;
const SIZE: u32 = 6;

/// Commits a row a transaction until told to stop; how many were committed, and how many were not.
async fn work(pool: PgPool, worker: i32, stop: Arc<AtomicBool>) -> (i64, Vec<String>) {
    let (mut committed, mut failed) = (0, Vec::new());
    while !stop.load(Ordering::SeqCst) {
        let transaction = async {
            let mut transaction = pool.begin().await?;
            sqlx::query("INSERT INTO ledger VALUES ($1, $2)")
                .bind(worker)
                .bind(committed + 1)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await
        };
        match transaction.await {
            Ok(()) => committed += 1,
            Err(error) => failed.push(error.to_string()),
        }
    }
    (committed, failed)
}

/// Counts the sessions of the logins until told to stop; the greatest number.
async fn watch(database: Arc<Database>, stop: Arc<AtomicBool>) -> usize {
    let mut most = 0;
    while !stop.load(Ordering::SeqCst) {
        let logins = "SELECT FROM pg_stat_activity WHERE usename LIKE '{db}\\_r%'";
        most = most.max(database.sql(logins).await.len());
    }
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_rotations_cost_no_transaction() {
    let database = Arc::new(with_roles(&["r0"]).await);
    database
        .sql(
            "CREATE ROLE {db}_owner; GRANT CREATE ON SCHEMA public TO {db}_owner;
             GRANT {db}_owner TO {db}_r0; SET ROLE {db}_owner;
             CREATE TABLE ledger (worker int, seq bigint)",
        )
        .await;
    let (dir, login) = login(&database, logins(&database, &["r0"]));
    let (pool, rotation) = login
        .role(database.role("owner"))
        .with_window(SHORT)
        .connect(PgPoolOptions::new().max_connections(SIZE))
        .await
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| tokio::spawn(work(pool.clone(), worker, Arc::clone(&stop))))
        .collect();
    let watching = tokio::spawn(watch(Arc::clone(&database), Arc::clone(&stop)));

    for number in 1..=10 {
        let (old, new) = (format!("r{}", number - 1), format!("r{number}"));
        create(&database, &new).await;
        let role = database.role(&new);
        database.sql(&format!("GRANT {{db}}_owner TO {role}")).await;
        dir.publish(logins(&database, &[&old, &new])).unwrap();
        until_it_is(&rotation, &new).await;
        until(async || sessions(&database, &old).await == 0).await;
        // Not only that it has no session: none is being made.
        let uses = || {
            let report = dir.report();
            let revision = report.sets[0].revisions.iter().find(|(id, _)| id.as_str() == old);
            revision.map_or(0, |(_, revision)| revision.uses)
        };
        until(async || uses() == 0).await;
        let role = database.role(&old);
        database.sql(&format!("ALTER ROLE {role} NOLOGIN")).await;
        let ended = database
            .sql(&format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
            ))
            .await;
        assert!(ended.is_empty(), "{ended:?}");
        database.sql(&format!("DROP ROLE {role}")).await;
        dir.publish(logins(&database, &[&new])).unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    let most = watching.await.unwrap();
    for (worker, working) in (0..).zip(workers) {
        let (committed, failed) = working.await.unwrap();
        assert_eq!(failed, Vec::<String>::new());
        let rows = database
            .sql(&format!(
                "SELECT count(*), count(DISTINCT seq), coalesce(max(seq), 0) FROM ledger WHERE worker = {worker}"
            ))
            .await;
        assert_eq!(
            rows,
            [[committed.to_string(), committed.to_string(), committed.to_string()]]
        );
        assert!(committed > 0);
    }
    assert!(most <= usize::try_from(SIZE).unwrap(), "{most}");
    // And nothing was left to a login that was dropped.
    let owners = database
        .sql("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'ledger'")
        .await;
    assert_eq!(owners, [[database.role("owner")]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_sessions_of_a_superseded_login_go() {
    let database = with_roles(&["r1", "r2"]).await;
    let (dir, pool, rotation) = pool(&database, logins(&database, &["r1"]), SHORT).await;
    fill(&pool).await;
    assert_eq!(sessions(&database, "r1").await, 4);
    dir.publish(logins(&database, &["r1", "r2"])).unwrap();
    // Nobody asks for a session.
    until(async || sessions(&database, "r1").await == 0).await;
    assert_eq!((rotation.revision().unwrap().as_str(), pool.size()), ("r2", 0));
    assert_eq!(user(&pool).await, database.role("r2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn not_all_at_once() {
    let database = with_roles(&["r1", "r2"]).await;
    let (dir, pool, rotation) = pool(&database, logins(&database, &["r1"]), LONG).await;
    fill(&pool).await;
    dir.publish(logins(&database, &["r1", "r2"])).unwrap();
    until_it_is(&rotation, "r2").await;
    // Used or not, they stay until their turns, which are far away. One gave its place to the login that tried r2.
    until(async || (pool.num_idle(), sessions(&database, "r1").await) == (3, 3)).await;
    let mut all = Vec::new();
    for expected in ["r1", "r1", "r1", "r2"] {
        let mut connection = pool.acquire().await.unwrap();
        let user = sqlx::query_scalar("SELECT session_user::text").fetch_one(&mut *connection);
        let user: String = user.await.unwrap();
        assert_eq!(user, database.role(expected));
        all.push(connection);
    }
    drop(all);
    let census = rotation.sessions().await.unwrap();
    let census: Vec<_> = census.iter().map(|(id, sessions)| (id.as_str(), *sessions)).collect();
    assert_eq!(census, [("r1", 3), ("r2", 1)]);
    // A former primary that becomes it once more has its sessions still.
    dir.publish(logins(&database, &["r2", "r1"])).unwrap();
    until_it_is(&rotation, "r1").await;
    fill(&pool).await;
    assert!(sessions(&database, "r1").await >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_a_minimum_come_again() {
    let database = with_roles(&["r1", "r2"]).await;
    let (dir, login) = login(&database, logins(&database, &["r1"]));
    let options = PgPoolOptions::new().max_connections(4).min_connections(3);
    let (pool, _rotation) = login.with_window(SHORT).connect(options).await.unwrap();
    until(async || sessions(&database, "r1").await == 3).await;
    dir.publish(logins(&database, &["r1", "r2"])).unwrap();
    until(async || (sessions(&database, "r1").await, sessions(&database, "r2").await) == (0, 3)).await;
    assert!(pool.size() <= 4);
}

/// One role, whose password changes. The sessions are told apart all the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_user_may_be_the_same() {
    let database = with_roles(&["r1"]).await;
    let role = database.role("r1");
    let revision = |id: &str, password: &str| {
        vec![
            (format!("{id}.password"), password.to_owned()),
            (format!("{id}.username"), role.clone()),
        ]
    };
    let password = crate::directory::password("r1");
    let (dir, pool, rotation) = pool(&database, primary(revision("r1", &password)), LONG).await;
    fill(&pool).await;
    database.sql(&format!("ALTER ROLE {role} PASSWORD 'another'")).await;
    dir.publish([revision("r1", &password), primary(revision("r2", "another"))].concat())
        .unwrap();
    until_it_is(&rotation, "r2").await;
    until(async || sessions(&database, "r1").await == 3).await;
    let former = database
        .sql(&format!("SELECT pid FROM pg_stat_activity WHERE usename = '{role}'"))
        .await;
    // Two of these, and one that is made with the new one.
    let (_one, _two) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    dir.publish(primary(revision("r2", "another"))).unwrap();
    until(async || pool.size() == 2).await;
    let new: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!(!former.contains(&vec![new.to_string()]));
    let census = rotation.sessions().await.unwrap();
    assert_eq!(
        census.iter().next().map(|(id, sessions)| (id.as_str(), *sessions)),
        Some(("r1", 2))
    );
}
