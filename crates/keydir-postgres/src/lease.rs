//! What one session was logged in with, and whether that still stands.

use std::fmt;
use std::future::{Future, pending};
use std::sync::Arc;

use keydir::{Key, RevisionId};
use keydir_rustls::Connection;

use crate::attempt::Attempts;
use crate::logins::Logins;
use crate::tls::PostgresTls;
use crate::view::Credential;

/// What a connection was logged in with: decided before it was made, so that it is never mistaken for another. Cheap to
/// clone, and may be kept longer than the client.
#[derive(Clone)]
pub struct Lease {
    key: Arc<Key<Credential>>,
    tls: PostgresTls,
    logins: Arc<Logins>,
}

impl Lease {
    pub(crate) fn new(key: Arc<Key<Credential>>, tls: PostgresTls, logins: Arc<Logins>) -> Self {
        Self { key, tls, logins }
    }

    /// The revision.
    pub fn revision(&self) -> &RevisionId {
        self.key.id()
    }

    /// The login itself.
    pub fn key(&self) -> &Arc<Key<Credential>> {
        &self.key
    }

    /// What TLS rests on: who vouches for the server; `None` without verified TLS.
    pub fn connection(&self) -> Option<&Connection> {
        self.tls.connection()
    }

    /// What cancel requests of this session go over: `client.cancel_token().cancel_query(lease.tls())`. Ask for it each
    /// time: once the session's own certificate is revoked or has expired, the primary's is shown.
    pub fn tls(&self) -> PostgresTls {
        let Attempts { credentials, tls, .. } = &self.logins.attempts;
        let now = credentials.live().dir().clock().now();
        let inside = self.key.pieces().iter().all(|piece| piece.is_valid_at(now));
        if self.key.stands() && inside {
            return self.tls.afresh();
        }
        let primary = credentials.primary().ok();
        let tls = primary.and_then(|key| tls.with_certificate(key.certificate()).ok());
        tls.unwrap_or_else(|| self.tls.afresh())
    }

    /// Whether new connections would be made with another login: the primary is another, and the server has taken it. It
    /// is time to let this one go, after its work. Not so where the new primary was refused, and this login goes on.
    pub fn is_superseded(&self) -> bool {
        self.logins.is_superseded(&self.key)
    }

    /// Resolves when the lease [is superseded](Self::is_superseded). While somebody waits for it, a new primary is tried
    /// though nobody connects.
    ///
    /// Must be awaited within a tokio runtime with time and I/O enabled.
    ///
    /// # Cancel safety
    /// May be dropped and asked for again at any time; nothing is missed.
    pub fn superseded(&self) -> impl Future<Output = ()> + Send + 'static {
        Arc::clone(&self.logins).superseded(Arc::clone(&self.key))
    }

    /// Whether neither the login nor, with verified TLS, what vouches for the server was revoked. A session that does
    /// not stand goes on until its holder ends it; the server does not know.
    pub fn stands(&self) -> bool {
        self.key.stands() && self.tls.stands()
    }

    /// Resolves when the lease does not [stand](Self::stands) any more.
    ///
    /// # Cancel safety
    /// May be dropped and asked for again at any time; nothing is missed.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let login = self.key.ended();
        let server = self.connection().map(Connection::ended);
        async move {
            let server = async {
                match server {
                    Some(ended) => drop(ended.await),
                    None => pending().await,
                }
            };
            tokio::select! {
                () = login => {}
                () = server => {}
            }
        }
    }

    /// Ends the session, on which nothing is under way.
    #[cfg(feature = "_pool")]
    pub(crate) fn end(&self) {
        self.tls.end();
    }

    /// Whether anything was sent since this was asked last.
    #[cfg(feature = "bb8")]
    pub(crate) fn was_used(&self) -> bool {
        self.tls.was_used()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("revision", self.revision())
            .field("stands", &self.stands())
            .finish_non_exhaustive()
    }
}
