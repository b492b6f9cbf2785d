//! Directories that are broken, and servers that do not answer.

use std::time::Duration;

use keydir::{Dir, Publisher};
use keydir_postgres::{Credentials, Login, Refused, SslMode};
use tokio::net::TcpListener;

use crate::directory::{certificate, credentials, login, logins, password, plain, primary};
use crate::server::{Database, Server};

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_is_no_revocation() {
    let database = Database::new().await;
    database.create("r1", &format!("PASSWORD '{}'", password("r1"))).await;
    let (dir, plain) = plain(&database, logins(&database, &["r1"]));
    let (_client, lease) = plain.connect().await.unwrap();
    let works = async || {
        let (_, lease) = plain.connect().await.unwrap();
        assert_eq!(lease.revision().as_str(), "r1");
    };
    for (what, files) in [
        ("broken", primary(vec![("r1.password".to_owned(), "a\0b".to_owned())])),
        ("no mark", login(&database, "r1")),
        (
            "two marks",
            [primary(login(&database, "r1")), primary(login(&database, "r2"))].concat(),
        ),
        (
            "a half of a certificate",
            [
                primary(login(&database, "r1")),
                vec![("r1.crt".to_owned(), "x".to_owned())],
            ]
            .concat(),
        ),
        ("nothing", Vec::new()),
    ] {
        let _ = dir.publish(files);
        assert!(lease.stands(), "{what}");
        works().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_to_log_in_with_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let dir = Dir::builder(folder.path()).allow_empty().open().unwrap();
    let credentials = Credentials::in_dir(&dir).unwrap();
    let login = Login::new("host=localhost".parse().unwrap(), &credentials, SslMode::Disable).unwrap();
    let error = login.connect().await.unwrap_err().to_string();
    assert!(error.contains("nothing to log in with"), "{error}");
    assert!(error.contains(folder.path().to_str().unwrap()), "{error}");

    // Once there is something, it is used.
    let database = Database::new().await;
    database.create("r1", &format!("PASSWORD '{}'", password("r1"))).await;
    let login = Login::new(database.config(), &credentials, SslMode::Disable).unwrap();
    let files = logins(&database, &["r1"])
        .into_iter()
        .map(|(name, content)| (name, content.into()));
    Publisher::open(folder.path())
        .unwrap()
        .publish(&files.collect())
        .unwrap();
    dir.reload().unwrap();
    login.connect().await.unwrap();
}

/// Refused as any other, and not sent in place of another.
#[tokio::test(flavor = "multi_thread")]
async fn expired_certificates() {
    let database = Database::without_rules(Server::shared()).await;
    database.rule("hostssl {db} all 127.0.0.1/32 cert");
    for revision in ["r1", "r2"] {
        database.create(revision, "").await;
    }
    let clients = &database.server.clients;
    let of = |id: &str, leaf| {
        let name = vec![(format!("{id}.username"), database.role(id))];
        [certificate(id, &leaf), name].concat()
    };
    let expired = of("r1", clients.expired_leaf(&database.role("r1")));
    let alien = of("r2", crate::pki::Ca::new("another").leaf(&database.role("r2")));
    let dir = Dir::in_memory([expired.clone(), primary(alien)].concat());
    let login = |dir: &Dir| {
        let credentials = Credentials::certificates_in_dir(dir).unwrap();
        Login::new(database.config(), &credentials, SslMode::Require).unwrap()
    };
    let error = login(&dir).connect().await.unwrap_err();
    let tried: Vec<_> = error
        .tries()
        .iter()
        .map(|failed| (failed.revision.as_str(), failed.refused))
        .collect();
    assert_eq!(tried, [("r2", Refused::Credential)], "{error}");

    // As a primary it is shown, for the server to say so, and the other takes its place.
    let good = of("r2", clients.leaf(&database.role("r2")));
    let dir = Dir::in_memory([primary(expired), good].concat());
    let (_client, lease) = login(&dir).connect().await.unwrap();
    assert_eq!(lease.revision().as_str(), "r2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_no_refusal() {
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let files = vec![
        ("r1.password".to_owned(), password("r1")),
        ("r2.password.primary".to_owned(), password("r2")),
    ];
    let (_dir, credentials) = credentials(files);
    let config = format!("hostaddr=127.0.0.1 port={port}").parse().unwrap();
    let login = Login::new(config, &credentials, SslMode::Prefer).unwrap();
    let workers = (0..8).map(|_| {
        let login = login.clone();
        tokio::spawn(async move { login.connect().await.map(drop) })
    });
    for worker in workers.collect::<Vec<_>>() {
        let error = worker.await.unwrap().unwrap_err();
        assert_eq!(error.tries().len(), 1, "{error}");
        assert_eq!(error.tries()[0].refused, Refused::Other, "{error}");
        assert_eq!(error.tries()[0].revision.as_str(), "r2");
    }
}

/// With the clock of tokio, which does not wait where nothing else is to be done.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever_for_who_tries_a_revision() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (_dir, credentials) = credentials(vec![("r1.password.primary".to_owned(), password("r1"))]);
    let config = format!("hostaddr=127.0.0.1 port={port}").parse().unwrap();
    let login = Login::new(config, &credentials, SslMode::Disable).unwrap();
    // It is let in and never answered.
    let begun = tokio::time::Instant::now();
    let (one, two) = tokio::join!(login.connect(), login.connect());
    for connected in [one, two] {
        let error = connected.map(drop).unwrap_err();
        assert!(error.to_string().contains("the server does not answer"), "{error}");
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}
