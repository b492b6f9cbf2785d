//! New logins that the server does not take, old ones that it does not take any more, directories that are broken.

use std::process::Command;
use std::time::Instant;

use super::{LONG, SHORT, fill, login, pool, sessions, until, until_it_is, user, with_roles};
use crate::directory::{logins, password, primary};
use crate::server::{Database, Server};

use keydir_postgres::{SqlxError, SqlxLogin, SslMode};
use sqlx::postgres::PgPoolOptions;

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_costs_no_request() {
    let database = with_roles(&["r1"]).await;
    database.create("r2", "PASSWORD 'another'").await;
    let (dir, pool, rotation) = pool(&database, logins(&database, &["r1"]), SHORT).await;
    dir.publish(logins(&database, &["r1", "r2"])).unwrap();
    let begun = Instant::now();
    until(async || {
        assert_eq!(user(&pool).await, database.role("r1"));
        database.refused("r2") >= 2
    })
    .await;
    // At once, and 1, 3, 7, .. seconds later.
    let steps = 1
        + (1..20)
            .take_while(|step| (1_u64 << step) - 1 <= begun.elapsed().as_secs())
            .count();
    assert!(database.refused("r2") <= steps, "{}", database.refused("r2"));
    assert_eq!(rotation.revision().unwrap().as_str(), "r1");
    let role = database.role("r2");
    database
        .sql(&format!("ALTER ROLE {role} PASSWORD '{}'", password("r2")))
        .await;
    until(async || user(&pool).await == role).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_directory_changes_nothing() {
    let database = with_roles(&["r1"]).await;
    let (dir, pool, rotation) = pool(&database, logins(&database, &["r1"]), SHORT).await;
    fill(&pool).await;
    for files in [
        primary(vec![("r1.password".to_owned(), "a\0b".to_owned())]),
        crate::directory::login(&database, "r1"),
        [
            primary(crate::directory::login(&database, "r1")),
            primary(crate::directory::login(&database, "r2")),
        ]
        .concat(),
        Vec::new(),
    ] {
        let _ = dir.publish(files);
        fill(&pool).await;
        assert_eq!(user(&pool).await, database.role("r1"));
        assert_eq!(rotation.revision().unwrap().as_str(), "r1");
    }
    // Not one session was made anew.
    assert_eq!(database.asked("r1"), 1 + 4);
}

/// The server ends what it has of the primary, which the directory does not know of.
#[tokio::test(flavor = "multi_thread")]
async fn another_takes_the_place_of_a_login_that_is_ended() {
    let database = with_roles(&["r1", "r2"]).await;
    let (_dir, pool, rotation) = pool(&database, logins(&database, &["r1", "r2"]), LONG).await;
    fill(&pool).await;
    assert_eq!(user(&pool).await, database.role("r2"));
    let role = database.role("r2");
    database.sql(&format!("ALTER ROLE {role} NOLOGIN")).await;
    database
        .sql(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
        ))
        .await;
    // Whoever finds a dead session waits until another login is found.
    for _ in 0..8 {
        assert_eq!(user(&pool).await, database.role("r1"));
    }
    assert_eq!(rotation.revision().unwrap().as_str(), "r1");
    database.sql(&format!("ALTER ROLE {role} LOGIN")).await;
    until_it_is(&rotation, "r2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_again() {
    let server = Box::leak(Box::new(Server::start("ssl = off")));
    let database = Database::without_rules(server).await;
    database.rule("host {db} all 127.0.0.1/32 scram-sha-256");
    for revision in ["r1", "r2"] {
        super::create(&database, revision).await;
    }
    let (dir, pool, rotation) = pool(&database, logins(&database, &["r1"]), LONG).await;
    fill(&pool).await;
    dir.publish(logins(&database, &["r1", "r2"])).unwrap();
    until_it_is(&rotation, "r2").await;
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&pool)
        .await
        .unwrap();
    // It ends all sessions, and lets nobody in for a while.
    assert!(
        Command::new("kill")
            .args(["-KILL", &pid.to_string()])
            .status()
            .unwrap()
            .success()
    );
    assert!(crate::server::eventually(|| server.lines("reinitializing").len() == 1));
    for _ in 0..8 {
        assert_eq!(user(&pool).await, database.role("r2"));
    }
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(pool.acquire().await.unwrap());
    }
    assert_eq!(
        (sessions(&database, "r1").await, sessions(&database, "r2").await),
        (0, 4)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn why_there_is_no_pool() {
    let database = with_roles(&[]).await;
    database.create("r1", "PASSWORD 'another'").await;
    let (_dir, login) = login(&database, logins(&database, &["r1"]));
    let told = format!("{login:?}");
    let error = login.connect(PgPoolOptions::new()).await.unwrap_err();
    assert!(matches!(error, SqlxError::Login(_)), "{error:?}");
    assert!(error.to_string().contains("with r1: "), "{error}");
    assert!(!format!("{told} {error} {error:?}").contains("canary"), "{error:?}");

    let (_dir, credentials) = crate::directory::credentials(logins(&database, &["r1"]));
    let mode = SslMode::VerifyCa(crate::directory::anchors(&database.server.ca));
    let error = SqlxLogin::new(super::options(&database), &credentials, mode).unwrap_err();
    assert!(error.to_string().contains("use SslMode::VerifyFull"), "{error}");

    // tokio-postgres would take it, sqlx does not.
    let files = vec![("r1.password.primary".to_owned(), b"\xff".to_vec())];
    let credentials = keydir_postgres::Credentials::in_dir(&keydir::Dir::in_memory(files)).unwrap();
    database.sql("CREATE ROLE r1 LOGIN").await;
    database.rule("host {db} r1 127.0.0.1/32 trust");
    let login = SqlxLogin::new(super::options(&database), &credentials, SslMode::Disable).unwrap();
    database.sql("DROP ROLE r1").await;
    let error = login.connect(PgPoolOptions::new()).await.unwrap_err();
    assert!(
        matches!(error, SqlxError::Login(_) | SqlxError::NotText(_)),
        "{error:?}"
    );
}
