//! A database on the bench's own server, and the key directory of its logins.

use std::sync::Arc;

use keydir::Dir;
use keydir_postgres::{Credentials, Login, SslMode};
use keydir_rustls::{TrustAnchors, crypto_provider};
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::{Client, Config, NoTls, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::server::{Database, Server};
use crate::pki::DOMAIN;

#[derive(Clone, Copy, Debug)]
pub(super) enum Mode {
    Plain,
    Tls,
}

pub(super) const MODES: [Mode; 2] = [Mode::Plain, Mode::Tls];

impl Mode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "without TLS",
            Self::Tls => "verify-full",
        }
    }

    pub(super) fn named(name: &str) -> Self {
        MODES.into_iter().find(|mode| mode.name() == name).unwrap()
    }
}

pub(super) struct Place {
    pub(super) database: Database,
    pub(super) dir: Dir,
    pub(super) login: Login,
    mode: Mode,
}

impl Place {
    /// With the role and the login of `r1`.
    pub(super) async fn new(mode: Mode) -> Self {
        let database = Database::new().await;
        create(&database, "r1").await;
        let dir = Dir::in_memory(files(&database, &["r1"]));
        Self {
            login: login(&database, &dir, mode),
            database,
            dir,
            mode,
        }
    }

    /// Makes the role of another revision.
    pub(super) async fn create(&self, revision: &str) {
        create(&self.database, revision).await;
    }

    /// The logins of these, of which the last is the primary.
    pub(super) fn publish(&self, revisions: &[&str]) {
        self.dir.publish(files(&self.database, revisions)).unwrap();
    }

    /// Another directory with these, and what has been heard of its logins is its own.
    pub(super) fn apart(&self, revisions: &[&str]) -> (Dir, Login) {
        let dir = Dir::in_memory(files(&self.database, revisions));
        let login = login(&self.database, &dir, self.mode);
        (dir, login)
    }

    /// What plain tokio-postgres connects as `r1` with.
    pub(super) fn config(&self) -> Config {
        let mut config = config(&self.database);
        config.user(self.database.role("r1")).password(password("r1"));
        config.ssl_mode(match self.mode {
            Mode::Plain => tokio_postgres::config::SslMode::Disable,
            Mode::Tls => tokio_postgres::config::SslMode::Require,
        });
        config
    }

    /// Its TLS, with the same session settings as ours.
    pub(super) fn tls(&self) -> MakeRustlsConnect {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.database.server.ca.pem().as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let config = ClientConfig::builder_with_provider(crypto_provider().unwrap());
        let config = config.with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(Arc::new(roots)).with_no_client_auth();
        config.resumption = Resumption::disabled();
        MakeRustlsConnect::new(config)
    }

    pub(super) async fn watch(&self) -> Watch {
        Watch::new(self.database.server).await
    }
}

async fn create(database: &Database, revision: &str) {
    database
        .create(revision, &format!("PASSWORD '{}'", password(revision)))
        .await;
}

fn login(database: &Database, dir: &Dir, mode: Mode) -> Login {
    let mode = match mode {
        Mode::Plain => SslMode::Disable,
        Mode::Tls => {
            let anchors = Dir::in_memory([("c1.crt", database.server.ca.pem())]);
            SslMode::VerifyFull(TrustAnchors::in_dir(&anchors).unwrap())
        }
    };
    Login::new(config(database), &Credentials::in_dir(dir).unwrap(), mode).unwrap()
}

fn config(database: &Database) -> Config {
    let mut config = Config::new();
    config
        .host(DOMAIN)
        .hostaddr([127, 0, 0, 1].into())
        .port(database.server.port)
        .dbname(&database.name);
    config
}

fn password(revision: &str) -> String {
    format!("of-{revision}-0123456789abcdef")
}

fn files(database: &Database, revisions: &[&str]) -> Vec<(String, String)> {
    let (last, _) = revisions.split_last().unwrap();
    let of_revision = |revision: &&str| {
        let mark = if revision == last { ".primary" } else { "" };
        [
            (format!("{revision}.username{mark}"), database.role(revision)),
            (format!("{revision}.password"), password(revision)),
        ]
    };
    revisions.iter().flat_map(of_revision).collect()
}

/// Looks at sessions, over one of its own.
pub(super) struct Watch {
    client: Client,
    count: Statement,
}

impl Watch {
    async fn new(server: &Server) -> Self {
        let mut config = Config::new();
        config.host_path(server.socket()).port(server.port);
        let (client, connection) = config.user("postgres").dbname("postgres").connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1";
        let count = client.prepare(sql).await.unwrap();
        Self { client, count }
    }

    pub(super) async fn sessions(&self, role: &str) -> i64 {
        self.client.query_one(&self.count, &[&role]).await.unwrap().get(0)
    }
}
