//! How a directory is read as logins: a user with a password, a certificate, or both, always of one revision.

use std::fmt;
use std::sync::Arc;

use keydir::{Broken, Candidates, Parsed, Revision, Secret, Unusable, Usage, View, uses};
use keydir_rustls::IdentityView;
use keydir_rustls::rustls::crypto::CryptoProvider;
use keydir_rustls::rustls::sign::CertifiedKey;

#[cfg(feature = "sqlx")]
use crate::pem::Pem;

/// PostgreSQL cuts longer names without a word (NAMEDATALEN).
const MAX_USER: usize = 63;

/// A password, and perhaps a certificate beside it.
const PASSWORD: Usage = uses::PASSWORD_LOGIN
    .other(&["username", "crt", "key"])
    .private(&["password", "key"]);

/// Reads a directory as logins. [`Credentials`](crate::Credentials) makes it.
pub struct CredentialsView {
    usage: Usage,
    certificates: IdentityView,
}

impl CredentialsView {
    pub(crate) fn passwords(provider: Arc<CryptoProvider>) -> Self {
        Self::new(PASSWORD, provider)
    }

    pub(crate) fn certificates(provider: Arc<CryptoProvider>) -> Self {
        Self::new(uses::CERTIFICATE_LOGIN, provider)
    }

    fn new(usage: Usage, provider: Arc<CryptoProvider>) -> Self {
        Self {
            usage,
            certificates: IdentityView::new(provider),
        }
    }
}

/// What one revision logs in with.
pub struct Credential {
    user: String,
    password: Option<Secret>,
    certificate: Option<Arc<CertifiedKey>>,
    #[cfg(feature = "sqlx")]
    pem: Option<Pem>,
}

impl Credential {
    /// The user's name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password; `None` for a login by certificate.
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// The certificate, as rustls presents it.
    pub fn certificate(&self) -> Option<&Arc<CertifiedKey>> {
        self.certificate.as_ref()
    }

    /// The certificate and its key for those who read PEM by themselves.
    #[cfg(feature = "sqlx")]
    pub(crate) fn pem(&self) -> Option<&Pem> {
        self.pem.as_ref()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("user", &self.user)
            .field("password", &self.password)
            .field("certificate", &self.certificate.is_some())
            .finish()
    }
}

impl View for CredentialsView {
    type Item = Credential;
    type Whole = ();

    fn usage(&self) -> &Usage {
        &self.usage
    }

    fn parse(&self, revision: &Revision<'_>) -> Result<Parsed<Credential>, Unusable> {
        let user = user(revision)?;
        let password = revision.part("password").map(Secret::from);
        let identity = match (revision.part("crt"), revision.part("key")) {
            (None, None) => None,
            _ => Some(self.certificates.parse(revision)?),
        };
        Ok(match identity {
            None => Parsed::new(Credential {
                user,
                password,
                certificate: None,
                #[cfg(feature = "sqlx")]
                pem: None,
            }),
            Some(identity) => identity.map(|identity| Credential {
                user,
                password,
                certificate: Some(Arc::clone(identity.certified())),
                #[cfg(feature = "sqlx")]
                pem: Some(Pem::of(revision)),
            }),
        })
    }

    fn combine(&self, _: &Candidates<'_, Credential>) -> Result<(), Broken> {
        Ok(())
    }
}

fn user(revision: &Revision<'_>) -> Result<String, Unusable> {
    let user = revision.user_name()?;
    match user.len() > MAX_USER {
        true => Err(Unusable::new(
            "no-user-name",
            format!("its user name has more than {MAX_USER} bytes, which PostgreSQL would cut"),
        )
        .part("username")),
        false => Ok(user.to_owned()),
    }
}

impl fmt::Debug for CredentialsView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialsView")
            .field("usage", &self.usage.name())
            .finish_non_exhaustive()
    }
}
