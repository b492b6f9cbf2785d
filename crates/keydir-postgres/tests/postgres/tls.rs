//! Each `sslmode` against servers with TLS and without, and the rotation of the server's CA.

use keydir::Dir;
use keydir_postgres::{Lease, Login, LoginError, SslMode};
use keydir_rustls::TrustAnchors;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::config::ChannelBinding;
use tokio_postgres::error::SqlState;

use crate::directory::{anchors, credentials, logins, password};
use crate::pki::Ca;
use crate::server::{Database, PATIENCE, Server, eventually};

async fn with_role(server: &'static Server) -> Database {
    let database = Database::without_rules(server).await;
    database.rule("host {db} all 127.0.0.1/32 scram-sha-256\nlocal {db} all scram-sha-256");
    database.create("r1", &format!("PASSWORD '{}'", password("r1"))).await;
    database
}

fn login(database: &Database, mode: SslMode) -> Login {
    login_to(database.config(), database, mode)
}

fn login_to(config: tokio_postgres::Config, database: &Database, mode: SslMode) -> Login {
    Login::new(config, &credentials(logins(database, &["r1"])).1, mode).unwrap()
}

/// Whether the session goes over TLS, as the server sees it.
async fn has_tls(client: &Client) -> bool {
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

async fn told(connecting: Result<(Client, Lease), LoginError>) -> Result<bool, String> {
    match connecting {
        Ok((client, lease)) => {
            let tls = has_tls(&client).await;
            assert!(tls || lease.connection().is_none());
            Ok(tls)
        }
        Err(error) => Err(error.to_string()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mode() {
    let (with, without) = (
        with_role(Server::shared()).await,
        with_role(Server::without_tls()).await,
    );
    let (ca, wrong) = (|| anchors(&with.server.ca), || anchors(&Ca::new("wrong")));
    let refused = "invalid peer certificate: UnknownIssuer";
    let none = "the server offers no TLS";
    for (mode, expected, where_there_is_none) in [
        (SslMode::Disable, Ok(false), Ok(false)),
        (SslMode::Prefer, Ok(true), Ok(false)),
        (SslMode::Require, Ok(true), Err(none)),
        (SslMode::VerifyCa(ca()), Ok(true), Err(none)),
        (SslMode::VerifyFull(ca()), Ok(true), Err(none)),
        (SslMode::VerifyCa(wrong()), Err(refused), Err(none)),
        (SslMode::VerifyFull(wrong()), Err(refused), Err(none)),
    ] {
        for (database, expected) in [(&with, expected), (&without, where_there_is_none)] {
            let told = told(login(database, mode.clone()).connect().await).await;
            let fits = match (&told, expected) {
                (Err(error), Err(expected)) => error.contains(expected),
                (told, expected) => told.as_ref().ok() == expected.as_ref().ok(),
            };
            assert!(fits, "{mode:?}: {told:?}, but {expected:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_counts_with_verify_full_alone() {
    let database = with_role(Server::shared()).await;
    let mut config = tokio_postgres::Config::new();
    config
        .host("another.test")
        .hostaddr([127, 0, 0, 1].into())
        .port(database.server.port)
        .dbname(&database.name);
    let ca = || anchors(&database.server.ca);
    let full = login_to(config.clone(), &database, SslMode::VerifyFull(ca()));
    let error = told(full.connect().await).await.unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");
    assert_eq!(
        told(login_to(config, &database, SslMode::VerifyCa(ca())).connect().await).await,
        Ok(true)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn scram_is_bound_to_the_channel() {
    let database = with_role(Server::shared()).await;
    for mode in [
        SslMode::Prefer,
        SslMode::Require,
        SslMode::VerifyFull(anchors(&database.server.ca)),
    ] {
        let mut config = database.config();
        config.channel_binding(ChannelBinding::Require);
        assert_eq!(told(login_to(config, &database, mode).connect().await).await, Ok(true));
    }
}

/// The client's last word of SCRAM counts for one TLS connection: who has it from another cannot log in by it.
#[tokio::test(flavor = "multi_thread")]
async fn other_signatures_are_bound_too() {
    let server: &'static Server = Box::leak(Box::new(Server::start("ssl = on")));
    let database = with_role(server).await;
    for algorithm in [
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_RSA_SHA256,
        &rcgen::PKCS_RSA_SHA512,
    ] {
        let ca = Ca::with_algorithm("ca", algorithm);
        server.show(&ca.leaf("localhost"));
        server.reload();
        let mut config = database.config();
        config.channel_binding(ChannelBinding::Require);
        let login = login_to(config, &database, SslMode::VerifyFull(anchors(&ca)));
        assert_eq!(told(login.connect().await).await, Ok(true), "{algorithm:?}");
    }
    // For Ed25519 no hash is defined: SCRAM goes on without.
    let ca = Ca::with_algorithm("ca", &rcgen::PKCS_ED25519);
    server.show(&ca.leaf("localhost"));
    server.reload();
    assert_eq!(
        told(login(&database, SslMode::VerifyFull(anchors(&ca))).connect().await).await,
        Ok(true)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_can_be_cancelled_in_each_mode() {
    let (with, without) = (
        with_role(Server::shared()).await,
        with_role(Server::without_tls()).await,
    );
    let ca = || anchors(&with.server.ca);
    let mut socket = tokio_postgres::Config::new();
    socket
        .host_path(with.server.socket())
        .port(with.server.port)
        .dbname(&with.name);
    for (database, config, mode) in [
        (&with, with.config(), SslMode::Disable),
        (&with, with.config(), SslMode::Prefer),
        (&with, with.config(), SslMode::Require),
        (&with, with.config(), SslMode::VerifyCa(ca())),
        (&with, with.config(), SslMode::VerifyFull(ca())),
        (&without, without.config(), SslMode::Prefer),
        (&with, socket, SslMode::VerifyFull(ca())),
    ] {
        let (client, lease) = login_to(config, database, mode.clone()).connect().await.unwrap();
        is_cancelled(database, &client, &lease).await;
    }
}

/// Cancels a query that would not end.
pub(crate) async fn is_cancelled(database: &Database, client: &Client, lease: &Lease) {
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let query = client.batch_execute("SELECT pg_sleep(3600)");
    let cancel = async {
        let sleeps = format!("SELECT FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'");
        while database.sql(&sleeps).await.is_empty() {}
        client.cancel_token().cancel_query(lease.tls()).await.unwrap();
    };
    let both = async { tokio::join!(query, cancel) };
    let (error, ()) = timeout(PATIENCE, both).await.expect("it was not cancelled");
    assert_eq!(error.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ca_of_the_server_rotates() {
    let server: &'static Server = Box::leak(Box::new(Server::start("ssl = on")));
    let database = with_role(server).await;
    let (old, new) = (server.ca.pem(), Ca::new("new"));
    let trusted = Dir::in_memory([("c1.crt", old.clone())]);
    let login = login(&database, SslMode::VerifyFull(TrustAnchors::in_dir(&trusted).unwrap()));
    let (client, lease) = login.connect().await.unwrap();
    let by = |lease: &Lease| lease.connection().unwrap().peer().unwrap().ca().unwrap().to_string();
    assert_eq!(by(&lease), "c1");

    trusted.publish([("c1.crt", old), ("c2.crt", new.pem())]).unwrap();
    server.show(&new.leaf("localhost"));
    server.reload();
    let (new_client, new_lease) = login.connect().await.unwrap();
    assert_eq!(by(&new_lease), "c2");

    // The old CA goes while a query waits: the lease ends, the query does not.
    new_client.batch_execute("SELECT pg_advisory_lock(1)").await.unwrap();
    let waiting = client.batch_execute("SELECT pg_advisory_lock(1)");
    let removed = async {
        while database
            .sql("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            .await
            .is_empty()
        {}
        trusted.publish([("c2.crt", new.pem())]).unwrap();
        lease.ended().await;
        assert!(!lease.stands() && new_lease.stands());
        new_client.batch_execute("SELECT pg_advisory_unlock(1)").await.unwrap();
    };
    let (waited, ()) = tokio::join!(waiting, removed);
    waited.unwrap();
    // And what it does is still to be stopped.
    is_cancelled(&database, &client, &lease).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn places() {
    let database = with_role(Server::shared()).await;
    let port = database.server.port;
    let socket = database.server.socket().display();
    let server = Box::leak(Box::new(Server::start("ssl = on")));
    server.show(&server.ca.leaf_of_address());
    server.reload();
    let by_address = with_role(server).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    for (what, database, config, tls) in [
        (
            "an address alone",
            &by_address,
            format!("hostaddr=127.0.0.1 port={}", server.port),
            true,
        ),
        (
            "a name with more than one address",
            &database,
            format!("host=localhost port={port}"),
            true,
        ),
        (
            "the second of two",
            &database,
            format!("host=localhost,localhost hostaddr=127.0.0.1,127.0.0.1 port={closed},{port}"),
            true,
        ),
        (
            "one that is unknown first",
            &database,
            format!("host=nowhere.invalid,localhost port={port}"),
            true,
        ),
        ("a socket", &database, format!("host={socket} port={port}"), false),
        (
            "a socket that is not there, then a name",
            &database,
            format!("host=/nowhere,localhost port={port}"),
            true,
        ),
        (
            "a name, then a socket",
            &database,
            format!("host=localhost,{socket} port={closed},{port}"),
            false,
        ),
    ] {
        let mut config: tokio_postgres::Config = config.parse().unwrap();
        config.dbname(&database.name);
        let login = login_to(config, database, SslMode::VerifyFull(anchors(&database.server.ca)));
        assert_eq!(told(login.connect().await).await, Ok(tls), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_not_asked_for_at_the_next_host() {
    let database = with_role(Server::shared()).await;
    database.create("r2", "PASSWORD 'another'").await;
    let port = database.server.port;
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let config = format!(
        "hostaddr=127.0.0.1,127.0.0.1,127.0.0.1 port={port},{port},{closed} dbname={}",
        database.name
    );
    let (_dir, credentials) = credentials(logins(&database, &["r2"]));
    let login = Login::new(config.parse().unwrap(), &credentials, SslMode::Disable).unwrap();
    let error = login.connect().await.unwrap_err();
    assert!(error.to_string().contains("password authentication failed"), "{error}");
    assert!(eventually(|| database.refused("r2") == 1));
}
