//! The pool of sqlx.

mod hooks;
mod life;
mod pooler;
mod race;
mod refusal;
mod revocation;
mod rotation;
mod tls;

use std::time::{Duration, Instant};

use keydir::Dir;
use keydir_postgres::{SqlxLogin, SqlxRotation, SslMode};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::directory::{Files, credentials, password};
use crate::server::{Database, PATIENCE};

/// So long that no session of a superseded login comes to its turn.
const LONG: Duration = Duration::from_secs(1_000_000);
/// So short that a test sees all of them go.
const SHORT: Duration = Duration::from_millis(300);

/// A database with roles, each of which has the password that [`password`] gives.
async fn with_roles(revisions: &[&str]) -> Database {
    let database = Database::new().await;
    for revision in revisions {
        create(&database, revision).await;
    }
    database
}

async fn create(database: &Database, revision: &str) {
    let options = format!("PASSWORD '{}'", password(revision));
    database.create(revision, &options).await;
}

fn options(database: &Database) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host("localhost")
        .port(database.server.port)
        .database(&database.name)
}

/// Logins without TLS.
fn login(database: &Database, files: Files) -> (Dir, SqlxLogin) {
    let (dir, credentials) = credentials(files);
    let login = SqlxLogin::new(options(database), &credentials, SslMode::Disable).unwrap();
    (dir, login)
}

/// A pool of four without TLS.
async fn pool(database: &Database, files: Files, window: Duration) -> (Dir, PgPool, SqlxRotation) {
    let (dir, login) = login(database, files);
    let pool_options = PgPoolOptions::new().max_connections(4);
    let (pool, rotation) = login.with_window(window).connect(pool_options).await.unwrap();
    (dir, pool, rotation)
}

/// Makes as many sessions as the pool may have; they are idle when this returns.
async fn fill(pool: &PgPool) {
    let most = pool.options().get_max_connections();
    let mut connections = Vec::new();
    for _ in 0..most {
        connections.push(pool.acquire().await.unwrap());
    }
    drop(connections);
    until(async || pool.num_idle() == usize::try_from(most).unwrap()).await;
}

async fn user(pool: &PgPool) -> String {
    sqlx::query_scalar("SELECT session_user::text")
        .fetch_one(pool)
        .await
        .unwrap()
}

/// How many sessions the server has of a revision's role.
async fn sessions(database: &Database, revision: &str) -> usize {
    let role = database.role(revision);
    let rows = database
        .sql(&format!("SELECT FROM pg_stat_activity WHERE usename = '{role}'"))
        .await;
    rows.len()
}

/// Waits until this holds.
async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "it never came to that");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn until_it_is(rotation: &SqlxRotation, revision: &str) {
    until(async || rotation.revision().is_some_and(|id| id.as_str() == revision)).await;
}
