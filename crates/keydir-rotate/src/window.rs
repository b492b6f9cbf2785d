//! Maintenance windows: the times of a week at which rotations move on by themselves.

use std::fmt;
use std::str::FromStr;

const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * MINUTE;
const WEEK: u64 = 7 * DAY;
/// 1970 began on a Thursday; weeks are counted from Monday.
const FIRST_MONDAY: u64 = 4 * DAY;
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Times of a week, in UTC. None at all means any time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows(Vec<Window>);

/// One of them, in seconds from the beginning of a week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    from: u64,
    length: u64,
}

/// A text that is no window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowError(String);

impl fmt::Display for WindowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no window: say days and times in UTC, such as \"Sun 02:00-04:00\", \"Mon-Fri 22:00-02:00\" or \
             \"02:00-04:00\"",
            self.0
        )
    }
}

impl std::error::Error for WindowError {}

impl Windows {
    /// When the next one is open, from this moment on, in seconds since 1970; the moment itself if one is open.
    pub fn next(&self, now: u64) -> u64 {
        let of_week = (now + WEEK - FIRST_MONDAY) % WEEK;
        let wait = |window: &Window| {
            // One that began last week may still be open.
            let since = (of_week + WEEK - window.from) % WEEK;
            if since < window.length { 0 } else { WEEK - since }
        };
        now + self.0.iter().map(wait).min().unwrap_or(0)
    }

    /// Adds those of a text.
    ///
    /// # Errors
    /// If it is none.
    pub fn add(&mut self, text: &str) -> Result<(), WindowError> {
        let error = || WindowError(text.to_owned());
        let (days, times) = match text.trim().rsplit_once(' ') {
            Some((days, times)) => (days_of(days.trim()).ok_or_else(error)?, times),
            None => (0..7, text.trim()),
        };
        let (from, to) = times.split_once('-').ok_or_else(error)?;
        let (from, to) = (time(from).ok_or_else(error)?, time(to).ok_or_else(error)?);
        // Until the same time is a whole day.
        let length = if to > from { to - from } else { to + DAY - from };
        self.0.extend(days.map(|day| Window {
            from: day % 7 * DAY + from,
            length,
        }));
        Ok(())
    }
}

impl FromStr for Windows {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let mut windows = Self::default();
        windows.add(text)?;
        Ok(windows)
    }
}

/// Days from Monday on; over the end of the week they count on.
fn days_of(text: &str) -> Option<std::ops::Range<u64>> {
    let day = |name: &str| (0..).zip(DAYS).find(|(_, day)| *day == name).map(|(number, _)| number);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (day(first)?, day(last)?);
    Some(first..if last < first { last + 7 } else { last } + 1)
}

fn time(text: &str) -> Option<u64> {
    let (hours, minutes) = text.split_once(':')?;
    let two_digits = |text: &str, end: u64| {
        let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = is_number.then(|| text.parse::<u64>().ok()).flatten()?;
        (number < end).then_some(number)
    };
    Some((two_digits(hours, 24)? * 60 + two_digits(minutes, 60)?) * MINUTE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Monday, 23 November 2026, 00:00 UTC.
    const MONDAY: u64 = 1_795_392_000;
    const HOUR: u64 = 60 * MINUTE;

    #[test]
    fn windows_open_when_they_say() {
        assert_eq!((MONDAY - FIRST_MONDAY) % WEEK, 0);
        for (text, now, next) in [
            ("Sun 02:00-04:00", 0, 6 * DAY + 2 * HOUR),
            ("Sun 02:00-04:00", 6 * DAY + 3 * HOUR, 6 * DAY + 3 * HOUR),
            ("Sun 02:00-04:00", 6 * DAY + 4 * HOUR, 13 * DAY + 2 * HOUR),
            ("02:00-04:00", DAY + 5 * HOUR, 2 * DAY + 2 * HOUR),
            ("Mon-Fri 22:00-02:00", HOUR, 22 * HOUR),
            ("Mon-Fri 22:00-02:00", DAY + HOUR, DAY + HOUR),
            ("Mon-Fri 22:00-02:00", 5 * DAY + HOUR, 5 * DAY + HOUR),
            ("Sun 22:00-02:00", HOUR, HOUR),
            ("Sat-Mon 00:00-00:00", 2 * DAY, 5 * DAY),
            ("Sat-Mon 00:00-00:00", 12 * HOUR, 12 * HOUR),
        ] {
            let windows: Windows = text.parse().unwrap();
            assert_eq!(windows.next(MONDAY + now), MONDAY + next, "{text} at {now}");
        }
        assert_eq!(Windows::default().next(MONDAY + 1), MONDAY + 1);
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for text in [
            "",
            "Sun",
            "Sun 2:00-04:00",
            "02:00",
            "24:00-25:00",
            "So 02:00-04:00",
            "+1:00-02:00",
            "é 0",
        ] {
            assert!(text.parse::<Windows>().is_err(), "{text}");
        }
    }
}
