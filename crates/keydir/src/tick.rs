//! A coarse clock for the hot path: seconds since 1970, renewed every 10 seconds while somebody asks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::clock::{Clock, SystemClock};

pub(crate) const PERIOD: Duration = Duration::from_secs(10);

static NOW: AtomicU64 = AtomicU64::new(0);
static WANTED: AtomicBool = AtomicBool::new(false);
static START: Mutex<Option<Box<dyn Fn() + Send>>> = Mutex::new(None);

/// The time, to about [`PERIOD`].
pub(crate) fn now() -> u64 {
    if !WANTED.load(Ordering::Relaxed) {
        WANTED.store(true, Ordering::Relaxed);
    }
    match NOW.load(Ordering::Relaxed) {
        0 => {
            let now = renew();
            if let Some(start) = &*START.lock().unwrap_or_else(PoisonError::into_inner) {
                start();
            }
            now
        }
        now => now,
    }
}

/// Says who calls [`tick`] when somebody asks again after nobody had.
pub(crate) fn on_start(start: Box<dyn Fn() + Send>) {
    *START.lock().unwrap_or_else(PoisonError::into_inner) = Some(start);
    NOW.store(0, Ordering::Relaxed);
}

/// Called every [`PERIOD`]: true if somebody has asked since.
pub(crate) fn tick() -> bool {
    if WANTED.swap(false, Ordering::Relaxed) {
        renew();
        true
    } else {
        NOW.store(0, Ordering::Relaxed);
        false
    }
}

fn renew() -> u64 {
    let now = SystemClock
        .now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(1, |since| since.as_secs().max(1));
    NOW.store(now, Ordering::Relaxed);
    now
}
