//! What a session was made with, and what becomes of it.

use std::io;
use std::sync::{Arc, Mutex};

use keydir_postgres::{Login, SslMode};
use tokio_postgres::AsyncMessage;

use crate::directory::{credentials, login, login_with, logins, password, plain, primary};
use crate::proxy::Proxy;
use crate::server::{Database, PATIENCE, eventually};

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it never came")
}

async fn with_roles() -> Database {
    let database = Database::new().await;
    for revision in ["r1", "r2", "r3"] {
        database
            .create(revision, &format!("PASSWORD '{}'", password(revision)))
            .await;
    }
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_login_says_what_it_was_made_with() {
    let database = with_roles().await;
    let proxy = Proxy::before(database.server.port).await;
    let (dir, credentials) = credentials(logins(&database, &["r1"]));
    let mut config = tokio_postgres::Config::new();
    config
        .host("localhost")
        .hostaddr(proxy.address.ip())
        .port(proxy.address.port())
        .dbname(&database.name);
    let slow = Login::new(config, &credentials, SslMode::Disable).unwrap();

    let connecting = tokio::spawn({
        let slow = slow.clone();
        async move { slow.connect().await }
    });
    assert!(eventually(|| proxy.arrived() == 1));
    // While it is held back, the primary changes.
    dir.publish(logins(&database, &["r1", "r2"])).unwrap();
    proxy.let_through(1);
    let (client, lease) = connecting.await.unwrap().unwrap();
    let user: String = client.query_one("SELECT session_user::text", &[]).await.unwrap().get(0);
    assert_eq!((user, lease.revision().as_str()), (database.role("r1"), "r1"));
    // Another would be used only once it is known to work, which the lease itself sees to.
    assert!(!lease.is_superseded());
    proxy.let_through(1);
    soon(lease.superseded()).await;
    assert!(lease.is_superseded() && lease.stands());

    // And while it is held back, its revision is revoked: it is made again.
    dir.publish(logins(&database, &["r1", "r2", "r3"])).unwrap();
    let before = proxy.arrived();
    let connecting = tokio::spawn({
        let slow = slow.clone();
        async move { slow.connect().await }
    });
    // With r2, and r3 is tried beside it.
    assert!(eventually(|| proxy.arrived() == before + 2));
    let old = slow.credentials().live().load().get("r2").cloned().unwrap();
    dir.publish(logins(&database, &["r3"])).unwrap();
    soon(old.ended()).await;
    proxy.let_through(3);
    let (client, lease) = connecting.await.unwrap().unwrap();
    let user: String = client.query_one("SELECT session_user::text", &[]).await.unwrap().get(0);
    assert_eq!((user, lease.revision().as_str()), (database.role("r3"), "r3"));
    assert!(lease.stands());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_not_superseded_by_a_login_that_is_refused() {
    let database = with_roles().await;
    database.create("r4", "PASSWORD 'another'").await;
    let (dir, plain) = plain(&database, logins(&database, &["r1"]));
    let (_client, lease) = plain.connect().await.unwrap();
    dir.publish(logins(&database, &["r1", "r4"])).unwrap();
    let superseded = tokio::spawn(lease.superseded());
    // Though nobody connects, it is tried, and not only once.
    assert!(eventually(|| database.refused("r4") == 2));
    let (_other_client, other) = plain.connect().await.unwrap();
    for lease in [&lease, &other] {
        assert_eq!(lease.revision().as_str(), "r1");
        assert!(!lease.is_superseded() && !superseded.is_finished());
    }
    let role = database.role("r4");
    database
        .sql(&format!("ALTER ROLE {role} PASSWORD '{}'", password("r4")))
        .await;
    soon(superseded).await.unwrap();
    // Also the one that was made while it was refused.
    soon(other.superseded()).await;
    assert!(lease.is_superseded() && other.is_superseded());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_superseded_and_ends() {
    let database = with_roles().await;
    let (dir, plain) = plain(&database, logins(&database, &["r1"]));
    let (client, lease) = plain.connect().await.unwrap();
    let (superseded, ended) = (tokio::spawn(lease.superseded()), tokio::spawn(lease.ended()));
    assert!(!lease.is_superseded() && lease.stands() && !superseded.is_finished());
    let uses = || {
        let report = plain.credentials().live().dir().report();
        let revisions = &report.sets[0].revisions;
        revisions
            .iter()
            .find(|(id, _)| id.as_str() == "r1")
            .map_or(0, |(_, revision)| revision.uses)
    };
    assert_eq!(uses(), 1);

    dir.publish(logins(&database, &["r1", "r2"])).unwrap();
    soon(superseded).await.unwrap();
    assert!(lease.is_superseded() && lease.stands() && !ended.is_finished());
    // What comes back is what it was.
    dir.publish(logins(&database, &["r2", "r1"])).unwrap();
    let (_again, other) = plain.connect().await.unwrap();
    soon(other.superseded()).await;
    assert!(!lease.is_superseded());

    dir.publish(logins(&database, &["r2"])).unwrap();
    soon(ended).await.unwrap();
    assert!(!lease.stands());
    // Its work may end.
    client.query_one("SELECT 1", &[]).await.unwrap();
    assert!(eventually(|| uses() == 1));
    drop(client);
    assert!(eventually(|| uses() == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_session_says_good_bye() {
    let database = with_roles().await;
    let (_dir, plain) = plain(&database, logins(&database, &["r1"]));
    let mut pids = Vec::new();
    for _ in 0..5 {
        let (client, _) = plain.connect().await.unwrap();
        let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        pids.push(pid);
    }
    for pid in pids {
        let begins = format!("[{pid}] ");
        let lines = || database.server.lines(&begins);
        assert!(
            eventually(|| lines().iter().any(|line| line.contains("disconnection:"))),
            "{:?}",
            lines()
        );
        let rough = lines()
            .into_iter()
            .find(|line| line.contains("could not receive") || line.contains("unexpected EOF"));
        assert_eq!(rough, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_says_of_its_own_accord_is_handed_out() {
    let database = with_roles().await;
    let (dir, login) = plain(&database, logins(&database, &["r1"]));
    let (client, lease, mut messages) = login.connect_with_messages().await.unwrap();
    client.batch_execute("LISTEN orders").await.unwrap();
    database.sql("NOTIFY orders, 'one'").await;
    let message = soon(messages.recv()).await.unwrap();
    assert!(matches!(&message, AsyncMessage::Notification(order) if order.payload() == "one"));

    dir.publish(logins(&database, &["r1", "r2"])).unwrap();
    soon(lease.superseded()).await;
    let (next, lease, mut more) = login.connect_with_messages().await.unwrap();
    assert_eq!(*lease.revision(), *"r2");
    next.batch_execute("LISTEN orders").await.unwrap();
    drop(client);
    database.sql("NOTIFY orders, 'two'").await;
    let message = soon(more.recv()).await.unwrap();
    assert!(matches!(&message, AsyncMessage::Notification(order) if order.payload() == "two"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_can_tell_the_revision() {
    let database = with_roles().await;
    let (_dir, credentials) = credentials(logins(&database, &["r1", "r2"]));
    let mut config = database.config();
    config.application_name("shop");
    let tagged = Login::new(config, &credentials, SslMode::Disable)
        .unwrap()
        .tag_application_name();
    let (_client, _lease) = tagged.connect().await.unwrap();
    let names = database
        .sql("SELECT usename, application_name FROM pg_stat_activity WHERE datname = '{db}' AND usename <> 'postgres'")
        .await;
    assert_eq!(names, [[database.role("r2"), "shop/r2".to_owned()]]);
}

/// What was logged, by all tests of the process.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_prints_a_password() {
    let logged = Logged::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
    let writer = logged.clone();
    let subscriber = subscriber.with_writer(move || writer.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let database = with_roles().await;
    let bad = primary(login_with(&database, "r4", "canary of another revision"));
    let (dir, plain) = plain(&database, [login(&database, "r1"), bad].concat());
    let (_client, lease) = plain.connect().await.unwrap();
    let (_, unknown) = crate::directory::plain(&database, logins(&database, &["r9"]));
    let error = unknown.connect().await.map(drop).unwrap_err();
    let credentials = plain.credentials();
    let all = format!(
        "{plain:?} {lease:?} {credentials:?} {:?} {:?} {error:?} {error} {dir:?} {:?} {:?}",
        **credentials.primary().unwrap(),
        lease.tls(),
        credentials.live().load(),
        keydir::report()
    );
    assert!(!all.contains("canary"), "{all}");
    let printed = || String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
    assert!(eventually(|| printed().contains("revision=r4")));
    let logged = printed();
    assert!(!logged.contains("canary"), "{logged}");
    assert!(!database.server.log().contains("canary"));
}
