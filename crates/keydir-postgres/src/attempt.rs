//! One attempt to log in with one revision.

use std::future::poll_fn;
use std::sync::Arc;

use keydir::{Key, Secret};
use tokio::sync::mpsc::UnboundedSender;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, SimpleQueryMessage, Socket};

use crate::credentials::Credentials;
use crate::error::Try;
use crate::hosts::{addresses, hosts};
use crate::refused::Refused;
use crate::stream::PgStream;
use crate::tls::{PostgresTls, Tls};
use crate::view::Credential;

/// PostgreSQL cuts a longer `application_name` (NAMEDATALEN).
const MAX_NAME: usize = 63;

/// As whom a session acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// As the login itself.
    Login,
    /// As this role, by `-c role=` at the start.
    Option(String),
    /// As this role, by `SET ROLE`.
    Set(String),
}

/// A session that has just been made.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) key: Arc<Key<Credential>>,
    pub(crate) tls: PostgresTls,
}

impl Session {
    /// Whether nothing that it was made with was revoked meanwhile.
    pub(crate) fn stands(&self) -> bool {
        self.key.stands() && self.tls.stands()
    }
}

/// Where the server's own messages go.
pub(crate) type Messages = UnboundedSender<AsyncMessage>;

/// How connections are to be made.
#[derive(Clone)]
pub(crate) struct Attempts {
    pub(crate) config: Config,
    pub(crate) credentials: Credentials,
    pub(crate) tls: Tls,
    pub(crate) role: Role,
    pub(crate) tags: bool,
}

impl Attempts {
    /// Logs in with this revision, at the first address where a server answers. The first of a revision asks whether
    /// the role was taken, whatever way it was asked for.
    pub(crate) async fn log_in(
        &self,
        key: &Arc<Key<Credential>>,
        is_first: bool,
        messages: Option<Messages>,
    ) -> Result<Session, Try> {
        // Counted before it is presented: whoever sees no use of a revision may take it away.
        let used = key.hold();
        let (session, mut connection) = self.connect(key).await?;
        tokio::spawn(async move {
            // Why it ended, whoever uses it is told.
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                match &messages {
                    Some(messages) => drop(messages.send(message)),
                    None => log(&message),
                }
            }
            drop(used);
        });
        let client = &session.client;
        let acts = match &self.role {
            Role::Set(role) => acts_as(role, client, &format!("SET ROLE {};", quoted(role))).await,
            Role::Option(role) if is_first => acts_as(role, client, "").await,
            Role::Option(_) | Role::Login => return Ok(session),
        };
        match acts {
            Ok(true) => Ok(session),
            Ok(false) => Err(Try::new(
                key.id(),
                Refused::Privilege,
                "the server does not let it act as the role",
            )),
            Err(error) => Err(Try::new(key.id(), Refused::by(&error), error)),
        }
    }

    async fn connect(&self, key: &Arc<Key<Credential>>) -> Result<(Session, Connection<Socket, PgStream>), Try> {
        let mut last = Try::new(key.id(), Refused::Other, "there is no host to connect to");
        for host in hosts(&self.config) {
            let addresses = match addresses(host).await {
                Ok(addresses) => addresses,
                Err(error) => {
                    last = Try::new(key.id(), Refused::Other, error);
                    continue;
                }
            };
            for mut config in addresses {
                self.present(key, &mut config);
                let tls = self.tls.with_certificate(key.certificate());
                let tls = tls.map_err(|error| Try::new(key.id(), Refused::Other, error))?;
                match config.connect(tls.clone()).await {
                    Ok((client, connection)) => {
                        let key = Arc::clone(key);
                        return Ok((Session { client, key, tls }, connection));
                    }
                    Err(error) => last = Try::new(key.id(), Refused::by(&error), error),
                }
                if last.refused != Refused::Other {
                    return Err(last);
                }
            }
        }
        Err(last)
    }

    fn present(&self, key: &Key<Credential>, config: &mut Config) {
        config.user(key.user());
        // Without any, tokio-postgres would not tell the server, which then could not refuse.
        config.password(key.password().map(Secret::expose).unwrap_or_default());
        if let Role::Option(role) = &self.role {
            let before = config.get_options().map(|options| format!("{options} "));
            config.options(format!("{}-c role={}", before.unwrap_or_default(), escaped(role)));
        }
        if self.tags {
            let name = config.get_application_name().unwrap_or("keydir");
            config.application_name(tagged(name, key.id().as_str()));
        }
    }
}

/// As tokio-postgres does it where nobody asks for messages.
fn log(message: &AsyncMessage) {
    if let AsyncMessage::Notice(notice) = message {
        tracing::info!("{}: {}", notice.severity(), notice.message());
    }
}

/// In one message, so that a pooler does not take the two for two sessions' work.
async fn acts_as(role: &str, client: &Client, first: &str) -> Result<bool, tokio_postgres::Error> {
    let answers = client.simple_query(&format!("{first} SELECT current_user")).await?;
    let user = answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten(),
        _ => None,
    });
    Ok(user == Some(role))
}

/// The revision after a slash. It is the name that has to give way.
pub(crate) fn tagged(name: &str, revision: &str) -> String {
    let room = MAX_NAME.saturating_sub(revision.len() + 1);
    let fits = |(start, c): &(usize, char)| start + c.len_utf8() <= room;
    let name: String = name.char_indices().take_while(fits).map(|(_, c)| c).collect();
    format!("{name}/{revision}")
}

/// An identifier in SQL.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A value in the start-up options, where blanks divide and a backslash takes that away (libpq documentation,
/// `options`).
fn escaped(value: &str) -> String {
    let mut escaped = String::new();
    for c in value.chars() {
        // As `isspace` of C has it, vertical tab included.
        if c == '\\' || c.is_ascii_whitespace() || c == '\x0b' {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_themselves() {
        assert_eq!(quoted("a\"; DROP TABLE b"), "\"a\"\"; DROP TABLE b\"");
        assert_eq!(escaped("my role\\ -c x=y"), "my\\ role\\\\\\ -c\\ x=y");
    }

    #[test]
    fn the_revision_has_room_in_the_name() {
        assert_eq!(tagged("shop", "r2"), "shop/r2");
        assert_eq!(
            tagged(&"é".repeat(40), "2026.11"),
            format!("{}/2026.11", "é".repeat(27))
        );
        assert_eq!(tagged("shop", &"r".repeat(70)), format!("/{}", "r".repeat(70)));
    }
}
