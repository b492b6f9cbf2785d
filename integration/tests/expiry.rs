//! Time alone: what expires is told of ahead, what begins is presented, what has ended is presented on or left out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use keydir::Dir;
use keydir_integration::{KeyDir, ManualClock, never_to_be_printed};
use keydir_rustls::{Identity, TrustAnchors};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};

const DAY: u64 = 24 * 60 * 60;

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Since the last call: which revisions were told to expire soon.
fn warned() -> Vec<String> {
    let log = std::mem::take(&mut *LOG.lock().unwrap());
    let log = String::from_utf8(log).unwrap();
    let lines = log.lines().filter(|line| line.contains("expires soon"));
    let revision = |line: &str| line.split("revision=").nth(1)?.split(' ').next().map(str::to_owned);
    let mut revisions: Vec<_> = lines.filter_map(revision).collect();
    revisions.sort();
    revisions
}

/// A certificate that is good from one day to another, counted from today.
fn certificate(ca: bool, from: i64, to: u64) -> [String; 2] {
    let key = KeyPair::generate().unwrap();
    let pem = key.serialize_pem();
    never_to_be_printed(&pem.lines().nth(1).unwrap()[48..64]);
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{from} to {to}"));
    if ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    }
    let today = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(today());
    params.not_before = match u64::try_from(from) {
        Ok(days) => today + Duration::from_secs(days * DAY),
        Err(_) => today - Duration::from_secs(from.unsigned_abs() * DAY),
    };
    params.not_after = today + Duration::from_secs(to * DAY);
    [params.self_signed(&key).unwrap().pem(), pem]
}

fn today() -> u64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    now - now % DAY
}

#[test]
fn days_go_by() {
    tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log).init();
    let clock = ManualClock::at(today());
    // In the middle of the day.
    let at_day = |day: u64| clock.set(today() + day * DAY + DAY / 2);
    at_day(0);
    let open = |keys: &KeyDir| Dir::builder(keys.path()).clock(Arc::new(clock.clone())).open().unwrap();

    let [first, first_key] = certificate(false, -6, 60);
    let [next, next_key] = certificate(false, 20, 200);
    let leaves = KeyDir::with([
        ("r1.crt", &first),
        ("r1.key", &first_key),
        ("r2.crt.primary", &next),
        ("r2.key", &next_key),
    ]);
    let [[short, _], [long, _]] = [certificate(true, -1, 30), certificate(true, -1, 3650)];
    let cas = KeyDir::with([("c1.crt", short), ("c2.crt", long)]);
    let dirs = [open(&leaves), open(&cas)];
    let refused = Identity::in_dir(&dirs[0]).unwrap_err();
    assert!(
        refused.to_string().contains("r2"),
        "the only marked one is pending: {refused}"
    );

    let mut leaves = leaves;
    leaves.promote("r1");
    dirs[0].reload().unwrap();
    let identity = Identity::in_dir(&dirs[0]).unwrap();
    let anchors = TrustAnchors::in_dir(&dirs[1]).unwrap();
    leaves.promote("r2");
    let presented = || identity.primary().unwrap().id().to_string();
    let trusted = || anchors.live().load().whole().len();
    let pass = |day: u64| {
        at_day(day);
        dirs.iter().for_each(|dir| dir.reload().unwrap());
    };
    pass(1);
    assert_eq!((presented().as_str(), trusted()), ("r1", 2));
    let sets = dirs[0].report().sets;
    let r1 = sets[0].revisions.iter().find(|(id, _)| **id == *"r1").unwrap().1;
    assert_eq!(r1.not_after, Some(today() + 60 * DAY));
    assert!(sets[0].revisions.iter().any(|(id, state)| *id == "r2" && state.pending));
    assert!(warned().is_empty());

    // Its validity begins: nothing else has changed.
    pass(20);
    assert_eq!(presented(), "r2");
    assert!(warned().is_empty());
    // A sixth of 31 days.
    pass(25);
    assert_eq!(warned(), ["c1"]);
    pass(26);
    assert!(warned().is_empty(), "once is enough");
    pass(30);
    assert_eq!(trusted(), 1, "an expired anchor is left out");
    // The end of what is staged or retiring is nobody's worry: another one is presented.
    pass(55);
    assert!(warned().is_empty());
    pass(171);
    assert_eq!(warned(), ["r2"]);

    // Expired, and presented all the same, loudly.
    pass(201);
    assert_eq!(presented(), "r2");
    let sets = dirs[0].report().sets;
    let expired = |problem: &keydir::Problem| problem.code == "expired" && problem.subject == "r2";
    assert!(sets[0].problems.iter().any(expired), "{:?}", sets[0].problems);
    assert!(warned().is_empty());

    // Who opens late is told at once, and a new primary is too.
    at_day(26);
    let late = TrustAnchors::in_dir(&open(&cas)).unwrap();
    assert_eq!(warned(), ["c1"]);
    drop(late);
}
