//! What one server has said of our credentials, and which is its turn next. Knows neither a clock nor a credential.

use std::time::Duration;

use keydir::Fingerprint;
use tokio::time::Instant;

/// How long a credential is left alone after its first refusal; the double after each one more.
const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(300);

/// So many credentials are remembered.
const MOST: usize = 16;

/// The verdicts of one server.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    /// The newest first.
    verdicts: Vec<Verdict>,
}

#[derive(Clone, Copy, Debug)]
struct Verdict {
    credential: Fingerprint,
    /// What was sent before says nothing more.
    since: Instant,
    said: Said,
}

#[derive(Clone, Copy, Debug)]
enum Said {
    Accepted,
    /// One that is on trial has no pause yet.
    LeftAlone {
        pause: Duration,
        until: Instant,
    },
}

/// What to present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Primary,
    /// The primary, as the one request that finds out whether it is accepted.
    Probe,
    Other(Fingerprint),
}

/// What a request has presented, when, and whether it is the one that finds out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) credential: Fingerprint,
    pub(super) sent: Instant,
    pub(super) probe: bool,
}

impl Book {
    /// Whether this credential is simply accepted.
    pub(super) fn accepts(&self, credential: Fingerprint) -> bool {
        self.said(credential).is_some_and(|said| matches!(said, Said::Accepted))
    }

    /// What to present now, of a primary and others, the best first.
    ///
    /// A primary that the server has not seen yet is tried by one request if another is accepted meanwhile, so that a bad
    /// rotation costs one refusal. While the primary is left alone the other is presented at once, and then one request
    /// tries again. With nothing else to present it is the primary, as if there were no book.
    pub(super) fn turn(&self, now: Instant, primary: Fingerprint, others: &[Fingerprint]) -> Turn {
        let said = self.said(primary);
        if said.is_some_and(|said| matches!(said, Said::Accepted)) {
            return Turn::Primary;
        }
        let Some(other) = self.other(now, others) else {
            return Turn::Primary;
        };
        match said {
            Some(Said::LeftAlone { until, .. }) if now < until => Turn::Other(other),
            Some(_) => Turn::Probe,
            None if self.accepts(other) => Turn::Probe,
            None => Turn::Primary,
        }
    }

    /// The best of these that is not left alone: one that is accepted, else the first.
    pub(super) fn other(&self, now: Instant, others: &[Fingerprint]) -> Option<Fingerprint> {
        let accepted = others.iter().find(|other| self.accepts(**other));
        let is_left_alone = |other| matches!(self.said(other), Some(Said::LeftAlone { until, .. }) if now < until);
        accepted
            .or_else(|| others.iter().find(|other| !is_left_alone(**other)))
            .copied()
    }

    /// Takes the turn to [probe](Turn::Probe). Nobody else has it until the next step, whatever becomes of it.
    pub(super) fn claim(&mut self, now: Instant, primary: Fingerprint) {
        let pause = match self.said(primary) {
            Some(Said::LeftAlone { pause, .. }) => pause,
            _ => Duration::ZERO,
        };
        let until = now + pause.max(FIRST);
        self.write(primary, now, Said::LeftAlone { pause, until });
    }

    /// How long the credential is left alone, if this refusal says something new.
    pub(super) fn refused(&mut self, now: Instant, attempt: Attempt) -> Option<Duration> {
        let pause = match self.verdict(attempt.credential) {
            None => FIRST,
            Some(verdict) if attempt.sent < verdict.since => return None,
            Some(verdict) => match verdict.said {
                Said::Accepted => FIRST,
                Said::LeftAlone { until, .. } if now < until && !attempt.probe => return None,
                Said::LeftAlone { pause, .. } => (pause * 2).clamp(FIRST, LAST),
            },
        };
        let until = now + pause;
        self.write(attempt.credential, now, Said::LeftAlone { pause, until });
        Some(pause)
    }

    /// Whether this acceptance says something new.
    pub(super) fn accepted(&mut self, now: Instant, attempt: Attempt) -> bool {
        match self.verdict(attempt.credential) {
            Some(verdict) if attempt.sent < verdict.since || matches!(verdict.said, Said::Accepted) => false,
            _ => {
                self.write(attempt.credential, now, Said::Accepted);
                true
            }
        }
    }

    fn verdict(&self, credential: Fingerprint) -> Option<&Verdict> {
        self.verdicts.iter().find(|verdict| verdict.credential == credential)
    }

    fn said(&self, credential: Fingerprint) -> Option<Said> {
        self.verdict(credential).map(|verdict| verdict.said)
    }

    fn write(&mut self, credential: Fingerprint, since: Instant, said: Said) {
        self.verdicts.retain(|verdict| verdict.credential != credential);
        self.verdicts.truncate(MOST - 1);
        let verdict = Verdict {
            credential,
            since,
            said,
        };
        self.verdicts.insert(0, verdict);
    }
}

#[cfg(test)]
mod tests;
