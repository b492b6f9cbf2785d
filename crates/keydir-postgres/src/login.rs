//! Logging in with the primary, and with one other revision where the server refuses it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use event_listener::Event;
use keydir::Key;
use keydir_rustls::NoProvider;
use tokio_postgres::config::{Host, SslNegotiation};
use tokio_postgres::{Client, Config};

use crate::attempt::{Attempt, Role};
use crate::credentials::Credentials;
use crate::error::{LoginError, Reason, Try};
use crate::lease::Lease;
use crate::refused::Refused;
use crate::tls::{SslMode, Tls};
use crate::tried::{Pick, Tried};
use crate::view::Credential;

/// Makes connections to PostgreSQL with the logins of a directory. Cheap to clone; clones share what they know of the
/// revisions.
///
/// A connection is made with the primary. A revision that nobody has logged in with is tried once before others use it,
/// beside the requests as long as there is another that works; one that the server refuses is left alone for a second,
/// then two, and so on up to five minutes, and another takes its place meanwhile. After a refusal an attempt tries at
/// most one other revision, and only if the credential is the reason. What a connection was made with is known before it
/// is made, and stays with it.
///
/// ```no_run
/// # async fn query() -> Result<(), Box<dyn std::error::Error>> {
/// use keydir_postgres::{Credentials, Login, SslMode};
///
/// let credentials = Credentials::open("/run/secrets/db")?;
/// let anchors = keydir_rustls::TrustAnchors::open("/run/secrets/db-ca")?;
/// let config: tokio_postgres::Config = "host=db.example dbname=shop".parse()?;
/// let login = Login::new(config, &credentials, SslMode::VerifyFull(anchors))?.role("shop_owner");
///
/// let (client, lease) = login.connect().await?;
/// client.query("SELECT 1", &[]).await?;
/// println!("logged in with {}", lease.revision());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Login {
    shared: Arc<Shared>,
    role: Role,
    tags: bool,
}

struct Shared {
    config: Config,
    credentials: Credentials,
    tls: Tls,
    tried: Mutex<Tried<Credential>>,
    /// How each revision was refused last.
    refusals: Mutex<Vec<Try>>,
    /// The end of every trial.
    ended: Event,
}

impl Login {
    /// Logins to the server of this config. Its user, its password and its `ssl_mode` do not count; all else does.
    ///
    /// # Errors
    /// If there is no cryptography; see [`keydir_rustls::crypto_provider`].
    pub fn new(config: Config, credentials: &Credentials, mode: SslMode) -> Result<Self, NoProvider> {
        let tls = Tls::new(mode, config.get_ssl_negotiation() == SslNegotiation::Direct)?;
        Ok(Self {
            shared: Arc::new(Shared {
                config: seen_by_us(config),
                credentials: credentials.clone(),
                tls,
                tried: Mutex::default(),
                refusals: Mutex::default(),
                ended: Event::new(),
            }),
            role: Role::Login,
            tags: false,
        })
    }

    /// Acts as this role, of which each login is a member, by the start-up option `-c role=`: so that nothing is ever
    /// owned by a login that rotates. The server refuses who is no member. Poolers such as PgBouncer do not pass the
    /// option on; see [`set_role`](Self::set_role).
    pub fn role(mut self, role: impl Into<String>) -> Self {
        self.role = Role::Option(role.into());
        self
    }

    /// Likewise by `SET ROLE` after the login, and by asking whether it is so: one query more for each connection.
    pub fn set_role(mut self, role: impl Into<String>) -> Self {
        self.role = Role::Set(role.into());
        self
    }

    /// Adds the revision to the `application_name`, after a slash, so that the server's own views tell it.
    pub fn tag_application_name(mut self) -> Self {
        self.tags = true;
        self
    }

    /// The logins.
    pub fn credentials(&self) -> &Credentials {
        &self.shared.credentials
    }

    /// Makes a connection. Its own task, which is spawned here, says good-bye to the server when the client is dropped.
    ///
    /// Must be called from within a tokio runtime with time and I/O enabled.
    ///
    /// # Errors
    /// If the server cannot be reached or refuses; see [`LoginError`].
    ///
    /// # Cancel safety
    /// The attempt ends with the future; the server may count it as a login that was broken off.
    pub async fn connect(&self) -> Result<(Client, Lease), LoginError> {
        loop {
            let ended = self.shared.ended.listen();
            let usable = self.usable()?;
            let pick = self.shared.tried().pick(&usable, Instant::now());
            match pick {
                Pick::Use(key) | Pick::Try(key) => return self.log_in(&usable, Turn::new(self, key)).await,
                Pick::UseAndTry(key, new) => {
                    self.try_beside(Turn::new(self, new));
                    return self.log_in(&usable, Turn::new(self, key)).await;
                }
                Pick::Wait => ended.await,
                Pick::Resting(again) => {
                    let left = again.saturating_duration_since(Instant::now());
                    let refusals = self.shared.refusals(&usable);
                    return Err(LoginError::new(self.directory(), Reason::Resting(left), refusals));
                }
            }
        }
    }

    /// Logs in with a revision, and if that is refused with one other.
    async fn log_in(&self, usable: &[Arc<Key<Credential>>], turn: Turn) -> Result<(Client, Lease), LoginError> {
        let first = Arc::clone(&turn.key);
        let mut tries = Vec::new();
        match turn.take().await {
            Ok(connected) => return Ok(connected),
            Err(failed) => tries.push(failed),
        }
        let may_fall_back = tries.iter().all(|failed| failed.refused.may_fall_back());
        let other = may_fall_back
            .then(|| self.shared.tried().other(usable, &first, Instant::now()))
            .flatten();
        if let Some(other) = other {
            tracing::warn!(revision = %other.id(), instead_of = %first.id(), "logging in with another revision");
            match Turn::new(self, other).take().await {
                Ok(connected) => return Ok(connected),
                Err(failed) => tries.push(failed),
            }
        }
        Err(LoginError::new(self.directory(), Reason::Refused, tries))
    }

    /// Tries a revision while requests go on with another.
    fn try_beside(&self, turn: Turn) {
        tokio::spawn(async move {
            let id = turn.key.id().clone();
            // The client is dropped, which says good-bye.
            match turn.take().await {
                Ok(_) => tracing::info!(revision = %id, "the server takes the new login"),
                Err(failed) => tracing::warn!(
                    revision = %id,
                    error = %failed.error,
                    "the server does not take the new login, so the last one goes on"
                ),
            }
        });
    }

    /// The primary, then what may be tried in its place, the last in natural order first.
    fn usable(&self) -> Result<Vec<Arc<Key<Credential>>>, LoginError> {
        let set = self.shared.credentials.live().load();
        let primary = set
            .primary()
            .map_err(|reason| LoginError::new(self.directory(), Reason::NoPrimary(reason.clone()), Vec::new()))?;
        let may_stand_in = |key: &&Arc<Key<Credential>>| {
            let inside = set.state(key).is_some_and(|state| !state.pending && !state.expired);
            inside && key.id() != primary.id()
        };
        let mut usable: Vec<_> = set.iter().filter(may_stand_in).cloned().collect();
        usable.push(Arc::clone(primary));
        usable.reverse();
        Ok(usable)
    }

    fn directory(&self) -> &str {
        self.shared.credentials.live().dir().path()
    }
}

impl Shared {
    fn tried(&self) -> MutexGuard<'_, Tried<Credential>> {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How those were refused last that are left alone.
    fn refusals(&self, usable: &[Arc<Key<Credential>>]) -> Vec<Try> {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.retain(|failed| usable.iter().any(|key| *key.id() == failed.revision));
        refusals.clone()
    }

    fn refused(&self, failed: &Try) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.retain(|other| other.revision != failed.revision);
        refusals.push(failed.clone());
    }
}

/// One attempt with one revision. What comes of it is told to the others, also if it is broken off.
struct Turn {
    login: Login,
    key: Arc<Key<Credential>>,
    told: bool,
}

impl Turn {
    fn new(login: &Login, key: Arc<Key<Credential>>) -> Self {
        Self {
            login: login.clone(),
            key,
            told: false,
        }
    }

    async fn take(mut self) -> Result<(Client, Lease), Try> {
        let Login { shared, role, tags } = &self.login;
        let attempt = Attempt {
            config: &shared.config,
            tls: &shared.tls,
            set: shared.credentials.live().snapshot(),
            key: &self.key,
            role,
            tags: *tags,
        };
        match attempt.connect().await {
            Ok(connected) => {
                shared.tried().worked(&self.key);
                self.key.touch();
                self.told = true;
                Ok(connected)
            }
            Err(failed) => {
                if shared.tried().failed(&self.key, failed.refused, Instant::now()) {
                    shared.refused(&failed);
                    tracing::warn!(
                        revision = %failed.revision,
                        error = %failed.error,
                        "the login was refused and is left alone for a while"
                    );
                }
                self.told = true;
                Err(failed)
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.told {
            self.login
                .shared
                .tried()
                .failed(&self.key, Refused::Other, Instant::now());
        }
        self.login.shared.ended.notify(usize::MAX);
    }
}

/// Has tokio-postgres hand over each connection at once, and gives each host a name, without which it would not. A Unix
/// socket has none, and needs nothing.
fn seen_by_us(mut config: Config) -> Config {
    use tokio_postgres::config::SslMode;
    let is_tcp = |host: &Host| matches!(host, Host::Tcp(_));
    if config.get_hosts().is_empty() {
        for address in config.get_hostaddrs().to_vec() {
            config.host(address.to_string());
        }
    }
    if config.get_hosts().iter().any(is_tcp) {
        config
            .ssl_mode(SslMode::Require)
            .ssl_negotiation(SslNegotiation::Direct);
    } else {
        config.ssl_mode(SslMode::Disable);
    }
    config
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("credentials", &self.shared.credentials)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}
