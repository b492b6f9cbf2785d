//! A new primary is tried in the place of one session, so that there are never more than the pool may have.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Executor, PgPool, Postgres};
use tokio::time::{sleep, sleep_until, timeout};

use crate::logins::Logins;
use crate::tried::Beside;

/// So long the place of one session is kept for the login that is tried; it goes on beside the pool then.
const KEPT: Duration = Duration::from_secs(2);
/// Where there was no place to try it in, after so long once more.
const AGAIN: Duration = Duration::from_secs(1);
/// sqlx closes a session only where it gives its place away. Whoever acts as a role has to lay that aside first.
const END: &str = "SET ROLE NONE; SELECT pg_terminate_backend(pg_backend_pid())";

/// For as long as it is polled.
pub(crate) async fn try_primaries(logins: &Arc<Logins>, pool: &PgPool) {
    let mut credentials = logins.attempts.credentials.live().subscribe();
    loop {
        let ended = logins.next_end();
        let untried = logins.untried();
        if untried == Beside::Try {
            if !try_in_place(logins, pool).await {
                sleep(AGAIN).await;
            }
            continue;
        }
        let later = async {
            match untried.later() {
                Some(later) => sleep_until(later.into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = credentials.changed() => {}
            () = ended => {}
            () = later => {}
        }
    }
}

/// False if there is no place.
async fn try_in_place(logins: &Arc<Logins>, pool: &PgPool) -> bool {
    let Ok(place) = place(pool).await else {
        return false;
    };
    if logins.untried() != Beside::Try {
        return true;
    }
    let place = match place {
        Some(mut place) => {
            place.close_on_drop();
            // It ends before it has answered.
            let _ = timeout(KEPT, place.execute(END)).await;
            Some(place)
        }
        None => None,
    };
    if let Some(first) = logins.try_primary() {
        // The client says good-bye, and then the place is given back.
        drop(timeout(KEPT, first).await);
    }
    drop(place);
    true
}

/// One session as any user of the pool gets it; none, if there is room for one more anyway.
async fn place(pool: &PgPool) -> Result<Option<PoolConnection<Postgres>>, sqlx::Error> {
    match pool.size() {
        0 => Ok(None),
        _ => match pool.acquire().await {
            Ok(place) => Ok(Some(place)),
            Err(error @ (sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed)) => Err(error),
            // What the pool has does not work any more.
            Err(_) => Ok(None),
        },
    }
}
