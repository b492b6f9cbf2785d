//! sqlx's own pool, whose login rotates.
//!
//! sqlx has no seam in its connect, and keeps nothing of ours with a session. So a new login is tried by [`Logins`]
//! beside the pool, whose options are switched to it once the server has taken it; and sessions say by a setting of their
//! start-up message what they were made with.

mod error;
mod generation;
mod hooks;
mod options;
mod rotation;
mod sessions;
mod trial;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgPool;
use sqlx::pool::PoolConnectionMetadata;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};

pub use error::SqlxError;
pub use rotation::SqlxRotation;

use crate::attempt::{Attempts, Role};
use crate::credentials::Credentials;
use crate::logins::Logins;
use crate::sqlx::hooks::{Answer, Hooks};
use crate::sqlx::options::{Template, config};
use crate::sqlx::sessions::Sessions;
use crate::tls::{SslMode, Tls};

/// So long the sessions of a superseded login take to go, unless told otherwise.
const WINDOW: Duration = Duration::from_secs(10);

/// Makes a [`PgPool`] whose login rotates.
///
/// New sessions are made with the primary. A new one is tried once, in the place of one session, while the pool goes on
/// with the last that worked; see [`Login`](crate::Login) for the back-off. Sessions of a superseded login are closed at
/// their return, at their next use or when they are idle, each in its turn within the [window](Self::with_window); those
/// of a revoked one at once. No query is cut, and there are never more sessions than the pool may have.
///
/// ```no_run
/// # async fn query() -> Result<(), Box<dyn std::error::Error>> {
/// use keydir_postgres::{Credentials, SqlxLogin, SslMode};
/// use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
///
/// let credentials = Credentials::open("/run/secrets/db")?;
/// let anchors = keydir_rustls::TrustAnchors::open("/run/secrets/db-ca")?;
/// let options: PgConnectOptions = "postgres://db.example/shop".parse()?;
/// let (pool, _rotation) = SqlxLogin::new(options, &credentials, SslMode::VerifyFull(anchors))?
///     .role("shop_owner")
///     .connect(PgPoolOptions::new().max_connections(16))
///     .await?;
///
/// let wares: i64 = sqlx::query_scalar("SELECT count(*) FROM wares").fetch_one(&pool).await?;
/// println!("{wares} wares");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SqlxLogin {
    template: Template,
    attempts: Attempts,
    hooks: Hooks,
    window: Duration,
}

impl SqlxLogin {
    /// Logins to the server of these options. Their user, password, `sslmode` and root certificate do not count; all
    /// else does, a client certificate too where a revision has none.
    ///
    /// # Errors
    /// If there is no cryptography, or the mode is [`SslMode::VerifyCa`]; see [`SqlxError`].
    pub fn new(options: PgConnectOptions, credentials: &Credentials, mode: SslMode) -> Result<Self, SqlxError> {
        Ok(Self {
            attempts: Attempts {
                config: config(&options),
                credentials: credentials.clone(),
                tls: Tls::new(mode.clone(), false).map_err(SqlxError::NoProvider)?,
                role: Role::Login,
                tags: false,
            },
            template: Template::new(options, mode)?,
            hooks: Hooks::default(),
            window: WINDOW,
        })
    }

    /// Acts as this role, of which each login is a member; see [`Login::role`](crate::Login::role).
    pub fn role(mut self, role: impl Into<String>) -> Self {
        let role = role.into();
        self.attempts.role = Role::Option(role.clone());
        self.template.role = Some(role);
        self
    }

    /// Adds the revision to the `application_name`, after a slash, so that the server's own views tell it.
    pub fn tag_application_name(mut self) -> Self {
        self.attempts.tags = true;
        self.template.tags = true;
        self
    }

    /// The time within which the sessions of a login go that is no longer the primary, spread over it at random; 10 s
    /// without this.
    pub fn with_window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// As [`PgPoolOptions::after_connect`].
    pub fn after_connect<F>(mut self, hook: F) -> Self
    where
        F: for<'c> Fn(&'c mut PgConnection, PoolConnectionMetadata) -> Answer<'c, ()> + Send + Sync + 'static,
    {
        self.hooks.after_connect = Some(Arc::new(hook));
        self
    }

    /// As [`PgPoolOptions::before_acquire`]. Not asked about sessions that are closed for their login, but about one in
    /// whose place a login is tried.
    pub fn before_acquire<F>(mut self, hook: F) -> Self
    where
        F: for<'c> Fn(&'c mut PgConnection, PoolConnectionMetadata) -> Answer<'c, bool> + Send + Sync + 'static,
    {
        self.hooks.before_acquire = Some(Arc::new(hook));
        self
    }

    /// As [`PgPoolOptions::after_release`]. Not asked about sessions that are closed for their login, but about idle
    /// ones that were looked at.
    pub fn after_release<F>(mut self, hook: F) -> Self
    where
        F: for<'c> Fn(&'c mut PgConnection, PoolConnectionMetadata) -> Answer<'c, bool> + Send + Sync + 'static,
    {
        self.hooks.after_release = Some(Arc::new(hook));
        self
    }

    /// Makes the pool, once a login has worked. Set hooks here and not in these options: sqlx lets nobody see which there
    /// are, and those are replaced. `test_before_acquire` is replaced too, by a question that says as much.
    ///
    /// Must be called from within a tokio runtime with time and I/O enabled.
    ///
    /// # Errors
    /// If the server cannot be reached or refuses, or sqlx cannot connect.
    ///
    /// # Cancel safety
    /// May be dropped at any time; see [`Login::connect`](crate::Login::connect).
    pub async fn connect(self, options: PgPoolOptions) -> Result<(PgPool, SqlxRotation), SqlxError> {
        let Self {
            template,
            attempts,
            hooks,
            window,
        } = self;
        let logins = Logins::new(attempts);
        let key = logins.connect(false, None).await.map_err(SqlxError::Login)?.key;
        let sessions = Arc::new(Sessions::new(window, template.role.clone()));
        let anchors = template.anchors();
        let first = {
            let mut generations = sessions.generations();
            let first = template.options(&key, &anchors, generations.next_number())?;
            generations.begin(key, anchors, Instant::now());
            first
        };
        let pool = hooks.onto(options, &sessions).connect_with(first).await;
        let pool = pool.map_err(SqlxError::Sqlx)?;
        sessions.generations().are_made_with(&pool.connect_options());
        let rotation = SqlxRotation::spawn(pool.clone(), logins, template, sessions);
        Ok((pool, rotation))
    }
}

impl fmt::Debug for SqlxLogin {
    /// Without the options, whose own `Debug` prints the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlxLogin")
            .field("credentials", &self.attempts.credentials)
            .field("role", &self.attempts.role)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}
