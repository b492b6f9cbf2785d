//! What goes wrong while a pool is busy.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use keydir_postgres::{AsksForPassword, Login, SslMode};
use tokio::time::{sleep, timeout};
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use super::busy::Busy;
use super::{KINDS, Kind, Pool, SIZE, WINDOW};
use crate::directory::{credentials, login, logins, password, plain, primary};
use crate::fallback::steps;
use crate::impostor::{CLEAR, Impostor, says_only_who_it_is};
use crate::proxy::Proxy;
use crate::server::{Database, PATIENCE, Server, eventually};

/// A new primary that the server refuses for a while: no request fails, the server refuses it once a step of the back-off,
/// and when it takes it, all sessions go over.
async fn refused_for_a_while(create: &str, mend: &str, said: &str, allowed: impl Fn(Instant) -> usize) {
    for kind in KINDS {
        let database = Database::new().await;
        database.with(&["r1"]).await;
        let role = database.role("r2");
        let fill = |text: &str| text.replace("{role}", &role).replace("{password}", &password("r2"));
        database.sql(&fill(create)).await;
        let (dir, plain) = plain(&database, logins(&database, &["r1"]));
        let pool = Pool::new(kind, &plain, WINDOW).await;
        let busy = Busy::start(&pool);
        busy.until_more(100).await;

        let begun = Instant::now();
        dir.publish(logins(&database, &["r1", "r2"])).unwrap();
        let refused = || database.server.lines(&fill(said)).len();
        while refused() < 2 {
            sleep(Duration::from_millis(5)).await;
        }
        busy.until_more(100).await;
        database.sql(&fill(mend)).await;
        database.until_sessions("r2", SIZE).await;
        database.until_sessions("r1", 0).await;
        busy.until_more(100).await;
        assert_eq!(busy.stop().await, Vec::<String>::new(), "{kind:?}");
        let (refused, allowed) = (refused(), allowed(begun));
        assert!(refused <= allowed, "{kind:?}: {refused} refused of {allowed}");
    }
}

const FAILED: &str = "password authentication failed for user \"{role}\"";

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password() {
    let create = "CREATE ROLE {role} LOGIN PASSWORD 'another'";
    refused_for_a_while(create, "ALTER ROLE {role} PASSWORD '{password}'", FAILED, steps).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_missing() {
    refused_for_a_while("", "CREATE ROLE {role} LOGIN PASSWORD '{password}'", FAILED, steps).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_has_expired() {
    let create = "CREATE ROLE {role} LOGIN PASSWORD '{password}' VALID UNTIL '2020-01-01'";
    refused_for_a_while(create, "ALTER ROLE {role} VALID UNTIL 'infinity'", FAILED, steps).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_log_in() {
    let create = "CREATE ROLE {role} NOLOGIN PASSWORD '{password}'";
    let said = "role \"{role}\" is not permitted to log in";
    refused_for_a_while(create, "ALTER ROLE {role} LOGIN", said, steps).await;
}

/// 53300 says nothing about the login: requests go on with the last one, and it is tried again after a second.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_room() {
    let create = "CREATE ROLE {role} LOGIN PASSWORD '{password}' CONNECTION LIMIT 0";
    let said = "too many connections for role \"{role}\"";
    let seconds = |begun: Instant| 1 + usize::try_from(begun.elapsed().as_secs()).unwrap();
    refused_for_a_while(create, "ALTER ROLE {role} CONNECTION LIMIT -1", said, seconds).await;
}

/// A server that has room for not one session more.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_room() {
    for kind in KINDS {
        let server: &'static Server = Box::leak(Box::new(Server::start("max_connections = 20")));
        let database = Database::without_rules(server).await;
        database.rule("host {db} all 127.0.0.1/32 scram-sha-256");
        database.with(&["r1", "r2", "others"]).await;
        // Each look by a session of its own would take room too.
        let mut config = tokio_postgres::Config::new();
        config.host_path(server.socket()).port(server.port).user("postgres");
        let (watcher, connection) = config.dbname(&database.name).connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        let (dir, plain) = plain(&database, logins(&database, &["r1"]));
        let pool = Pool::new(kind, &plain, WINDOW).await;
        pool.fill().await;
        let mut config = database.config();
        config.user(database.role("others")).password(password("others"));
        let mut others = Vec::new();
        let full = loop {
            match config.connect(NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    others.push(client);
                }
                Err(error) => break error,
            }
        };
        assert_eq!(full.code(), Some(&SqlState::TOO_MANY_CONNECTIONS));
        let busy = Busy::start(&pool);
        busy.until_more(100).await;
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1";
        for (old, new) in [("r1", "r2"), ("r2", "r1")].repeat(2) {
            dir.publish(logins(&database, &[old, new])).unwrap();
            let role = database.role(new);
            let all = async {
                while watcher.query_one(sql, &[&role]).await.unwrap().get::<_, i64>(0) < SIZE as i64 {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            assert!(timeout(PATIENCE, all).await.is_ok());
        }
        busy.until_more(100).await;
        assert_eq!(busy.stop().await, Vec::<String>::new(), "{kind:?}");
        drop(others);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_the_middle() {
    for kind in KINDS {
        let server: &'static Server = Box::leak(Box::new(Server::start("ssl = on")));
        let database = Database::without_rules(server).await;
        database.rule("host {db} all 127.0.0.1/32 scram-sha-256");
        database.with(&["r1", "r2", "r3"]).await;
        let (dir, plain) = plain(&database, logins(&database, &["r1"]));
        let pool = Pool::new(kind, &plain, WINDOW).await;
        pool.fill().await;
        let busy = Busy::start(&pool);
        dir.publish(logins(&database, &["r1", "r2"])).unwrap();
        database.until_sessions("r2", 1).await;
        server.stop();
        // It is not there to say what it thinks of this one.
        dir.publish(logins(&database, &["r2", "r3"])).unwrap();
        server.start_again();
        busy.until_more(100).await;
        // What has failed, failed because nobody was there.
        drop(busy.stop().await);

        let busy = Busy::start(&pool);
        database.until_sessions("r3", SIZE).await;
        for old in ["r1", "r2"] {
            database.until_sessions(old, 0).await;
        }
        busy.until_more(100).await;
        assert_eq!(busy.stop().await, Vec::<String>::new(), "{kind:?}");
    }
}

/// The server lets new connections in and answers none.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer() {
    for kind in KINDS {
        let database = Database::new().await;
        database.with(&["r1", "r2"]).await;
        let proxy = Proxy::before(database.server.port).await;
        let config = format!(
            "host=localhost hostaddr=127.0.0.1 port={} dbname={}",
            proxy.address.port(),
            database.name
        );
        let (dir, credentials) = credentials(logins(&database, &["r1"]));
        let login = Login::new(config.parse().unwrap(), &credentials, SslMode::Disable).unwrap();
        proxy.let_through(SIZE);
        let pool = Pool::new(kind, &login, WINDOW).await;
        pool.fill().await;
        let held = [pool.get().await.unwrap(), pool.get().await.unwrap()];
        dir.publish(logins(&database, &["r1", "r2"])).unwrap();
        // The new one is tried in the place of another.
        assert!(eventually(|| proxy.arrived() > SIZE));
        let third = pool.get().await.unwrap();
        for client in held.iter().chain([&third]) {
            assert_eq!(*client.lease().revision(), *"r1");
            client.query_one("SELECT 1", &[]).await.unwrap();
        }
        drop((held, third));
        proxy.let_through(1_000);
        database.until_sessions("r1", 0).await;
        assert_eq!(pool.fill().await, BTreeSet::from(["r2".to_owned()]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_broken() {
    for kind in KINDS {
        let database = Database::new().await;
        database.with(&["r1", "r2"]).await;
        let (dir, plain) = plain(&database, logins(&database, &["r1"]));
        let pool = Pool::new(kind, &plain, WINDOW).await;
        let busy = Busy::start(&pool);
        for files in [
            primary(vec![("r1.password".to_owned(), "a\0b".to_owned())]),
            login(&database, "r1"),
            [primary(login(&database, "r1")), primary(login(&database, "r2"))].concat(),
            Vec::new(),
        ] {
            let _ = dir.publish(files);
            busy.until_more(20).await;
            // Another session can still be made.
            plain.connect().await.unwrap();
        }
        dir.publish(logins(&database, &["r1", "r2"])).unwrap();
        database.until_sessions("r2", SIZE).await;
        database.until_sessions("r1", 0).await;
        assert_eq!(busy.stop().await, Vec::<String>::new(), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impostor_gets_no_password() {
    for kind in KINDS {
        let impostor = Impostor::new(CLEAR, None).await;
        let pool = Pool::new(kind, &impostor.login(SslMode::Prefer), WINDOW).await;
        let getting = tokio::spawn({
            let pool = pool.clone();
            async move { pool.get().await.map(drop).map_err(|error| error.to_string()) }
        });
        match kind {
            Kind::Deadpool => {
                let error = getting.await.unwrap().unwrap_err();
                assert!(error.contains(&AsksForPassword.to_string()), "{error}");
            }
            // It tells no error, and tries again.
            Kind::Bb8 => {
                assert!(eventually(|| impostor.heard().len() > 2));
                assert!(!getting.is_finished());
                getting.abort();
            }
        }
        for bytes in impostor.heard().into_iter().filter(|bytes| !bytes.is_empty()) {
            says_only_who_it_is(&bytes);
        }
    }
}
