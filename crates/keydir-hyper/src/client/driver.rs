//! Looks after a swap where no request does: closes what was revoked though nobody asks, and takes up a new identity.

use std::error::Error;
use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use keydir::Changes;
use keydir_rustls::{AnchorsView, IdentityView};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::shared::{Current, Shared};
use crate::BoxError;
use crate::random::random;

/// The clock may be set, so the end of a certificate is looked at so often at least.
const LOOK: Duration = Duration::from_secs(30);
/// After a failure it is tried again so much later, at first, and at last.
const BACK_OFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

struct Driver<S, E> {
    shared: Weak<Shared<S, E>>,
    wake: Arc<Notify>,
    trust: Changes<AnchorsView>,
    identity: Option<Changes<IdentityView>>,
    turn: Option<Turn<S>>,
}

/// The turn of a generation to be replaced though nothing was revoked.
struct Turn<S> {
    of: Weak<Current<S>>,
    why: &'static str,
    due: Instant,
    back_off: Duration,
    /// What takes its place gets ready.
    next: Option<Next<S>>,
}

type Next<S> = Pin<Box<dyn Future<Output = Result<Current<S>, BoxError>> + Send>>;

/// Runs until the swap is dropped.
pub(super) fn start<S, E>(shared: &Arc<Shared<S, E>>)
where
    S: Send + Sync + 'static,
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
    S: Send + Sync + 'static,
    E: Error + Send + Sync + 'static,
{
    async fn run(mut self) {
        // Looked at before anything is waited for: what has changed since the subscription is not missed.
        while let Some(shared) = self.shared.upgrade() {
            let pause = self.look(&shared);
            drop(shared);
            if let Some(next) = self.wait(pause).await
                && let Some(shared) = self.shared.upgrade()
            {
                self.replace(&shared, next);
            }
        }
    }

    /// Until there is something to look at; perhaps what takes the place of the current generation.
    async fn wait(&mut self, pause: Duration) -> Option<Result<Current<S>, BoxError>> {
        let identity = async {
            match &mut self.identity {
                Some(identity) => drop(identity.changed().await),
                None => pending().await,
            }
        };
        let next = async {
            match self.turn.as_mut().and_then(|turn| turn.next.as_mut()) {
                Some(next) => next.await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = self.wake.notified() => None,
            _ = self.trust.changed() => None,
            () = identity => None,
            () = sleep(pause) => None,
            next = next => Some(next),
        }
    }

    /// Does what there is to do, and says how long nothing more will be to do by itself.
    fn look(&mut self, shared: &Shared<S, E>) -> Duration {
        let current = shared.current();
        let stands = current.generation.stands();
        if stands && current.generation.until_expiry() == Some(Duration::ZERO) {
            tracing::info!("what the pooled connections have presented has expired");
            current.generation.spoil();
        } else if stands {
            return self.plan(shared, &current);
        }
        self.turn = None;
        match shared.renewed() {
            Ok(_) => Duration::ZERO,
            Err(error) => {
                tracing::error!(%error, "cannot make another client");
                BACK_OFF[0]
            }
        }
    }

    /// Likewise for a generation that stands.
    fn plan(&mut self, shared: &Shared<S, E>, current: &Arc<Current<S>>) -> Duration {
        let now = Instant::now();
        if !self.turn.as_ref().is_some_and(|turn| turn.is_of(current)) {
            self.turn = Turn::of(shared, current, now);
        }
        let pause = match &mut self.turn {
            Some(turn) => turn.take(shared, current, now),
            None => {
                let old = shared
                    .options
                    .times
                    .max_age
                    .and_then(|age| current.begun.checked_add(age));
                old.map_or(LOOK, |old| old.saturating_duration_since(now))
            }
        };
        let expiry = current.generation.until_expiry();
        pause.min(expiry.unwrap_or(LOOK)).min(LOOK)
    }

    /// Nothing is lost if this fails: what is there still stands.
    fn replace(&mut self, shared: &Shared<S, E>, next: Result<Current<S>, BoxError>) {
        let Some(mut turn) = self.turn.take() else { return };
        match next {
            Ok(next) => {
                tracing::info!(why = turn.why, "new connections in place of the pooled ones");
                shared.replace(&turn.of, next);
            }
            Err(error) => {
                tracing::warn!(
                    error = &*error,
                    why = turn.why,
                    "cannot connect anew, so the pooled connections stay for now"
                );
                turn.fail(Instant::now());
                self.turn = Some(turn);
            }
        }
    }
}

impl<S> Turn<S>
where
    S: Send + Sync + 'static,
{
    fn of<E>(shared: &Shared<S, E>, current: &Arc<Current<S>>, now: Instant) -> Option<Self> {
        let primary = shared.connector.identity().and_then(|identity| identity.primary().ok());
        let (why, wait) = if primary.is_some_and(|primary| !current.presents(&primary)) {
            // Many clients share a directory; their handshakes should not fall together.
            let wait = shared.options.times.promotion_window.mul_f64(random());
            ("there is a new identity", wait)
        } else if shared
            .options
            .times
            .max_age
            .is_some_and(|age| current.begun.elapsed() >= age)
        {
            ("they are old", Duration::ZERO)
        } else {
            return None;
        };
        Some(Self {
            of: Arc::downgrade(current),
            why,
            due: now + wait,
            back_off: BACK_OFF[0],
            next: None,
        })
    }

    fn is_of(&self, current: &Arc<Current<S>>) -> bool {
        Weak::as_ptr(&self.of) == Arc::as_ptr(current)
    }

    /// Gets the next one ready if it is time, and says how long there is nothing more to do.
    fn take<E>(&mut self, shared: &Shared<S, E>, current: &Current<S>, now: Instant) -> Duration
    where
        E: Error + Send + Sync + 'static,
    {
        if self.next.is_some() {
            return LOOK;
        }
        if self.due <= now {
            match shared.begin() {
                Ok(next) => {
                    let ready = (shared.options.ahead)(&current.service, &next.service);
                    self.next = Some(Box::pin(async move { ready.await.map(|()| next) }));
                    return LOOK;
                }
                Err(error) => {
                    tracing::error!(%error, "cannot make another client");
                    self.fail(now);
                }
            }
        }
        self.due.saturating_duration_since(now)
    }

    fn fail(&mut self, now: Instant) {
        self.next = None;
        self.due = now + self.back_off;
        self.back_off = (self.back_off * 2).min(BACK_OFF[1]);
    }
}
