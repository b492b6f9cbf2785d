//! From when to when a certificate is valid.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Certificate;
use crate::generate::Error;

/// How far back notBefore lies, for peers whose clock is slow (convention, section 2).
const BACK: Duration = Duration::from_secs(5 * 60);
/// 9999-12-31T23:59:59Z, the last second that DER can write.
const LAST: u64 = 253_402_300_799;
/// Below this part of the life that was asked for, an issuer's end is not met by a shorter leaf, but by an error:
/// leaves are renewed by the part of their life that is over, and would be ever more quickly.
const PART: u32 = 10;

/// Seconds of Unix time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dates {
    not_before: u64,
    not_after: u64,
}

impl Dates {
    /// Those of what vouches for itself.
    pub(crate) fn own(now: SystemTime, life: Duration) -> Result<Self, Error> {
        let now = seconds(now)?;
        let not_after = now.saturating_add(life.as_secs());
        if not_after > LAST {
            return Err(Error::impossible("life", "it ends after the year 9999"));
        }
        Ok(Self {
            not_before: now.saturating_sub(BACK.as_secs()),
            not_after,
        })
    }

    /// Those of what `issuer` vouches for: never outside of the issuer's own.
    pub(crate) fn below(issuer: &Certificate, now: SystemTime, life: Duration) -> Result<Self, Error> {
        if left(issuer, now)? < life / PART {
            let not_after = issuer.not_after();
            return Err(Error::EndsTooSoon { not_after, life });
        }
        Self::own(now, life)?.within(issuer)
    }

    /// As long as both are valid.
    pub(crate) fn of_both(one: &Certificate, other: &Certificate, now: SystemTime) -> Result<Self, Error> {
        let life = left(one, now)?.min(left(other, now)?);
        Self::own(now, life)?.within(one)?.within(other)
    }

    /// These, cut to those of another certificate.
    fn within(self, other: &Certificate) -> Result<Self, Error> {
        // What the other says may lie before 1970.
        let other_begin = other.not_before().max(UNIX_EPOCH);
        Ok(Self {
            not_before: self.not_before.max(seconds(other_begin)?),
            not_after: self.not_after.min(seconds(other.not_after())?),
        })
    }

    pub(crate) fn set(self, params: &mut rcgen::CertificateParams) {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + Duration::from_secs(self.not_before);
        params.not_after = epoch + Duration::from_secs(self.not_after);
    }
}

/// How long it is still valid.
fn left(certificate: &Certificate, now: SystemTime) -> Result<Duration, Error> {
    let (not_before, not_after) = (certificate.not_before(), certificate.not_after());
    if now < not_before {
        return Err(Error::NotYetValid { not_before });
    }
    not_after.duration_since(now).map_err(|_| Error::Expired { not_after })
}

/// A moment as seconds that DER can write.
pub(crate) fn seconds(moment: SystemTime) -> Result<u64, Error> {
    let since = moment.duration_since(UNIX_EPOCH).ok();
    let seconds = since.map(|since| since.as_secs()).filter(|seconds| *seconds <= LAST);
    seconds.ok_or_else(|| Error::impossible("now", "the time lies before 1970 or after 9999"))
}
