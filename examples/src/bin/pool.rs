//! A client of PostgreSQL under load whose login rotates while it runs: in a pool, or in sessions of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use keydir::RevisionId;
use keydir_examples::pool::{Kept, Kind, Ledger, Sessions, census};
use keydir_examples::{Failure, Log, asked_to_end, causes, print_line, run};
#[cfg(feature = "sqlx")]
use keydir_postgres::SqlxLogin;
use keydir_postgres::{Credentials, Login, SslMode};
use keydir_rustls::TrustAnchors;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, sleep, sleep_until, timeout};
use tokio_postgres::Config;

/// A transaction takes no longer than this, and at the end nobody waits longer for the answer to one.
const PATIENCE: Duration = Duration::from_secs(30);
/// After a failure.
const PAUSE: Duration = Duration::from_millis(10);
/// Sessions have so long to say good-bye.
const FAREWELL: Duration = Duration::from_secs(5);
/// So many failures are told; the others only count.
const TOLD: u64 = 10;

/// Commits rows of the table `keydir_ledger`, one a transaction, and prints what came of it as a line of JSON each second
/// and at the end. Exit code 1 if a transaction failed.
#[derive(Debug, Parser)]
#[command(name = "pool")]
struct Args {
    /// The key directory of the logins, such as r1.username and r1.password.
    #[arg(long, value_name = "DIR")]
    credentials: PathBuf,
    /// The key directory of the CAs that the server's certificate must be of (sslmode verify-full); without it, prefer.
    #[arg(long, value_name = "DIR")]
    ca: Option<PathBuf>,
    /// Where the server is, such as localhost:5432; in place of the host, the folder of a Unix socket.
    #[arg(long, value_name = "HOST:PORT")]
    server: Place,
    #[arg(long, value_name = "NAME")]
    database: String,
    /// The role as which all logins act. It owns the table.
    #[arg(long, value_name = "OWNER")]
    role: Option<String>,
    /// Where sessions come from.
    #[arg(long)]
    kind: Kind,
    /// How many work at a time, and how many sessions there may be.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    workers: u16,
    /// For how long, unless it is asked to end before.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seconds: u64,
    /// Sessions of a pool move to a new login within this time.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(..=86_400))]
    renew: u64,
}

#[derive(Clone, Debug)]
struct Place {
    host: String,
    port: u16,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(place: &str) -> Result<Self, String> {
        let parts = place.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        let (host, port) = parts.ok_or("that is no HOST:PORT")?;
        // An IPv6 address.
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        Ok(Self {
            host: bare.unwrap_or(host).to_owned(),
            port: port.parse().map_err(|_| format!("{port:?} is no port"))?,
        })
    }
}

#[derive(Default)]
struct Counts {
    committed: AtomicU64,
    failed: AtomicU64,
}

/// One line.
#[derive(Debug, Serialize)]
struct Line {
    committed: u64,
    failed: u64,
    primary: Option<RevisionId>,
    /// Sessions that are there, or being made, by revision.
    connections: BTreeMap<RevisionId, usize>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(Log::Warn, pool(args))
}

async fn pool(args: Args) -> Result<ExitCode, Failure> {
    // Of keydir: what to log in with, and whom to trust. A pool of sessions is two lines more.
    let credentials = Credentials::open(&args.credentials)?;
    let mode = match &args.ca {
        Some(ca) => SslMode::VerifyFull(TrustAnchors::open(ca)?),
        None => SslMode::Prefer,
    };
    let window = Duration::from_secs(args.renew);
    let sessions = match args.kind {
        #[cfg(feature = "sqlx")]
        Kind::Sqlx => {
            let mut login = SqlxLogin::new(options(&args), &credentials, mode)?.tag_application_name();
            if let Some(role) = &args.role {
                login = login.role(role);
            }
            Sessions::of_sqlx(login, args.workers, window).await?
        }
        Kind::Plain => Sessions::plain(login(&args, &credentials, mode)?),
        Kind::Deadpool => Sessions::of_deadpool(&login(&args, &credentials, mode)?, args.workers, window)?,
        Kind::Bb8 => Sessions::of_bb8(&login(&args, &credentials, mode)?, args.workers, window),
    };

    let (counts, over) = (Arc::<Counts>::default(), Arc::<AtomicBool>::default());
    let mut asked = Box::pin(asked_to_end()?);
    let mut workers = JoinSet::new();
    for _ in 0..args.workers {
        workers.spawn(work(sessions.clone(), Arc::clone(&counts), Arc::clone(&over)));
    }
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let mut seconds = interval_at(Instant::now() + Duration::from_secs(1), Duration::from_secs(1));
    let mut kept = Vec::new();
    loop {
        tokio::select! {
            _ = seconds.tick() => print(&counts, &credentials, &sessions).await?,
            () = sleep_until(end), if !over.load(Ordering::Relaxed) => over.store(true, Ordering::Relaxed),
            () = &mut asked, if !over.load(Ordering::Relaxed) => over.store(true, Ordering::Relaxed),
            ended = workers.join_next() => match ended {
                Some(session) => kept.push(session),
                None => break,
            },
        }
    }
    print(&counts, &credentials, &sessions).await?;
    drop((kept, sessions));
    let _ = timeout(FAREWELL, no_sessions(&credentials)).await;
    let all_fine = counts.failed.load(Ordering::Relaxed) == 0;
    Ok(if all_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn login(args: &Args, credentials: &Credentials, mode: SslMode) -> Result<Login, Failure> {
    let login = Login::new(config(args), credentials, mode)?.tag_application_name();
    Ok(match &args.role {
        Some(role) => login.role(role),
        None => login,
    })
}

fn config(args: &Args) -> Config {
    let mut config = Config::new();
    config
        .host(&args.server.host)
        .port(args.server.port)
        .dbname(&args.database);
    config.application_name("keydir-pool").connect_timeout(PATIENCE);
    config
}

#[cfg(feature = "sqlx")]
fn options(args: &Args) -> sqlx::postgres::PgConnectOptions {
    let options = sqlx::postgres::PgConnectOptions::new_without_pgpass().port(args.server.port);
    let options = options.database(&args.database).application_name("keydir-pool");
    match args.server.host.starts_with('/') {
        true => options.socket(&args.server.host),
        false => options.host(&args.server.host),
    }
}

/// Until it is over, and it is certain what was committed. What the worker has kept.
async fn work(sessions: Sessions, counts: Arc<Counts>, over: Arc<AtomicBool>) -> Option<Kept> {
    let (mut kept, mut ledger, mut end) = (None, Ledger::default(), None);
    loop {
        if over.load(Ordering::Relaxed) {
            let end = *end.get_or_insert_with(|| Instant::now() + PATIENCE);
            if !ledger.is_in_doubt() || Instant::now() > end {
                return kept;
            }
        }
        let committed = timeout(PATIENCE, sessions.commit(&mut kept, &mut ledger)).await;
        let committed =
            committed.unwrap_or_else(|_| Err(format!("not committed within {} s", PATIENCE.as_secs()).into()));
        match committed {
            Ok(()) => {
                counts.committed.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                if counts.failed.fetch_add(1, Ordering::Relaxed) < TOLD {
                    tracing::warn!(error = causes(&*error), "a transaction failed");
                }
                kept = None;
                sleep(PAUSE).await;
            }
        }
    }
}

async fn print(counts: &Counts, credentials: &Credentials, sessions: &Sessions) -> Result<(), Failure> {
    let line = Line {
        committed: counts.committed.load(Ordering::Relaxed),
        failed: counts.failed.load(Ordering::Relaxed),
        primary: credentials.primary().ok().map(|key| key.id().clone()),
        connections: sessions.count(credentials).await,
    };
    let json = serde_json::to_string(&line).map_err(|error| Failure::Output(error.into()))?;
    print_line(&json)
}

async fn no_sessions(credentials: &Credentials) {
    while !census(credentials).is_empty() {
        sleep(PAUSE).await;
    }
}
