//! Logging in with the primary, and with one other revision where the server refuses it.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use event_listener::Event;
use keydir::Key;
use keydir_rustls::NoProvider;
use tokio::time::timeout;
use tokio_postgres::config::SslNegotiation;
use tokio_postgres::{Client, Config};

use crate::attempt::{Attempts, Role};
use crate::credentials::Credentials;
use crate::error::{LoginError, Reason, Try};
use crate::lease::Lease;
use crate::refused::Refused;
use crate::tls::{SslMode, Tls};
use crate::tried::{Pick, Tried};
use crate::view::Credential;

/// So long others wait for somebody who tries a revision, at most.
const TRIAL: Duration = Duration::from_secs(30);

/// Makes connections to PostgreSQL with the logins of a directory. Cheap to clone; clones share what they know of the
/// revisions.
///
/// A connection is made with the primary. A revision that nobody has logged in with is tried once before others use it,
/// beside the requests as long as there is another that works; one that the server refuses is left alone for a second,
/// then two, and so on up to five minutes, and another takes its place meanwhile. After a refusal an attempt tries at
/// most one other revision, and only if the credential is the reason. What a connection was made with is known before it
/// is made, and stays with it.
///
/// Of several hosts and addresses the next is tried where no server answers or one has trouble of its own, as libpq does
/// it, not where one refuses the login.
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
    attempts: Arc<Attempts>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    known: Mutex<Known>,
    /// The end of every trial.
    ended: Event,
}

#[derive(Default)]
struct Known {
    tried: Tried<Credential>,
    /// How each revision was refused last.
    refusals: Vec<Try>,
    /// What the last trial failed with, if it was not for the credential.
    trouble: Option<Try>,
}

type Connected = Result<(Client, Lease), Try>;

impl Login {
    /// Logins to the server of this config. Its user, its password and its `ssl_mode` do not count; all else does.
    ///
    /// # Errors
    /// If there is no cryptography; see [`keydir_rustls::crypto_provider`].
    pub fn new(config: Config, credentials: &Credentials, mode: SslMode) -> Result<Self, NoProvider> {
        let tls = Tls::new(mode, config.get_ssl_negotiation() == SslNegotiation::Direct)?;
        Ok(Self {
            attempts: Arc::new(Attempts {
                config,
                credentials: credentials.clone(),
                tls,
                role: Role::Login,
                tags: false,
            }),
            shared: Arc::default(),
        })
    }

    /// Acts as this role, of which each login is a member, by the start-up option `-c role=`: so that nothing is ever
    /// owned by a login that rotates. The server refuses who is no member. Poolers such as PgBouncer do not pass the
    /// option on; see [`set_role`](Self::set_role).
    pub fn role(self, role: impl Into<String>) -> Self {
        self.acting(Role::Option(role.into()))
    }

    /// Likewise by `SET ROLE` after the login, and by asking whether it is so: one query more for each connection.
    pub fn set_role(self, role: impl Into<String>) -> Self {
        self.acting(Role::Set(role.into()))
    }

    /// What is known of the revisions does not hold for another role.
    fn acting(mut self, role: Role) -> Self {
        Arc::make_mut(&mut self.attempts).role = role;
        self.shared = Arc::default();
        self
    }

    /// Adds the revision to the `application_name`, after a slash, so that the server's own views tell it.
    pub fn tag_application_name(mut self) -> Self {
        Arc::make_mut(&mut self.attempts).tags = true;
        self
    }

    /// The logins.
    pub fn credentials(&self) -> &Credentials {
        &self.attempts.credentials
    }

    /// Makes a connection. Its own task, which is spawned here, says good-bye to the server when the client is dropped.
    ///
    /// Must be called from within a tokio runtime with time and I/O enabled.
    ///
    /// # Errors
    /// If the server cannot be reached or refuses; see [`LoginError`].
    ///
    /// # Cancel safety
    /// The attempt ends with the future, but the first one with a revision goes on by itself: what the server says to it
    /// is to be known.
    pub async fn connect(&self) -> Result<(Client, Lease), LoginError> {
        let mut tries = Vec::new();
        loop {
            let ended = self.shared.ended.listen();
            let usable = self.usable()?;
            let pick = self.shared.known().tried.pick(&usable, Instant::now());
            let connected = match pick {
                Pick::Use(key) => self.log_in(&key, false).await,
                Pick::UseAndTry(key, new) => {
                    self.try_beside(new);
                    self.log_in(&key, false).await
                }
                Pick::Try(key) => self.first_log_in(key).await,
                Pick::Wait => {
                    ended.await;
                    match self.shared.known().trouble.clone() {
                        Some(trouble) => Err(trouble),
                        None => continue,
                    }
                }
                Pick::Resting(again) if tries.is_empty() => {
                    let left = again.saturating_duration_since(Instant::now());
                    let refusals = self.shared.refusals(&usable);
                    return Err(LoginError::new(self.directory(), Reason::Resting(left), refusals));
                }
                Pick::Resting(_) => break,
            };
            match connected {
                Ok((client, lease)) if lease.stands() => return Ok((client, lease)),
                // Overtaken by a revocation, so that what is in force now counts.
                Ok(_) => {}
                Err(failed) => {
                    let may_go_on = tries.is_empty() && failed.refused.may_fall_back();
                    tries.push(failed);
                    if !may_go_on {
                        break;
                    }
                }
            }
        }
        Err(LoginError::new(self.directory(), Reason::Refused, tries))
    }

    /// Logs in, and remembers what came of it.
    async fn log_in(&self, key: &Arc<Key<Credential>>, is_first: bool) -> Connected {
        let connected = self.attempts.log_in(key, is_first).await;
        let mut known = self.shared.known();
        match &connected {
            Ok(_) => {
                known.tried.worked(key);
                key.touch();
            }
            Err(failed) => {
                if known.tried.failed(key, failed.refused, Instant::now()) {
                    known.refusals.retain(|other| other.revision != failed.revision);
                    known.refusals.push(failed.clone());
                    tracing::warn!(
                        revision = %failed.revision,
                        error = %failed.error,
                        "the login was refused and is left alone for a while"
                    );
                }
            }
        }
        connected
    }

    /// Logs in with a revision that the caller has begun to try. It goes on also if nobody waits for it: else a caller of
    /// little patience would send a wrong password again and again, and never hear so.
    fn first_log_in(&self, key: Arc<Key<Credential>>) -> impl Future<Output = Connected> + Send + 'static {
        let id = key.id().clone();
        let broken_off = Try::new(&id, Refused::Other, "it was broken off");
        let mut trial = Trial {
            login: self.clone(),
            key,
            trouble: Some(broken_off.clone()),
        };
        let task = tokio::spawn(async move {
            let connected = timeout(TRIAL, trial.login.log_in(&trial.key, true)).await;
            let connected =
                connected.unwrap_or_else(|_| Err(Try::new(&id, Refused::Other, "the server does not answer")));
            trial.came_to(&connected);
            connected
        });
        async move { task.await.unwrap_or(Err(broken_off)) }
    }

    /// Tries a revision while requests go on with another.
    fn try_beside(&self, key: Arc<Key<Credential>>) {
        let id = key.id().clone();
        let first = self.first_log_in(key);
        tokio::spawn(async move {
            // The client is dropped, which says good-bye.
            match first.await {
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
        let set = self.attempts.credentials.live().load();
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
        self.attempts.credentials.live().dir().path()
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How those were refused last that are left alone.
    fn refusals(&self, usable: &[Arc<Key<Credential>>]) -> Vec<Try> {
        let refusals = &mut self.known().refusals;
        refusals.retain(|failed| usable.iter().any(|key| *key.id() == failed.revision));
        refusals.clone()
    }
}

/// A revision that is being tried. Others are told of the end, however it comes.
struct Trial {
    login: Login,
    key: Arc<Key<Credential>>,
    trouble: Option<Try>,
}

impl Trial {
    fn came_to(&mut self, connected: &Connected) {
        let failed = connected.as_ref().err();
        self.trouble = failed.filter(|failed| !failed.refused.may_fall_back()).cloned();
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let mut known = self.login.shared.known();
        known.tried.ended(&self.key, Instant::now());
        known.trouble = self.trouble.take();
        drop(known);
        self.login.shared.ended.notify(usize::MAX);
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("credentials", &self.attempts.credentials)
            .field("role", &self.attempts.role)
            .finish_non_exhaustive()
    }
}
