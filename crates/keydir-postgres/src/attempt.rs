//! One attempt to log in with one revision.

use std::sync::Arc;

use keydir::{Key, KeySet};
use tokio_postgres::{Client, Config};

use crate::error::Try;
use crate::lease::Lease;
use crate::refused::Refused;
use crate::tls::Tls;
use crate::view::{Credential, CredentialsView};

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

pub(crate) struct Attempt<'a> {
    pub(crate) config: &'a Config,
    pub(crate) tls: &'a Tls,
    pub(crate) set: Arc<KeySet<CredentialsView>>,
    pub(crate) key: &'a Arc<Key<Credential>>,
    pub(crate) role: &'a Role,
    pub(crate) tags: bool,
}

impl Attempt<'_> {
    pub(crate) async fn connect(self) -> Result<(Client, Lease), Try> {
        // Counted before it is presented: whoever sees no use of a revision may take it away.
        let used = self.key.hold();
        let fail = |refused, error: Box<dyn std::error::Error + Send + Sync>| Try {
            revision: self.key.id().clone(),
            refused,
            error: error.into(),
        };
        let refused = |error: tokio_postgres::Error| fail(Refused::by(&error), error.into());
        let needed = |certificate: &Arc<_>| {
            let own = |key: &Arc<Key<Credential>>| key.certificate().is_some_and(|own| Arc::ptr_eq(own, certificate));
            self.set.iter().any(own)
        };
        let tls = self.tls.with_certificate(self.key.certificate(), needed);
        let tls = tls.map_err(|error| fail(Refused::Other, error.into()))?;
        let (client, connection) = self.config().connect(tls.clone()).await.map_err(refused)?;
        let lease = Lease::new(Arc::clone(self.key), tls);
        tokio::spawn(async move {
            // Why it ended, whoever uses it is told.
            let _ = connection.await;
            drop(used);
        });
        if let Role::Set(role) = self.role {
            client
                .batch_execute(&format!("SET ROLE {}", quoted(role)))
                .await
                .map_err(refused)?;
            let row = client
                .query_one("SELECT current_user::text", &[])
                .await
                .map_err(refused)?;
            if row.get::<_, &str>(0) != role {
                let error = format!("SET ROLE {role} has no effect");
                return Err(fail(Refused::Privilege, error.into()));
            }
        }
        Ok((client, lease))
    }

    fn config(&self) -> Config {
        let mut config = self.config.clone();
        config.user(self.key.user());
        match self.key.password() {
            Some(password) => config.password(password.expose()),
            None => config.password(""),
        };
        if let Role::Option(role) = self.role {
            let before = config
                .get_options()
                .map(|options| format!("{options} "))
                .unwrap_or_default();
            config.options(format!("{before}-c role={}", escaped(role)));
        }
        if self.tags {
            let name = config.get_application_name().unwrap_or("keydir").to_owned();
            config.application_name(format!("{name}/{}", self.key.id()));
        }
        config
    }
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
        if c == '\\' || c.is_ascii_whitespace() {
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
}
