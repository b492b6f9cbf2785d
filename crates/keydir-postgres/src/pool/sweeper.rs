//! Looks after a pool: lets go of idle sessions in their turn, and tries a new login within the pool's size.

use std::future::{Future, pending};
use std::ops::DerefMut;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::time::{sleep_until, timeout};
use tokio_postgres::Client;

use super::leased::Leased;
use super::turnover::{KEPT, Turnover};
use crate::tried::Beside;

/// Who gets no session within this has one make way, when it is given back: bb8 may hand each to whoever asks next, for
/// ever.
const FAIR: Duration = Duration::from_millis(200);
/// Where there was no place to try it in, after so long once more.
const AGAIN: Duration = Duration::from_secs(1);

/// A pool, as far as its host shows it.
pub(super) trait Pool: Send + Sync + 'static {
    type Client: Send;
    type Place: DerefMut<Target = Leased<Self::Client>> + Send;

    fn wrap(client: Client) -> Self::Client;

    /// Lets go of the idle sessions that are due.
    fn sweep(&self, turnover: &Turnover);

    /// Takes a session out, as any user of the pool.
    fn take(&self) -> impl Future<Output = Option<Self::Place>> + Send;
}

/// Until the pool is gone.
pub(super) async fn run(turnover: Weak<Turnover>, pool: Arc<impl Pool>) {
    let Some(this) = turnover.upgrade() else { return };
    this.is_swept(true);
    let over = this.over();
    let logins = Arc::clone(this.login.logins());
    drop(this);
    let mut credentials = logins.attempts.credentials.live().subscribe();
    let mut anchors = logins.attempts.tls.anchors().map(|anchors| anchors.live().subscribe());
    let mut trial: Option<Pin<Box<dyn Future<Output = bool> + Send>>> = None;
    let mut not_before = None;
    loop {
        let ended = logins.next_end();
        let Some(this) = turnover.upgrade() else { return };
        pool.sweep(&this);
        let now = Instant::now();
        let mut next = this.next();
        if trial.is_none() {
            match logins.untried() {
                Beside::Nothing => not_before = None,
                Beside::Later(later) => next = earlier(next, later),
                Beside::Try => match not_before {
                    Some(then) if then > now => next = earlier(next, then),
                    _ => trial = Some(Box::pin(try_in_place(Arc::clone(&pool), Weak::clone(&turnover)))),
                },
            }
        }
        drop(this);
        tokio::select! {
            () = over.notified() => return,
            _ = credentials.changed() => {}
            () = async {
                match &mut anchors {
                    Some(anchors) => drop(anchors.changed().await),
                    None => pending().await,
                }
            } => {}
            () = ended => {}
            () = async {
                match next {
                    Some(next) => sleep_until(next.into()).await,
                    None => pending().await,
                }
            } => {}
            had_place = async {
                match &mut trial {
                    Some(trial) => trial.await,
                    None => pending().await,
                }
            } => {
                trial = None;
                not_before = (!had_place).then(|| Instant::now() + AGAIN);
            }
        }
    }
}

fn earlier(one: Option<Instant>, other: Instant) -> Option<Instant> {
    Some(one.map_or(other, |one| one.min(other)))
}

/// Tries a new login in the place of one session, so that there are never more than the pool may have; or somebody else
/// has. False if there is no place.
async fn try_in_place<P: Pool>(pool: Arc<P>, turnover: Weak<Turnover>) -> bool {
    let Some(this) = turnover.upgrade() else { return false };
    let ended = this.login.logins().next_end();
    if this.login.logins().untried() != Beside::Try {
        return true;
    }
    drop(this);
    let taken = tokio::select! {
        place = take(&*pool, &turnover) => Some(place),
        () = ended => None,
    };
    let Some(this) = turnover.upgrade() else { return false };
    this.want_place(false);
    let Some(place) = taken else { return true };
    let Some(mut place) = place else { return false };
    if this.login.logins().untried() != Beside::Try {
        return true;
    }
    let usage = place.session().usage();
    place.session().end();
    let Some(first) = this.login.logins().try_primary() else {
        return true;
    };
    // Where it is refused, the pool finds the session ended, and makes another with the last that works.
    if let Ok(Ok(made)) = timeout(KEPT, first).await {
        *place = this.leased(made, P::wrap);
        place.session().becomes(usage);
    }
    true
}

async fn take<P: Pool>(pool: &P, turnover: &Weak<Turnover>) -> Option<P::Place> {
    let mut taken = pin!(pool.take());
    if let Ok(taken) = timeout(FAIR, &mut taken).await {
        return taken;
    }
    turnover.upgrade()?.want_place(true);
    taken.await
}
