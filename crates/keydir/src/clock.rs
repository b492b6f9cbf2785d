//! Where the time comes from, so that tests can say what it is.

use std::time::SystemTime;

/// A source of wall-clock time, asked at each check of a directory and never on the hot path.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> SystemTime;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that asks")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}
