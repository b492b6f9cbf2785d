//! PostgreSQL itself, started for the tests and ended with them.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::pki::{Ca, Leaf};

const MISSING: &str = "PostgreSQL 13 or newer is not installed: apt-get install -y postgresql";
/// What takes longer does not happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Does as it is told until its input ends, which it does with this process, however that ends. A signal to all of us is
/// none to it.
const KEEPER: &str = r#"
trap '' HUP INT TERM
start() { "$1/postgres" -D "$2/data" -k "$2" -p "$3" 2>>"$2/log" & server=$!; }
stop() { kill -INT "$server"; wait "$server"; }
start "$@"
while read -r what; do
  case $what in
    start) start "$@" ;;
    stop) stop ;;
  esac
done
stop
rm -rf "$2"
"#;

/// What the server says when it is there.
const READY: &str = "ready to accept connections";

/// Everything that the tests want of any server. Nothing has to survive.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
fsync = off
shared_buffers = 16MB
max_connections = 100
password_encryption = 'scram-sha-256'
log_connections = on
log_disconnections = on
log_line_prefix = '[%p] %u '
log_statement = 'none'
ssl_cert_file = 'server.crt'
ssl_key_file = 'server.key'
ssl_ca_file = 'clients.crt'
";

/// A server of its own folder and port.
pub(crate) struct Server {
    folder: PathBuf,
    pub(crate) port: u16,
    /// Whose certificate it shows.
    pub(crate) ca: Ca,
    /// Whose certificates it takes.
    pub(crate) clients: Ca,
    /// One change of its files at a time.
    changing: Mutex<()>,
    keeper: Option<(Child, ChildStdin)>,
}

impl Server {
    /// The one that tests share: with TLS, each test in a database of its own.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| Self::start("ssl = on"))
    }

    /// One without TLS.
    pub(crate) fn without_tls() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| Self::start("ssl = off"))
    }

    /// One for a test alone, with these settings.
    pub(crate) fn start(settings: &str) -> Self {
        let bin = bin();
        let user = unprivileged();
        let folder = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").unwrap().keep();
        let own = |path: &Path| {
            if let Some((_, uid, gid)) = user {
                chown(path, Some(uid), Some(gid)).unwrap();
            }
        };
        own(&folder);
        let command = |program: &Path| match user {
            None => Command::new(program),
            Some((_, uid, gid)) => {
                let mut command = Command::new("setpriv");
                let ids = [format!("--reuid={uid}"), format!("--regid={gid}")];
                command.args(ids).args(["--clear-groups", "--"]).arg(program);
                command
            }
        };
        let made = command(&bin.join("initdb"))
            .args([
                "--no-sync",
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "-D",
            ])
            .arg(folder.join("data"))
            .current_dir(&folder)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

        let (ca, clients) = (Ca::new("server ca"), Ca::new("client ca"));
        let mut server = Self {
            folder,
            port: 0,
            ca,
            clients,
            changing: Mutex::new(()),
            keeper: None,
        };
        let conf = fs::read_to_string(server.folder.join("data/postgresql.conf")).unwrap();
        server.write("postgresql.conf", &format!("{conf}{SETTINGS}{settings}\n"));
        server.write("pg_hba.conf", "local all postgres trust\n");
        server.show(&server.ca.leaf("localhost"));
        server.write("clients.crt", &server.clients.pem());
        for _ in 0..5 {
            server.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut keeper = command(Path::new("sh"))
                .args(["-c", KEEPER, "sh"])
                .args([&bin, &server.folder])
                .arg(server.port.to_string())
                .current_dir(&server.folder)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let input = keeper.stdin.take().unwrap();
            server.keeper = Some((keeper, input));
            let mut log = String::new();
            let started = eventually(|| {
                log = server.log();
                log.contains(READY) || log.contains("FATAL")
            });
            if started && !log.contains("FATAL") {
                return server;
            }
            assert!(log.contains("Address already in use"), "{log}");
            fs::remove_file(server.folder.join("log")).unwrap();
        }
        panic!("there is no free port");
    }

    /// Ends it, and with it every session.
    pub(crate) fn stop(&self) {
        self.tell("stop");
        let pid = self.folder.join("data/postmaster.pid");
        assert!(eventually(|| !pid.exists()), "{}", self.log());
    }

    /// Starts it where it was.
    pub(crate) fn start_again(&self) {
        let said = || self.log().matches(READY).count();
        let before = said();
        self.tell("start");
        assert!(eventually(|| said() > before), "{}", self.log());
    }

    fn tell(&self, what: &str) {
        let (_, input) = self.keeper.as_ref().unwrap();
        let mut input = input;
        input.write_all(format!("{what}\n").as_bytes()).unwrap();
    }

    /// All that the server has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Lines of the log with this in them, once there are as many as expected; all later ones count too.
    pub(crate) fn lines(&self, with: &str) -> Vec<String> {
        let log = self.log();
        log.lines()
            .filter(|line| line.contains(with))
            .map(str::to_owned)
            .collect()
    }

    /// The folder of its Unix socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.folder
    }

    /// Shows this certificate from the next reload on.
    pub(crate) fn show(&self, leaf: &Leaf) {
        self.write("server.crt", &leaf.crt);
        self.write("server.key", &leaf.key);
    }

    /// Takes clients of these CAs from the next reload on.
    pub(crate) fn take_clients_of(&self, pem: &str) {
        self.write("clients.crt", pem);
    }

    /// Adds lines to `pg_hba.conf`, and has them read.
    pub(crate) fn rules(&self, lines: &str) {
        let changing = self.changing.lock();
        let path = self.folder.join("data/pg_hba.conf");
        let before = fs::read_to_string(path).unwrap();
        self.write("pg_hba.conf", &format!("{before}{lines}\n"));
        drop(changing);
        self.reload();
    }

    /// Has the server read its files, and waits until it has.
    pub(crate) fn reload(&self) {
        let _changing = self.changing.lock();
        let said = || self.log().matches("received SIGHUP").count();
        let before = said();
        let pid = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap();
        assert!(Command::new("kill").args(["-HUP", pid]).status().unwrap().success());
        // It accepts no connection between saying so and doing so.
        assert!(eventually(|| said() > before), "{}", self.log());
    }

    /// Runs SQL as the superuser; the rows of the last query, as text.
    pub(crate) async fn sql(&self, database: &str, sql: &str) -> Vec<Vec<String>> {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(&self.folder)
            .port(self.port)
            .user("postgres")
            .dbname(database);
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        let answers = client.simple_query(sql).await;
        let answers = answers.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let rows = answers.iter().filter_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|column| row.get(column).unwrap_or_default().to_owned())
                    .collect(),
            ),
            _ => None,
        });
        rows.collect()
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.folder.join("data").join(name);
        let mut file = fs::File::create(&path).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
        file.write_all(content.as_bytes()).unwrap();
        if let Some((_, uid, gid)) = unprivileged() {
            chown(&path, Some(uid), Some(gid)).unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((mut keeper, input)) = self.keeper.take() {
            drop(input);
            let _ = keeper.wait();
        }
    }
}

/// A database of a test, and names that no other test has.
pub(crate) struct Database {
    pub(crate) server: &'static Server,
    pub(crate) name: String,
}

impl Database {
    /// One on the shared server, where logins need SCRAM.
    pub(crate) async fn new() -> Self {
        let database = Self::without_rules(Server::shared()).await;
        database.rule("host {db} all 127.0.0.1/32 scram-sha-256");
        database
    }

    /// One into which nobody is let yet.
    pub(crate) async fn without_rules(server: &'static Server) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("t{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        server.sql("postgres", &format!("CREATE DATABASE {name}")).await;
        Self { server, name }
    }

    /// In place of `{db}` stands the name of the database.
    pub(crate) fn rule(&self, rule: &str) {
        self.server.rules(&rule.replace("{db}", &self.name));
    }

    /// Runs SQL in it as the superuser, with `{db}` likewise.
    pub(crate) async fn sql(&self, sql: &str) -> Vec<Vec<String>> {
        self.server.sql(&self.name, &sql.replace("{db}", &self.name)).await
    }

    /// The role of a revision.
    pub(crate) fn role(&self, revision: &str) -> String {
        format!("{}_{revision}", self.name)
    }

    /// Makes the role of a revision, which may log in.
    pub(crate) async fn create(&self, revision: &str, options: &str) {
        let role = self.role(revision);
        self.sql(&format!("CREATE ROLE {role} LOGIN {options}")).await;
    }

    /// How often the server has refused the password of a revision's role.
    pub(crate) fn refused(&self, revision: &str) -> usize {
        let said = format!("password authentication failed for user \"{}\"", self.role(revision));
        self.server.lines(&said).len()
    }

    /// How often somebody has come so far as to say who he is.
    pub(crate) fn asked(&self, revision: &str) -> usize {
        let begins = format!(" {} ", self.role(revision));
        let log = self.server.log();
        let of_session = log.lines().filter(|line| line.contains(&begins));
        let pids = of_session.filter_map(|line| line.split_once(']'));
        pids.map(|(pid, _)| pid)
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    }

    /// Where it is, without TLS of its own.
    pub(crate) fn config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host("localhost")
            .hostaddr([127, 0, 0, 1].into())
            .port(self.server.port)
            .dbname(&self.name);
        config
    }
}

/// Waits until this holds; says whether it came to that.
pub(crate) fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Where the programs are: on the path, or where Debian has them, the newest version first.
fn bin() -> PathBuf {
    let on_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut debian: Vec<PathBuf> = debian.map(|entry| entry.unwrap().path().join("bin")).collect();
    debian.sort_by_key(|bin| std::cmp::Reverse(version(bin)));
    let mut all = on_path.chain(debian);
    all.find(|bin| version(bin) >= Some(13)).expect(MISSING)
}

fn version(bin: &Path) -> Option<u32> {
    if !bin.join("initdb").exists() {
        return None;
    }
    let printed = Command::new(bin.join("postgres")).arg("--version").output().ok()?;
    let printed = String::from_utf8(printed.stdout).ok()?;
    let number = printed
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Who runs the server where we are root, which it would refuse: name, user, group.
fn unprivileged() -> Option<(&'static str, u32, u32)> {
    static USER: OnceLock<Option<(&str, u32, u32)>> = OnceLock::new();
    *USER.get_or_init(|| {
        let id = |arguments: &[&str]| {
            let printed = Command::new("id").args(arguments).output().unwrap();
            String::from_utf8(printed.stdout).unwrap().trim().parse::<u32>().ok()
        };
        if id(&["-u"]) != Some(0) {
            return None;
        }
        let user = ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| Some((name, id(&["-u", name])?, id(&["-g", name])?)));
        Some(user.expect("there is no user to run the server as"))
    })
}
