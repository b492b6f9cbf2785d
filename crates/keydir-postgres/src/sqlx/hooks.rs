//! What sqlx asks at each session: ours first, then what the pool's owner has asked for.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use sqlx::Error;
use sqlx::pool::PoolConnectionMetadata;
use sqlx::postgres::{PgConnection, PgPoolOptions};

use crate::sqlx::sessions::{Sessions, ask, count};

pub(crate) type Answer<'c, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'c>>;
pub(crate) type Hook<T> =
    Arc<dyn for<'c> Fn(&'c mut PgConnection, PoolConnectionMetadata) -> Answer<'c, T> + Send + Sync>;

/// The owner's.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) after_connect: Option<Hook<()>>,
    pub(crate) before_acquire: Option<Hook<bool>>,
    pub(crate) after_release: Option<Hook<bool>>,
}

impl Hooks {
    /// The options with the hooks of this pool.
    pub(crate) fn onto(self, options: PgPoolOptions, sessions: &Arc<Sessions>) -> PgPoolOptions {
        let most = usize::try_from(options.get_max_connections()).unwrap_or(usize::MAX);
        let Self {
            after_connect,
            before_acquire,
            after_release,
        } = self;
        let (made, taken, returned) = (Arc::clone(sessions), Arc::clone(sessions), Arc::clone(sessions));
        options
            .test_before_acquire(false)
            .after_connect(move |connection, meta| {
                let (sessions, hook) = (Arc::clone(&made), after_connect.clone());
                Box::pin(async move {
                    is_made(&sessions, connection, most).await?;
                    match hook {
                        Some(hook) => hook(connection, meta).await,
                        None => Ok(()),
                    }
                })
            })
            .before_acquire(move |connection, meta| {
                let (sessions, hook) = (Arc::clone(&taken), before_acquire.clone());
                Box::pin(async move {
                    let asked = ask(connection).await;
                    if asked.is_err() {
                        sessions.doubt().await;
                    }
                    let (session, _) = asked?;
                    if sessions.lets_go(&session) {
                        sessions.to_sweep.notify_one();
                        return Ok(false);
                    }
                    and(hook, connection, meta).await
                })
            })
            .after_release(move |connection, meta| {
                let (sessions, hook) = (Arc::clone(&returned), after_release.clone());
                Box::pin(async move {
                    // Mostly there is nothing to ask for.
                    if !sessions.generations().are_settled() {
                        let (session, _) = ask(connection).await?;
                        if sessions.lets_go(&session) {
                            sessions.to_sweep.notify_one();
                            return Ok(false);
                        }
                    }
                    and(hook, connection, meta).await
                })
            })
    }
}

async fn and(
    hook: Option<Hook<bool>>,
    connection: &mut PgConnection,
    meta: PoolConnectionMetadata,
) -> Result<bool, Error> {
    match hook {
        Some(hook) => hook(connection, meta).await,
        None => Ok(true),
    }
}

/// Whatever was in force when somebody began to connect, what the session was made with is known from now on. After an
/// error sqlx makes another, with the options of that moment.
async fn is_made(sessions: &Sessions, connection: &mut PgConnection, most: usize) -> Result<(), Error> {
    let (session, acts_as) = ask(connection).await?;
    if sessions.role.as_ref().is_some_and(|role| *role != acts_as) {
        return Err(refusal("the server does not let the session act as the role"));
    }
    if sessions.generations().is_revoked(&session) {
        return Err(refusal("its login was revoked while the session was made"));
    }
    let (settled, known) = {
        let generations = sessions.generations();
        (generations.are_settled(), generations.sessions().len())
    };
    if !settled {
        // Made with a former login, it may have become idle already.
        sessions.to_sweep.notify_one();
    }
    if known >= most.saturating_mul(2) {
        count(sessions, connection).await?;
    }
    Ok(())
}

fn refusal(reason: &'static str) -> Error {
    Error::Io(io::Error::new(io::ErrorKind::PermissionDenied, reason))
}
