//! Logging in with the primary, and with one other revision where the server refuses it.

use std::fmt;
use std::sync::Arc;

use keydir::Key;
use keydir_rustls::NoProvider;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_postgres::config::SslNegotiation;
use tokio_postgres::{AsyncMessage, Client, Config};

use crate::attempt::{Attempts, Role, Session};
use crate::credentials::Credentials;
use crate::error::LoginError;
use crate::lease::Lease;
use crate::logins::Logins;
use crate::tls::{SslMode, Tls};
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
pub struct Login(Arc<Logins>);

impl Login {
    /// Logins to the server of this config. Its user, its password and its `ssl_mode` do not count; all else does.
    ///
    /// # Errors
    /// If there is no cryptography; see [`keydir_rustls::crypto_provider`].
    pub fn new(config: Config, credentials: &Credentials, mode: SslMode) -> Result<Self, NoProvider> {
        let tls = Tls::new(mode, config.get_ssl_negotiation() == SslNegotiation::Direct)?;
        Ok(Self(Logins::new(Attempts {
            config,
            credentials: credentials.clone(),
            tls,
            role: Role::Login,
            tags: false,
        })))
    }

    /// Acts as this role, of which each login is a member, by the start-up option `-c role=`: so that nothing is ever
    /// owned by a login that rotates. The server refuses who is no member. Poolers such as PgBouncer do not pass the
    /// option on; see [`set_role`](Self::set_role).
    pub fn role(self, role: impl Into<String>) -> Self {
        self.with(|attempts| attempts.role = Role::Option(role.into()))
    }

    /// Likewise by `SET ROLE` after the login, and by asking whether it is so: one query more for each connection.
    pub fn set_role(self, role: impl Into<String>) -> Self {
        self.with(|attempts| attempts.role = Role::Set(role.into()))
    }

    /// Adds the revision to the `application_name`, after a slash, so that the server's own views tell it.
    pub fn tag_application_name(self) -> Self {
        self.with(|attempts| attempts.tags = true)
    }

    fn with(self, change: impl FnOnce(&mut Attempts)) -> Self {
        let mut attempts = self.0.attempts.clone();
        change(&mut attempts);
        Self(Logins::new(attempts))
    }

    /// The logins.
    pub fn credentials(&self) -> &Credentials {
        &self.0.attempts.credentials
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
        Ok(self.leased(self.0.connect(true, None).await?))
    }

    /// Likewise, with all that the server says of its own accord: notifications of `LISTEN`, and notices. It waits in
    /// memory until it is taken.
    ///
    /// ```no_run
    /// # async fn listen(login: keydir_postgres::Login) -> Result<(), Box<dyn std::error::Error>> {
    /// use tokio_postgres::AsyncMessage;
    ///
    /// loop {
    ///     let (client, lease, mut messages) = login.connect_with_messages().await?;
    ///     client.batch_execute("LISTEN orders").await?;
    ///     loop {
    ///         tokio::select! {
    ///             message = messages.recv() => match message {
    ///                 Some(AsyncMessage::Notification(order)) => println!("{}", order.payload()),
    ///                 Some(_) => {}
    ///                 None => break,
    ///             },
    ///             // Whoever must not miss any makes the next one first.
    ///             () = lease.superseded() => break,
    ///             () = lease.ended() => break,
    ///         }
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    /// As [`connect`](Self::connect).
    pub async fn connect_with_messages(&self) -> Result<(Client, Lease, UnboundedReceiver<AsyncMessage>), LoginError> {
        let (into, messages) = unbounded_channel();
        let (client, lease) = self.leased(self.0.connect(true, Some(into)).await?);
        Ok((client, lease, messages))
    }

    /// Whether the server takes this revision.
    pub(crate) fn works(&self, key: &Arc<Key<Credential>>) -> bool {
        self.0.works(key)
    }

    /// A session with its lease.
    pub(crate) fn leased(&self, session: Session) -> (Client, Lease) {
        let lease = Lease::new(session.key, session.tls, Arc::clone(&self.0));
        (session.client, lease)
    }

    /// With what is known already.
    #[cfg(feature = "sqlx")]
    pub(crate) fn of(logins: Arc<Logins>) -> Self {
        Self(logins)
    }

    #[cfg(feature = "_pool")]
    pub(crate) fn logins(&self) -> &Arc<Logins> {
        &self.0
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("credentials", self.credentials())
            .field("role", &self.0.attempts.role)
            .finish_non_exhaustive()
    }
}
