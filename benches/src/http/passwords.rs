//! What the check of passwords does in a second, and what others on the same runtime see of it: over TCP, beside bare
//! argon2 in threads, and beside a handler that verifies where it runs.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, available_parallelism};
use std::time::{Duration, Instant};

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use keydir::Dir;
use keydir_hyper::{AuthenticateLayer, Passwords};
use rustix::time::ClockId;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tower_layer::Layer;
use tower_service::Service;

use crate::Work;
use crate::stats::{computed, median, quantile};
use crate::table::{Table, number, time};

/// Connections on which wrong logins come without a pause.
const FLOOD: usize = 16;
/// By turns, since the machine is not the same all the time.
const ROUNDS: usize = 20;
/// In each, verdicts are counted for so long.
const COUNTING: Duration = Duration::from_secs(1);
/// And requests are due, so far apart; those that were not sent by the end have waited until then.
const REQUESTS: u32 = 500;
const APART: Duration = Duration::from_millis(2);
const SENDING: Duration = Duration::from_secs(2);

/// `ali` and `open sesame`, and a wrong one.
const RIGHT: &str = "Basic YWxpOm9wZW4gc2VzYW1l";
const WRONG: &str = "Basic YWxpOm9wZW4gYmFybGV5";

/// A handler that asks for nothing, the layer in front of one, and one that verifies where it runs.
const OPEN: &str = "/";
const LOGIN: &str = "/login";
const NAIVE: &str = "/naive";

type Body = Empty<Bytes>;

#[derive(Default)]
struct Measured {
    /// Of argon2 in one thread, and of the layer.
    rates: [Vec<Rate>; 2],
    /// Of the open handler: with nothing beside it, beside argon2 in threads, in a flood of logins, in a flood of those
    /// that are verified in the handler; and of a login that was right before, in the flood.
    latencies: [Vec<Latency>; 5],
}

/// Of one round: the median, and what 1 % is above.
#[derive(Clone, Copy)]
struct Latency([Duration; 2]);

pub(super) fn bench(work: Work, table: &mut Table) {
    let hash = Argon2::default().hash_password_with_salt(b"open sesame", b"16 bytes of salt");
    let hash = hash.unwrap().to_string();
    let cores = available_parallelism().unwrap().get();
    let server = serve(&hash);
    let mut measured = Measured::default();
    for _ in 0..work.of(ROUNDS) {
        let argon2 = |stop: &Arc<AtomicBool>| computing(&hash, stop);
        let logins = |stop: &Arc<AtomicBool>| flood(server, LOGIN, stop);
        let naive = |stop: &Arc<AtomicBool>| flood(server, NAIVE, stop);
        let rates = [beside(1, argon2, rate), beside(1, logins, rate)];
        measured
            .rates
            .iter_mut()
            .zip(rates)
            .for_each(|(all, rate)| all.push(rate));
        let open = || latency(server, OPEN);
        let (flooded, remembered) = beside(1, logins, || (open(), latency(server, LOGIN)));
        let latencies = [
            open(),
            beside(cores, argon2, open),
            flooded,
            beside(1, naive, open),
            remembered,
        ];
        measured
            .latencies
            .iter_mut()
            .zip(latencies)
            .for_each(|(all, latency)| all.push(latency));
    }
    measured.tell(table);
}

impl Measured {
    fn tell(&self, table: &mut Table) {
        let mut against = |measure: &str, of: fn(&Rate) -> f64| {
            let [bare, ours] = self
                .rates
                .each_ref()
                .map(|rates| rates.iter().map(of).collect::<Vec<_>>());
            let mut ratios: Vec<f64> = bare.iter().zip(&ours).map(|(bare, ours)| bare / ours).collect();
            let [ours, bare] = [ours, bare].map(|mut rates| number((median(&mut rates) * 10.0).round() / 10.0));
            table.ratio(measure, ours, bare, median(&mut ratios), None);
        };
        against("wrong logins judged in a second of a core, argon2 to ours", |rate| {
            rate.verdicts / rate.computed.as_secs_f64()
        });
        against("wrong logins judged a second, argon2 in one thread to ours", |rate| {
            rate.verdicts / rate.elapsed.as_secs_f64()
        });
        for (which, name) in ["p50", "p99"].into_iter().enumerate() {
            let [quiet, threads, flooded, naive, remembered] = self.latencies.each_ref().map(|rounds| {
                let rounds = rounds.iter().map(|Latency(latency)| latency[which].as_secs_f64());
                rounds.collect::<Vec<_>>()
            });
            let mut row = |measure: &str, ours: &[f64], theirs: &[f64]| {
                let mut ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
                let [ours, theirs] = [ours, theirs].map(|all| time(Duration::from_secs_f64(median(&mut all.to_vec()))));
                table.ratio(&format!("{name}: {measure}"), ours, theirs, median(&mut ratios), None);
            };
            row(
                "another request, in a flood of wrong logins, beside without",
                &flooded,
                &quiet,
            );
            row(
                "another request, in a flood of wrong logins, beside argon2 in threads",
                &flooded,
                &threads,
            );
            row(
                "a login that was right before, in the flood, beside another request",
                &remembered,
                &flooded,
            );
            row(
                "another request, logins verified in their handler, beside without",
                &naive,
                &quiet,
            );
        }
    }
}

struct Rate {
    verdicts: f64,
    elapsed: Duration,
    /// By this process: what others take from the machine meanwhile is not in it.
    computed: Duration,
}

/// While something runs beside it.
fn rate() -> Rate {
    let now = || (VERDICTS.load(SeqCst), computed(ClockId::ProcessCPUTime));
    let begun = Instant::now();
    let (verdicts, before) = now();
    thread::sleep(COUNTING);
    let (after, all) = now();
    Rate {
        verdicts: (after - verdicts) as f64,
        elapsed: begun.elapsed(),
        computed: all - before,
    }
}

fn is_right(hash: &str, password: &[u8]) -> bool {
    let hash = PasswordHash::new(hash).unwrap();
    Argon2::default().verify_password(password, &hash).is_ok()
}

/// Does something in so many threads while something is measured.
fn beside<T>(threads: usize, load: impl Fn(&Arc<AtomicBool>) + Sync, measure: impl FnOnce() -> T) -> T {
    let stop = Arc::<AtomicBool>::default();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| load(&stop));
        }
        let measured = measure();
        stop.store(true, SeqCst);
        measured
    })
}

fn computing(hash: &str, stop: &AtomicBool) {
    while !stop.load(SeqCst) {
        assert!(!is_right(hash, b"open barley"));
        VERDICTS.fetch_add(1, SeqCst);
    }
}

/// On wrong passwords.
static VERDICTS: AtomicUsize = AtomicUsize::new(0);

fn flood(server: SocketAddr, path: &'static str, stop: &Arc<AtomicBool>) {
    runtime().block_on(async {
        let mut callers = JoinSet::new();
        for _ in 0..FLOOD {
            let stop = Arc::clone(stop);
            callers.spawn(async move {
                let mut client = connect(server).await;
                while !stop.load(SeqCst) {
                    assert_eq!(ask(&mut client, path, WRONG).await, StatusCode::UNAUTHORIZED);
                    VERDICTS.fetch_add(1, SeqCst);
                }
            });
        }
        callers.join_all().await;
    });
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// From when each request was due, if those before it were late.
fn latency(server: SocketAddr, path: &str) -> Latency {
    runtime().block_on(async {
        let mut client = connect(server).await;
        assert_eq!(ask(&mut client, path, RIGHT).await, StatusCode::OK);
        let start = Instant::now();
        let mut latencies = Vec::new();
        for due in (0..REQUESTS).map(|n| start + APART * n) {
            let mut begun = due;
            if Instant::now() < due {
                sleep_until(due.into()).await;
                begun = Instant::now();
            }
            if start.elapsed() < SENDING {
                assert_eq!(ask(&mut client, path, RIGHT).await, StatusCode::OK);
            }
            latencies.push(begun.elapsed());
        }
        Latency([0.5, 0.99].map(|share| quantile(&mut latencies, share)))
    })
}

async fn connect(server: SocketAddr) -> SendRequest<Body> {
    let tcp = TcpStream::connect(server).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let (client, connection) = handshake(TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn ask(client: &mut SendRequest<Body>, path: &str, login: &str) -> StatusCode {
    let request = Request::get(path)
        .header("host", "localhost")
        .header(AUTHORIZATION, login);
    client.ready().await.unwrap();
    let response = client.send_request(request.body(Body::new()).unwrap()).await.unwrap();
    let status = response.status();
    response.into_body().collect().await.unwrap();
    status
}

/// On a runtime with as many threads as there are cores, until the process ends.
fn serve(hash: &str) -> SocketAddr {
    let passwords = Dir::in_memory([("r1.username", "ali"), ("r1.password-hash", hash)]);
    let layer = AuthenticateLayer::basic(&Passwords::in_dir(&passwords).unwrap());
    let hash: Arc<str> = hash.into();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let serving = async move {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            tcp.set_nodelay(true).unwrap();
            let (layer, hash) = (layer.clone(), Arc::clone(&hash));
            let service = service_fn(move |request: Request<Incoming>| {
                let (layer, hash) = (layer.clone(), Arc::clone(&hash));
                async move {
                    match request.uri().path() {
                        LOGIN => layer.layer(tower::service_fn(answer)).call(request).await,
                        NAIVE if !is_right(&hash, b"open barley") => {
                            let mut refusal = Response::new(Full::default());
                            *refusal.status_mut() = StatusCode::UNAUTHORIZED;
                            Ok(refusal)
                        }
                        _ => answer(request).await,
                    }
                }
            });
            // Clients go away in the end.
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(tcp), service));
        }
    };
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    thread::spawn(move || runtime.block_on(serving));
    address
}

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("ok")))
}
