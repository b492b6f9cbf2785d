//! TLS of sqlx by the trust and the certificates of key directories.

use keydir::Dir;
use keydir_postgres::{Credentials, SqlxError, SqlxLogin, SqlxRotation, SslMode};
use keydir_rustls::TrustAnchors;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use super::{SHORT, create, fill, options, sessions, until, until_it_is, user};
use crate::directory::{Files, anchors, certificate, credentials, logins, primary};
use crate::pki::Ca;
use crate::server::{Database, Server};

async fn on(server: &'static Server, rule: &str) -> Database {
    let database = Database::without_rules(server).await;
    database.rule(rule);
    database
}

async fn connect(login: SqlxLogin) -> Result<(PgPool, SqlxRotation), SqlxError> {
    let options = PgPoolOptions::new().max_connections(2);
    login.with_window(SHORT).connect(options).await
}

async fn has_tls(pool: &PgPool) -> bool {
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mode() {
    let database = on(Server::shared(), "host {db} all 127.0.0.1/32 scram-sha-256").await;
    create(&database, "r1").await;
    let (_dir, credentials) = credentials(logins(&database, &["r1"]));
    for (mode, tls) in [
        (SslMode::Disable, Some(false)),
        (SslMode::Prefer, Some(true)),
        (SslMode::Require, Some(true)),
        (SslMode::VerifyFull(anchors(&database.server.ca)), Some(true)),
        (SslMode::VerifyFull(anchors(&Ca::new("wrong"))), None),
    ] {
        let login = SqlxLogin::new(options(&database), &credentials, mode.clone()).unwrap();
        let connected = connect(login).await;
        match (&connected, tls) {
            (Ok((pool, _)), Some(tls)) => assert_eq!(has_tls(pool).await, tls, "{mode:?}"),
            (Err(error), None) => assert!(error.to_string().contains("UnknownIssuer"), "{error}"),
            _ => panic!("{mode:?}: {connected:?}"),
        }
    }
    // A socket has none.
    let options = options(&database).socket(database.server.socket());
    database.rule("local {db} all scram-sha-256");
    let mode = SslMode::VerifyFull(anchors(&database.server.ca));
    let login = SqlxLogin::new(options, &credentials, mode).unwrap();
    let (pool, _rotation) = connect(login).await.unwrap();
    assert!(!has_tls(&pool).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ca_of_the_server_rotates() {
    let server: &'static Server = Box::leak(Box::new(Server::start("ssl = on")));
    let database = on(server, "hostssl {db} all 127.0.0.1/32 scram-sha-256").await;
    create(&database, "r1").await;
    let (_dir, credentials) = credentials(logins(&database, &["r1"]));
    let new = Ca::new("new server ca");
    let trusted = Dir::in_memory([("c1.crt", server.ca.pem())]);
    let trust = TrustAnchors::in_dir(&trusted).unwrap();
    let login = SqlxLogin::new(options(&database), &credentials, SslMode::VerifyFull(trust)).unwrap();
    let (pool, _rotation) = connect(login).await.unwrap();
    fill(&pool).await;

    // Added: the sessions that there are stay, and the new certificate is trusted.
    let before = pool.connect_options();
    trusted
        .publish([("c1.crt", server.ca.pem()), ("c2.crt", new.pem())])
        .unwrap();
    until(async || !std::sync::Arc::ptr_eq(&before, &pool.connect_options())).await;
    fill(&pool).await;
    assert_eq!(database.asked("r1"), 1 + 2);
    server.show(&new.leaf("localhost"));
    server.reload();
    for _ in 0..2 {
        pool.acquire().await.unwrap().close().await.unwrap();
    }
    fill(&pool).await;
    assert_eq!(database.asked("r1"), 1 + 2 + 2);

    // Removed: the sessions go within the window, since nobody knows who vouched for them.
    trusted.publish([("c2.crt", new.pem())]).unwrap();
    until(async || sessions(&database, "r1").await == 0).await;
    assert!(has_tls(&pool).await);

    // The server shows what is not trusted any more.
    server.show(&server.ca.leaf("localhost"));
    server.reload();
    let error = loop {
        match pool.acquire().await {
            // One from before.
            Ok(session) => session.close().await.unwrap(),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("UnknownIssuer"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_clients_rotate() {
    let database = on(Server::shared(), "hostssl {db} all 127.0.0.1/32 cert").await;
    let files = |revisions: &[&str]| -> Files {
        let (last, others) = revisions.split_last().unwrap();
        let of = |id: &str| {
            let leaf = database.server.clients.leaf(&database.role(id));
            let name = vec![(format!("{id}.username"), database.role(id))];
            [certificate(id, &leaf), name].concat()
        };
        let others = others.iter().flat_map(|id| of(id));
        others.chain(primary(of(last))).collect()
    };
    for revision in ["r1", "r2"] {
        database.create(revision, "").await;
    }
    let dir = Dir::in_memory(files(&["r1"]));
    let credentials = Credentials::certificates_in_dir(&dir).unwrap();
    let mode = SslMode::VerifyFull(anchors(&database.server.ca));
    let login = SqlxLogin::new(options(&database), &credentials, mode).unwrap();
    let (pool, rotation) = connect(login).await.unwrap();
    fill(&pool).await;
    assert_eq!(user(&pool).await, database.role("r1"));
    dir.publish(files(&["r2"])).unwrap();
    until_it_is(&rotation, "r2").await;
    until(async || sessions(&database, "r1").await == 0).await;
    assert_eq!(user(&pool).await, database.role("r2"));
}
