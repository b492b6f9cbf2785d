//! What a refusal says of the credential, for every way in which PostgreSQL refuses.

use keydir::Dir;
use keydir_postgres::{Credentials, Login, LoginError, Refused, SslMode};

use crate::directory::{Files, anchors, certificate, credentials, login, login_with, password, plain, primary};
use crate::pki::{Ca, Leaf};
use crate::server::{Database, Server};

fn only(result: Result<(tokio_postgres::Client, keydir_postgres::Lease), LoginError>) -> (Refused, String) {
    let error = result.expect_err("it was let in");
    assert_eq!(error.tries().len(), 1, "{error}");
    (error.tries()[0].refused, error.to_string())
}

/// What comes of one login without TLS by the only revision there is.
async fn refused(database: &Database, files: Files) -> (Refused, String) {
    let (_dir, login) = plain(database, primary(files));
    only(login.connect().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_and_roles() {
    let database = Database::new().await;
    database
        .sql("SET password_encryption = 'md5'; CREATE ROLE {db}_md5 LOGIN PASSWORD 'canary-md5-0123456789abcdef'")
        .await;
    for (revision, options) in [
        ("wrong", "PASSWORD 'another'".to_owned()),
        ("empty", format!("PASSWORD '{}'", password("empty"))),
        ("none", String::new()),
        (
            "late",
            format!("PASSWORD '{}' VALID UNTIL '2020-01-01'", password("late")),
        ),
        ("nologin", format!("PASSWORD '{}'", password("nologin"))),
        ("full", format!("CONNECTION LIMIT 0 PASSWORD '{}'", password("full"))),
    ] {
        database.create(revision, &options).await;
    }
    database.sql("ALTER ROLE {db}_nologin NOLOGIN").await;
    for (revision, expected) in [
        ("wrong", Refused::Credential),
        ("unknown", Refused::Credential),
        ("none", Refused::Credential),
        ("md5", Refused::Credential),
        ("late", Refused::Credential),
        ("nologin", Refused::Credential),
        ("full", Refused::Other),
    ] {
        let (refused, error) = refused(&database, login(&database, revision)).await;
        assert_eq!(refused, expected, "{revision}: {error}");
        assert!(error.contains(&format!("with {revision}: ")), "{error}");
        assert!(!error.contains("canary"), "{error}");
    }
    // Whether the file holds a second newline is not for the server to say: the revision is not usable.
    let two = Dir::in_memory(primary(login_with(&database, "empty", "canary\n\n")));
    assert!(Credentials::in_dir(&two).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn privileges_and_databases() {
    let database = Database::new().await;
    database.create("r1", &format!("PASSWORD '{}'", password("r1"))).await;
    database.sql("CREATE ROLE {db}_app").await;
    for (role, what) in [
        (database.role("app"), "no member"),
        (database.role("nobody"), "no such role"),
    ] {
        for option in [true, false] {
            let (_dir, login) = plain(&database, primary(login(&database, "r1")));
            let login = if option {
                login.role(&role)
            } else {
                login.set_role(&role)
            };
            let (refused, error) = only(login.connect().await);
            assert_eq!(refused, Refused::Privilege, "{what}: {error}");
        }
    }

    database.sql("REVOKE CONNECT ON DATABASE {db} FROM PUBLIC").await;
    let (refused, error) = refused(&database, login(&database, "r1")).await;
    assert_eq!(refused, Refused::Privilege, "{error}");

    database
        .sql("GRANT CONNECT ON DATABASE {db} TO PUBLIC; ALTER DATABASE {db} CONNECTION LIMIT 0")
        .await;
    let (refused, error) = self::refused(&database, login(&database, "r1")).await;
    assert_eq!(refused, Refused::Other, "{error}");

    let server = Server::shared();
    server
        .sql(
            "postgres",
            &format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", database.name),
        )
        .await;
    let (refused, error) = self::refused(&database, login(&database, "r1")).await;
    assert_eq!(refused, Refused::Other, "{error}");
    assert!(error.contains("not currently accepting connections"), "{error}");

    server
        .sql("postgres", &format!("DROP DATABASE {}", database.name))
        .await;
    let (refused, error) = self::refused(&database, login(&database, "r1")).await;
    assert_eq!(refused, Refused::Other, "{error}");
    assert!(error.contains("does not exist"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules() {
    let database = Database::without_rules(Server::shared()).await;
    database.create("r1", &format!("PASSWORD '{}'", password("r1"))).await;
    let (refused, error) = refused(&database, login(&database, "r1")).await;
    assert_eq!(refused, Refused::Rule, "{error}");
    assert!(error.contains("no pg_hba.conf entry"), "{error}");
    database.rule("host {db} all 127.0.0.1/32 reject");
    let (refused, error) = self::refused(&database, login(&database, "r1")).await;
    assert_eq!(refused, Refused::Rule, "{error}");
    assert!(error.contains("rejects connection"), "{error}");
}

/// Logins over TLS by the only revision there is.
async fn over_tls(database: &Database, dir: Dir, certificates: bool) -> Result<String, (Refused, String)> {
    let credentials = match certificates {
        true => Credentials::certificates_in_dir(&dir),
        false => Credentials::in_dir(&dir),
    };
    let mode = SslMode::VerifyFull(anchors(&database.server.ca));
    let login = Login::new(database.config(), &credentials.unwrap(), mode).unwrap();
    match login.connect().await {
        Ok((client, _)) => {
            let row = client.query_one("SELECT session_user::text", &[]).await.unwrap();
            Ok(row.get(0))
        }
        refused => Err(only(refused)),
    }
}

async fn by_certificate(database: &Database, revision: &str, leaf: &Leaf) -> Result<String, (Refused, String)> {
    let mut files = certificate(revision, leaf);
    files.push((format!("{revision}.username"), database.role(revision)));
    over_tls(database, Dir::in_memory(primary(files)), true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates() {
    let database = Database::without_rules(Server::shared()).await;
    database.rule("hostssl {db} {db}_plain 127.0.0.1/32 scram-sha-256");
    database.rule("hostssl {db} {db}_both,{db}_both2 127.0.0.1/32 scram-sha-256 clientcert=verify-full");
    database.rule("hostssl {db} {db}_ca 127.0.0.1/32 scram-sha-256 clientcert=verify-ca");
    database.rule("hostssl {db} all 127.0.0.1/32 cert");
    let clients = &database.server.clients;
    let leaf = |revision: &str| clients.leaf(&database.role(revision));
    for revision in ["plain", "both", "both2", "ca"] {
        database
            .create(revision, &format!("PASSWORD '{}'", password(revision)))
            .await;
    }
    for revision in ["r1", "other", "nologin", "alien", "expired"] {
        database.create(revision, "").await;
    }
    database
        .sql("ALTER ROLE {db}_nologin NOLOGIN; ALTER ROLE {db}_r1 VALID UNTIL '2020-01-01'")
        .await;

    // VALID UNTIL is of passwords alone.
    assert_eq!(
        by_certificate(&database, "r1", &leaf("r1")).await,
        Ok(database.role("r1"))
    );
    let by = |revision: &'static str, leaf: Leaf| {
        let database = &database;
        async move { by_certificate(database, revision, &leaf).await.expect_err(revision) }
    };
    let (refused, error) = by("other", leaf("r1")).await;
    assert_eq!(refused, Refused::Credential, "{error}");
    let (refused, error) = by("missing", leaf("missing")).await;
    assert_eq!(refused, Refused::Credential, "{error}");
    let (refused, error) = by("nologin", leaf("nologin")).await;
    assert_eq!(refused, Refused::Credential, "{error}");
    assert!(error.contains("not permitted to log in"), "{error}");
    let (refused, error) = by("alien", Ca::new("another").leaf(&database.role("alien"))).await;
    assert_eq!(refused, Refused::Credential, "{error}");
    assert!(error.contains("UnknownCA"), "{error}");
    let (refused, error) = by("expired", clients.expired_leaf(&database.role("expired"))).await;
    assert_eq!(refused, Refused::Credential, "{error}");
    assert!(error.contains("CertificateExpired"), "{error}");

    // A password alone where a certificate is wanted, and the other way round.
    let only_password = |revision: &str| Dir::in_memory(primary(login(&database, revision)));
    let both = |revision: &str, name: &str| {
        let files = [login(&database, revision), certificate(revision, &leaf(name))].concat();
        Dir::in_memory(primary(files))
    };
    let (refused, error) = over_tls(&database, only_password("r1"), false).await.unwrap_err();
    assert_eq!(refused, Refused::Rule, "{error}");
    assert!(error.contains("valid client certificate"), "{error}");
    let (refused, error) = by("plain", leaf("plain")).await;
    assert_eq!(refused, Refused::Credential, "{error}");

    // Both together, of one revision.
    assert_eq!(
        over_tls(&database, both("both", "both"), false).await,
        Ok(database.role("both"))
    );
    let (refused, error) = over_tls(&database, both("both2", "both"), false).await.unwrap_err();
    assert_eq!(refused, Refused::Credential, "{error}");
    assert_eq!(
        over_tls(&database, both("ca", "both"), false).await,
        Ok(database.role("ca"))
    );
    assert_eq!(
        over_tls(&database, only_password("plain"), false).await,
        Ok(database.role("plain"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_of_tls_1_2_come_in_the_handshake() {
    let server: &'static Server = Box::leak(Box::new(Server::start(
        "ssl = on\nssl_max_protocol_version = 'TLSv1.2'",
    )));
    let database = Database::without_rules(server).await;
    database.rule("hostssl {db} all 127.0.0.1/32 cert");
    database.create("r1", "").await;
    let role = database.role("r1");
    assert_eq!(
        by_certificate(&database, "r1", &server.clients.leaf(&role)).await,
        Ok(role.clone())
    );
    for leaf in [Ca::new("another").leaf(&role), server.clients.expired_leaf(&role)] {
        let (refused, error) = by_certificate(&database, "r1", &leaf).await.unwrap_err();
        assert_eq!(refused, Refused::Credential, "{error}");
        // With a mode that verifies nothing it comes another way.
        let files = primary([certificate("r1", &leaf), vec![("r1.username".to_owned(), role.clone())]].concat());
        let credentials = Credentials::certificates_in_dir(&Dir::in_memory(files)).unwrap();
        let login = Login::new(database.config(), &credentials, SslMode::Require).unwrap();
        let (refused, error) = only(login.connect().await);
        assert_eq!(refused, Refused::Credential, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn channel_binding_that_cannot_be() {
    let database = Database::new().await;
    database.create("r1", &format!("PASSWORD '{}'", password("r1"))).await;
    let (_dir, credentials) = credentials(primary(login(&database, "r1")));
    let mut config = database.config();
    config.channel_binding(tokio_postgres::config::ChannelBinding::Require);
    let login = Login::new(config, &credentials, SslMode::Disable).unwrap();
    let (refused, error) = only(login.connect().await);
    assert_eq!(refused, Refused::Other, "{error}");
    assert!(error.contains("channel binding"), "{error}");
}
