//! Two clocks that have to agree: the wall's, and one that nobody sets.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::observed::Now;

/// Watches the wall clock for jumps, by the time since the machine was started (which counts on while it sleeps).
#[derive(Debug, Default)]
pub struct Clocks {
    last: Option<Reading>,
    jumped: Option<Duration>,
}

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
struct Reading {
    wall: Duration,
    steady: Duration,
}

impl Now {
    /// What the wall clock says, whatever it has said before.
    pub fn of_wall() -> Self {
        Self {
            wall: wall().as_secs(),
            since_jump: None,
        }
    }
}

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Clocks {
    /// Nothing was seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The time, and how long it is since a jump of more than `skew` seconds was seen. Jumps between two calls are seen,
    /// not those before the first.
    pub fn now(&mut self, skew: u64) -> Now {
        let steady = clock_gettime(ClockId::Boottime);
        let steady = Duration::new(
            u64::try_from(steady.tv_sec).unwrap_or_default(),
            u32::try_from(steady.tv_nsec).unwrap_or_default(),
        );
        self.saw(Reading { wall: wall(), steady }, Duration::from_secs(skew))
    }

    fn saw(&mut self, reading: Reading, skew: Duration) -> Now {
        if let Some(last) = self.last {
            let expected = last.wall + reading.steady.saturating_sub(last.steady);
            if expected.abs_diff(reading.wall) > skew {
                tracing::warn!(
                    expected = expected.as_secs(),
                    found = reading.wall.as_secs(),
                    "the clock has jumped: waits are counted anew"
                );
                self.jumped = Some(reading.steady);
            }
        }
        self.last = Some(reading);
        Now {
            wall: reading.wall.as_secs(),
            since_jump: self.jumped.map(|at| reading.steady.saturating_sub(at).as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_are_seen_in_both_directions() {
        let skew = Duration::from_secs(10);
        let mut clocks = Clocks::new();
        let mut saw = |wall: u64, steady: u64| {
            let reading = Reading {
                wall: Duration::from_secs(1_000_000 + wall),
                steady: Duration::from_secs(steady),
            };
            clocks.saw(reading, skew).since_jump
        };
        assert_eq!(saw(0, 5), None);
        assert_eq!(saw(3_600, 3_605), None);
        // A little off, and a little more: a clock that is slewed.
        assert_eq!(saw(3_670, 3_665), None);
        assert_eq!(saw(3_735, 3_725), None);
        assert_eq!(saw(10_000, 3_726), Some(0));
        assert_eq!(saw(10_060, 3_786), Some(60));
        assert_eq!(saw(3_800, 3_790), Some(0));
        assert_eq!(saw(4_000, 3_990), Some(200));
    }

    #[test]
    fn real_clocks_go_on() {
        let mut clocks = Clocks::new();
        let first = clocks.now(10);
        let second = clocks.now(10);
        assert!(second.wall >= first.wall && first.wall > 1_700_000_000);
        assert_eq!(second.since_jump, None);
    }
}
