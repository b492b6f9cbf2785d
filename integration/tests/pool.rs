//! `pool` against a real PostgreSQL: roles are made, promoted and dropped under load, and nothing fails, nothing is lost.
//!
//! The full counts are for `cargo xtask prove logins`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

#[path = "../../crates/keydir-postgres/tests/postgres/server.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod server;

/// What the server needs.
mod pki {
    pub(crate) use keydir_integration::{Ca, Leaf};
}

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keydir_integration::{End, KeyDir, Program, example, loaded, never_to_be_printed};
use rustix::process::Signal;
use serde_json::{Value, json};
use server::{Database, PATIENCE, Server};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const WORKERS: usize = 8;
/// Looks at the server follow each other after this.
const PAUSE: Duration = Duration::from_millis(5);
/// Half of the 100 ms around a swap, in microseconds, and what shall be committed in them.
const HALF: i64 = 50_000;
const GOAL: usize = 50;

fn proving() -> bool {
    std::env::var("KEYDIR_PROVE").is_ok()
}

/// How often logins rotate, and how many transactions are committed after each time at least.
fn counts() -> (usize, u64) {
    if proving() { (50, 2_000) } else { (3, 100) }
}

/// It knows when each transaction was committed.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start("ssl = on\ntrack_commit_timestamp = on"))
}

fn password(revision: &str) -> String {
    let password = format!("password-of-{revision}-2c7e91d0ab4f");
    never_to_be_printed(&password);
    password
}

/// Who publishes.
enum Writer {
    Library(KeyDir),
    /// `keydir publish`.
    Program(tempfile::TempDir),
}

impl Writer {
    fn path(&self) -> PathBuf {
        match self {
            Self::Library(dir) => dir.path().to_owned(),
            Self::Program(folder) => folder.path().join("keys"),
        }
    }

    /// Adds a revision: the name of its role, and its password.
    fn stage(&mut self, revision: &str, role: &str) {
        let parts = [("username", role.to_owned()), ("password", password(revision))];
        let files = parts.map(|(part, content)| (format!("{revision}.{part}"), content));
        match self {
            Self::Library(dir) => dir.add(files),
            Self::Program(folder) => {
                let arguments = files.map(|(name, content)| {
                    let file = folder.path().join(&name);
                    fs::write(&file, content).unwrap();
                    format!("{name}={}", file.display())
                });
                self.publish(&arguments.each_ref().map(String::as_str));
            }
        }
    }

    fn promote(&mut self, revision: &str) {
        match self {
            Self::Library(dir) => dir.promote(revision),
            Self::Program(_) => self.publish(&["--promote", revision]),
        }
    }

    fn retire(&mut self, revision: &str) {
        match self {
            Self::Library(dir) => dir.remove(revision),
            Self::Program(_) => self.publish(&["--remove", revision]),
        }
    }

    fn publish(&self, arguments: &[&str]) {
        let mut publish = keydir_integration::keydir();
        let end = Program::run(publish.arg("publish").arg(self.path()).args(arguments));
        assert_eq!(end.code, Some(0), "{}", end.stderr);
    }
}

/// A database, a key directory, and a `pool` at work.
struct Scene {
    database: Database,
    writer: Writer,
    publications: u64,
    pool: Program,
    /// When something was published, in microseconds since 1970.
    swaps: Vec<i64>,
    /// The most sessions that were seen at a time.
    most: Arc<AtomicUsize>,
    counting: JoinHandle<()>,
}

/// What came of it.
struct Outcome {
    /// The last line of `pool`.
    last: Value,
    end: End,
    most: usize,
    /// How many transactions were committed in the 100 ms around each publication, in rising order.
    around: Vec<usize>,
}

impl Scene {
    /// Logged in with `r0`.
    async fn new(kind: &str, mut writer: Writer) -> Self {
        let database = Database::without_rules(server()).await;
        database.rule("host {db} all 127.0.0.1/32 scram-sha-256");
        database
            .sql("CREATE ROLE {db}_owner; ALTER DATABASE {db} OWNER TO {db}_owner")
            .await;
        create(&database, "r0").await;
        writer.stage("r0", &database.role("r0"));
        writer.promote("r0");
        let mut pool = example("pool");
        pool.arg("--credentials").arg(writer.path());
        pool.args(["--server", &format!("127.0.0.1:{}", database.server.port)]);
        pool.args([
            "--database",
            &database.name,
            "--role",
            &format!("{}_owner", database.name),
        ]);
        pool.args(["--kind", kind, "--workers", &WORKERS.to_string()]);
        // Until it is asked to end.
        pool.args(["--seconds", "100000", "--renew", "1"]);
        // So that a test can wait until this process, too, has loaded what was published.
        pool.env("RUST_LOG", "info");
        let most = Arc::<AtomicUsize>::default();
        let scene = Self {
            counting: tokio::spawn(count(&database, Arc::clone(&most))),
            pool: Program::start(&mut pool),
            publications: 1,
            swaps: Vec::new(),
            database,
            writer,
            most,
        };
        scene.until_sessions(&[("r0", WORKERS)]).await;
        scene
    }

    /// Makes a publication, and waits until `pool` has it.
    fn publish(&mut self, publish: impl FnOnce(&mut Writer)) {
        publish(&mut self.writer);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        self.swaps.push(now.as_micros().try_into().unwrap());
        self.publications += 1;
        loaded(&self.pool, &self.writer.path(), self.publications);
    }

    async fn sessions(&self, revision: &str) -> usize {
        let role = self.database.role(revision);
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'");
        self.database.sql(&sql).await[0][0].parse().unwrap()
    }

    async fn until_sessions(&self, expected: &[(&str, usize)]) {
        for (revision, expected) in expected {
            let all = async {
                while self.sessions(revision).await != *expected {
                    sleep(PAUSE).await;
                }
            };
            let came = timeout(PATIENCE, all).await;
            assert!(came.is_ok(), "{revision}: {} sessions", self.sessions(revision).await);
        }
    }

    /// Stage, promote; when nobody is logged in with the old role any more, it is locked, dropped, and its files removed.
    async fn rotate(&mut self, old: &str, new: &str) {
        create(&self.database, new).await;
        let role = self.database.role(new);
        self.publish(|writer| writer.stage(new, &role));
        self.publish(|writer| writer.promote(new));
        self.until_sessions(&[(new, WORKERS), (old, 0)]).await;
        let role = self.database.role(old);
        self.database.sql(&format!("ALTER ROLE {role} NOLOGIN")).await;
        assert_eq!(self.terminate(old).await, 0);
        self.database.sql(&format!("DROP ROLE {role}")).await;
        self.publish(|writer| writer.retire(old));
        assert_eq!(self.sessions(old).await, 0);
        let nameless = "SELECT count(*) FROM pg_stat_activity \
                        WHERE datname = '{db}' AND usesysid NOT IN (SELECT oid FROM pg_roles)";
        assert_eq!(self.database.sql(nameless).await, [["0"]]);
    }

    /// How many sessions there were to be ended.
    async fn terminate(&self, revision: &str) -> usize {
        let role = self.database.role(revision);
        let sql = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{role}'");
        self.database.sql(&sql).await[0][0].parse().unwrap()
    }

    /// So many more transactions are committed.
    async fn until_more(&self, more: u64) {
        let rows = async || -> u64 {
            let rows = self.database.sql("SELECT count(*) FROM keydir_ledger").await;
            rows[0][0].parse().unwrap()
        };
        let goal = rows().await + more;
        let come = async {
            while rows().await < goal {
                sleep(PAUSE).await;
            }
        };
        assert!(timeout(PATIENCE, come).await.is_ok(), "{}", self.pool.errors());
    }

    /// Ends `pool`. The table holds what it says, once.
    async fn finish(self) -> Outcome {
        self.pool.signal(Signal::TERM);
        let mut last = Value::Null;
        while let Some(line) = self.pool.line() {
            last = serde_json::from_str(&line).unwrap();
        }
        let end = self.pool.end();
        self.counting.abort();
        let rows = "SELECT count(*), count(DISTINCT (worker, seq)), \
                    (SELECT sum(last) FROM (SELECT max(seq) AS last FROM keydir_ledger GROUP BY worker) AS workers) \
                    FROM keydir_ledger";
        let rows = self.database.sql(rows).await;
        assert_eq!(rows, [[(); 3].map(|()| last["committed"].to_string())], "{last}");

        let moments = "SELECT (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint \
                       FROM keydir_ledger ORDER BY 1";
        let moments: Vec<i64> = self
            .database
            .sql(moments)
            .await
            .concat()
            .iter()
            .map(|moment| moment.parse().unwrap())
            .collect();
        let before = |moment: i64| moments.partition_point(|committed| *committed < moment);
        let around = self.swaps.iter().map(|swap| before(swap + HALF) - before(swap - HALF));
        let mut around: Vec<usize> = around.collect();
        around.sort_unstable();
        Outcome {
            last,
            end,
            most: self.most.load(Ordering::Relaxed),
            around,
        }
    }
}

/// Makes a role that may act as the owner of all.
async fn create(database: &Database, revision: &str) {
    let owner = format!("{}_owner", database.name);
    database
        .create(revision, &format!("PASSWORD '{}' IN ROLE {owner}", password(revision)))
        .await;
}

/// Counts the sessions in a database all the time.
fn count(database: &Database, most: Arc<AtomicUsize>) -> impl Future<Output = ()> + Send + 'static {
    let mut config = tokio_postgres::Config::new();
    config.host_path(database.server.socket()).port(database.server.port);
    config.user("postgres").dbname("postgres");
    let name = &database.name;
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND usename <> 'postgres'");
    async move {
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        loop {
            let row = client.query_one(&sql, &[]).await.unwrap();
            let sessions = usize::try_from(row.get::<_, i64>(0)).unwrap();
            most.fetch_max(sessions, Ordering::Relaxed);
            sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Nothing fails. There are never more sessions than are allowed.
async fn logins_rotate(kind: &str, writer: Writer, rotations: usize, allowed: usize) {
    let mut scene = Scene::new(kind, writer).await;
    for rotation in 1..=rotations {
        let (old, new) = (format!("r{}", rotation - 1), format!("r{rotation}"));
        scene.rotate(&old, &new).await;
        scene.until_more(counts().1).await;
    }
    let Outcome {
        last,
        end,
        most,
        around,
    } = scene.finish().await;
    let (least, first, median) = (around[0], around[around.len() / 100], around[around.len() / 2]);
    println!("{kind}: {rotations} rotations, {last}, at most {most} sessions");
    println!(
        "{kind}: committed in 100 ms around a publication: {least} at least, first percentile {first}, median {median}"
    );
    assert_eq!((&last["failed"], end.code), (&json!(0), Some(0)), "{}", end.stderr);
    let primary = format!("r{rotations}");
    assert_eq!(last["connections"], json!({ &primary: WORKERS }));
    assert_eq!(last["primary"], primary);
    assert!(most <= allowed, "{most} sessions at once");
    assert!(!proving() || first >= GOAL, "{around:?}");
}

fn library() -> Writer {
    Writer::Library(KeyDir::with::<String, String>([]))
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_rotate_in_deadpool() {
    logins_rotate("deadpool", library(), counts().0, WORKERS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_rotate_in_bb8() {
    logins_rotate("bb8", library(), counts().0, WORKERS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_rotate_in_sqlx() {
    logins_rotate("sqlx", library(), counts().0, WORKERS).await;
}

/// Nobody makes room for the trial of a new login.
#[tokio::test(flavor = "multi_thread")]
async fn logins_rotate_without_a_pool() {
    logins_rotate("plain", library(), counts().0, WORKERS + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_rotate_by_the_program() {
    let writer = Writer::Program(tempfile::tempdir().unwrap());
    logins_rotate("deadpool", writer, 1, WORKERS).await;
}

/// The way without a second login must fail: one role, whose password changes before the files do, by a second.
#[tokio::test(flavor = "multi_thread")]
async fn one_login_that_changes_fails() {
    let mut scene = Scene::new("deadpool", library()).await;
    let role = scene.database.role("r0");
    for rotation in 1..=3 {
        let (old, new) = (format!("r{}", rotation - 1), format!("r{rotation}"));
        let sql = format!("ALTER ROLE {role} PASSWORD '{}'", password(&new));
        scene.database.sql(&sql).await;
        scene.terminate("r0").await;
        sleep(Duration::from_secs(1)).await;
        scene.publish(|writer| writer.stage(&new, &role));
        scene.publish(|writer| writer.promote(&new));
        scene.publish(|writer| writer.retire(&old));
        scene.until_sessions(&[("r0", WORKERS)]).await;
        scene.until_more(100).await;
    }
    let Outcome { last, end, .. } = scene.finish().await;
    let (committed, failed) = (last["committed"].as_u64().unwrap(), last["failed"].as_u64().unwrap());
    println!("one login: {failed} of {} failed", committed + failed);
    assert_eq!(end.code, Some(1));
    assert!(failed * 100 >= committed + failed, "{last}");
}
