//! Whether a login may be taken away.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use keydir::{Key, RevisionId};
use tokio_postgres::Client;

use crate::login::Login;
use crate::view::Credential;

/// Sessions of a role by its number, since one that was dropped has no name any more, while its sessions go on; and whether
/// there is such a role.
const SESSIONS: &str = "
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1),
       (SELECT count(*) FROM pg_stat_activity JOIN pg_roles ON oid = usesysid WHERE rolname = $1),
       (SELECT count(*) FROM pg_stat_activity WHERE usesysid IS NOT NULL AND usesysid NOT IN (SELECT oid FROM pg_roles))";

impl Login {
    /// Whether nobody uses this revision any more, so that its role may be taken away and its files too: another is the
    /// primary and works, nobody here connects with it, and the server has no session of it, of any process and in any
    /// database. The question is asked over `client`, a session of this login; it needs no right.
    ///
    /// ```no_run
    /// # async fn retire(login: keydir_postgres::Login) -> Result<(), Box<dyn std::error::Error>> {
    /// let (client, _) = login.connect().await?;
    /// match login.safe_to_retire("r1", &client).await {
    ///     Ok(()) => println!("r1 may go"),
    ///     Err(reason) => println!("not yet: {reason}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Another process that does not know the new primary yet may log in with the old one right after; that all know it,
    /// their reports tell.
    ///
    /// # Errors
    /// The reason why not, or why nobody knows.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn safe_to_retire(&self, id: &str, client: &Client) -> Result<(), NotSafe> {
        let snapshot = self.credentials().live().snapshot();
        let key = snapshot.get(id).ok_or(NotSafe::NoRevision)?;
        match snapshot.primary() {
            Ok(primary) if primary.id() == key.id() => return Err(NotSafe::Primary),
            Ok(primary) if self.works(primary) => {}
            _ => return Err(NotSafe::PrimaryUntried),
        }
        let same_user = |other: &&Arc<Key<Credential>>| other.id() != key.id() && other.user() == key.user();
        if let Some(other) = snapshot.iter().find(same_user) {
            return Err(NotSafe::SameUser(other.id().clone()));
        }
        let used = self.credentials().live().dir().report();
        match used.sets.iter().map(|set| set.uses(id)).sum() {
            0 => {}
            uses => return Err(NotSafe::UsedHere(uses)),
        }
        let (exists, sessions, nameless) = sessions_of(key.user(), client).await.map_err(NotSafe::Unknown)?;
        match (exists, sessions, nameless) {
            (_, 1.., _) => Err(NotSafe::Sessions(sessions)),
            (false, _, 1..) => Err(NotSafe::Nameless(nameless)),
            _ => Ok(()),
        }
    }
}

async fn sessions_of(user: &str, client: &Client) -> Result<(bool, i64, i64), tokio_postgres::Error> {
    let row = client.query_one(SESSIONS, &[&user]).await?;
    Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
}

/// Why a login may not be taken away yet.
#[derive(Debug)]
#[non_exhaustive]
pub enum NotSafe {
    /// There is no such revision in the directory.
    NoRevision,
    /// It is what new sessions are made with.
    Primary,
    /// The server has not taken the primary yet, so that this one may be needed.
    PrimaryUntried,
    /// This other revision has the same user, so that the server cannot tell their sessions apart.
    SameUser(RevisionId),
    /// So many sessions of this process, or attempts to make one, rest on it.
    UsedHere(usize),
    /// The server has so many sessions of its role.
    Sessions(i64),
    /// Its role was dropped already, and the server has so many sessions of dropped roles, which may be its.
    Nameless(i64),
    /// The server did not say.
    Unknown(tokio_postgres::Error),
}

impl fmt::Display for NotSafe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRevision => f.write_str("there is no such revision in the directory"),
            Self::Primary => f.write_str("it is what new sessions are made with: promote another first"),
            Self::PrimaryUntried => f.write_str("the server has not taken the primary yet"),
            Self::SameUser(other) => write!(f, "{other} has the same user: their sessions cannot be told apart"),
            Self::UsedHere(uses) => write!(f, "{uses} sessions of this process rest on it"),
            Self::Sessions(sessions) => write!(f, "the server has {sessions} sessions of its role"),
            Self::Nameless(sessions) => write!(
                f,
                "its role was dropped, and the server has {sessions} sessions of dropped roles: end them with \
                 pg_terminate_backend"
            ),
            Self::Unknown(_) => f.write_str("the server did not say who is logged in"),
        }
    }
}

impl Error for NotSafe {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unknown(error) => Some(error),
            _ => None,
        }
    }
}
