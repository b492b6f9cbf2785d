//! Looks after a swap where no request does: closes what was revoked though nobody asks, and takes up a new identity.

use std::collections::hash_map::RandomState;
use std::error::Error;
use std::hash::BuildHasher;
use std::sync::{Arc, Weak};
use std::time::Duration;

use keydir::Changes;
use keydir_rustls::{AnchorsView, IdentityView};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::swap::{Current, Shared};

/// The clock may be set, so the end of a certificate is looked at so often at least.
const LOOK: Duration = Duration::from_secs(30);
/// After a failure it is tried again so much later, at first, and at last.
const BACK_OFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

struct Driver<S, E> {
    shared: Weak<Shared<S, E>>,
    wake: Arc<Notify>,
    trust: Changes<AnchorsView>,
    identity: Option<Changes<IdentityView>>,
    turn: Option<Turn>,
}

/// The turn of a generation to be replaced though nothing was revoked.
struct Turn {
    why: &'static str,
    due: Instant,
    back_off: Duration,
}

/// Runs until the swap is dropped.
pub(super) fn start<S, E>(shared: &Arc<Shared<S, E>>)
where
    S: Clone + Send + Sync + 'static,
    E: Error + Send + Sync + 'static,
{
    let connector = &shared.connector;
    let driver = Driver {
        wake: Arc::clone(&shared.wake),
        trust: connector.anchors().live().subscribe(),
        identity: connector.identity().map(|identity| identity.live().subscribe()),
        shared: Arc::downgrade(shared),
        turn: None,
    };
    tokio::spawn(driver.run());
}

impl<S, E> Driver<S, E>
where
    S: Clone + Send + Sync + 'static,
    E: Error + Send + Sync + 'static,
{
    async fn run(mut self) {
        // Looked at before anything is waited for: what has changed since the subscription is not missed.
        while let Some(shared) = self.shared.upgrade() {
            let pause = self.look(&shared).await;
            drop(shared);
            let identity = async {
                match &mut self.identity {
                    Some(identity) => drop(identity.changed().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.wake.notified() => {}
                _ = self.trust.changed() => {}
                () = identity => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Does what there is to do, and says how long nothing more will be to do by itself.
    async fn look(&mut self, shared: &Arc<Shared<S, E>>) -> Duration {
        let current = shared.current();
        if !current.generation.stands() {
            self.turn = None;
            return match shared.renewed() {
                Ok(_) => {
                    tracing::info!("something was revoked: new connections in place of the pooled ones");
                    Duration::ZERO
                }
                Err(error) => {
                    tracing::error!(%error, "cannot make another client");
                    BACK_OFF[0]
                }
            };
        }
        if self.turn.is_none() {
            self.turn = next_turn(shared, &current);
        }
        match &self.turn {
            Some(turn) if turn.due <= Instant::now() => self.replace(shared, &current).await,
            _ => {}
        }
        let now = Instant::now();
        let turn = self.turn.as_ref().map(|turn| turn.due);
        let old = shared.options.max_age.and_then(|age| current.begun.checked_add(age));
        let next = turn.into_iter().chain(old).min();
        let pause = next.map_or(LOOK, |next| next.saturating_duration_since(now));
        pause.min(until_expiry(shared, &current).unwrap_or(LOOK)).min(LOOK)
    }

    /// Nothing is lost if this fails: what is there still stands.
    async fn replace(&mut self, shared: &Arc<Shared<S, E>>, last: &Arc<Current<S>>) {
        let replaced = async {
            let next = shared.begin()?;
            if let Some(ahead) = &shared.options.ahead {
                ahead(&last.service, &next.service).await?;
            }
            Ok::<_, crate::BoxError>(next)
        };
        let Some(turn) = &mut self.turn else { return };
        match replaced.await {
            Ok(next) => {
                shared.replace(last, next);
                tracing::info!(why = turn.why, "new connections in place of the pooled ones");
                self.turn = None;
            }
            Err(error) => {
                tracing::warn!(
                    error = &*error,
                    why = turn.why,
                    "cannot connect anew, so the pooled connections stay for now"
                );
                turn.due = Instant::now() + turn.back_off;
                turn.back_off = (turn.back_off * 2).min(BACK_OFF[1]);
            }
        }
    }
}

impl Turn {
    fn at(why: &'static str, due: Instant) -> Self {
        Self {
            why,
            due,
            back_off: BACK_OFF[0],
        }
    }
}

fn next_turn<S, E>(shared: &Shared<S, E>, current: &Current<S>) -> Option<Turn> {
    let now = Instant::now();
    let expiry = until_expiry(shared, current);
    if expiry == Some(Duration::ZERO) {
        return Some(Turn::at("the certificate has expired", now));
    }
    let primary = shared.connector.identity().and_then(|identity| identity.primary().ok());
    if primary.is_some_and(|primary| !current.presents(&primary)) {
        // Many clients share a directory; their handshakes should not fall together.
        let wait = shared.options.promotion_window.mul_f64(random());
        let wait = expiry.map_or(wait, |expiry| expiry.min(wait));
        return Some(Turn::at("there is a new identity", now + wait));
    }
    let age = shared.options.max_age?;
    (current.begun.elapsed() >= age).then(|| Turn::at("they are old", now))
}

/// How long it is until what was presented at the beginning expires; `None` if it had by then.
fn until_expiry<S, E>(shared: &Shared<S, E>, current: &Current<S>) -> Option<Duration> {
    let clock = shared.connector.identity()?.live().dir().clock();
    let left = current.expires?.duration_since(clock.now());
    Some(left.unwrap_or_default())
}

/// Between 0 and 1.
fn random() -> f64 {
    let bits = u32::try_from(RandomState::new().hash_one(0) >> 32).unwrap_or_default();
    f64::from(bits) / f64::from(u32::MAX)
}
