//! User names and passwords as a way to authenticate (RFC 7617).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};
use keydir::{LONGEST_CREDENTIAL, Secret};

use super::authenticated::Authenticated;
use super::challenge::Challenge;
use super::credentials::{Why, of_scheme};
use crate::passwords::Passwords;

/// The ways to authenticate by `Authorization: Basic`.
#[derive(Clone, Debug, Default)]
pub(super) struct BasicWays(Vec<(Passwords, Challenge)>);

/// A user name and a password that a request presents.
pub(super) struct Login {
    user: String,
    password: Secret,
}

impl BasicWays {
    pub(super) fn new(passwords: Passwords) -> Self {
        Self(vec![(passwords, Challenge::basic())])
    }

    pub(super) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(super) fn challenges(&self) -> impl Iterator<Item = &Challenge> + Clone {
        self.0.iter().map(|(_, challenge)| challenge)
    }

    pub(super) fn challenges_mut(&mut self) -> impl Iterator<Item = &mut Challenge> {
        self.0.iter_mut().map(|(_, challenge)| challenge)
    }

    /// The header that they look at, if there are any.
    pub(super) fn place(&self) -> Option<&'static HeaderName> {
        self.0.first().map(|_| &AUTHORIZATION)
    }

    pub(super) fn given(&self, headers: &HeaderMap) -> Result<Login, Why> {
        if self.0.is_empty() {
            return Err(Why::Absent);
        }
        Login::decode(of_scheme(headers, "Basic")?).ok_or(Why::Unknown)
    }

    pub(super) async fn check(&self, login: Login) -> Result<Authenticated, Why> {
        for (passwords, _) in &self.0 {
            let found = passwords.verify(&login.user, login.password.expose()).await;
            if let Some(key) = found.map_err(|_| Why::Busy)? {
                return Ok(Authenticated::new(key, Some(login.user)));
            }
        }
        Err(Why::Unknown)
    }
}

impl Login {
    /// No name has a colon, so the first one ends it. What was decoded is erased when it goes.
    fn decode(credentials: &[u8]) -> Option<Self> {
        if credentials.len() > LONGEST_CREDENTIAL {
            return None;
        }
        let decoded = Secret::new(STANDARD.decode(credentials).ok()?);
        let colon = decoded.expose().iter().position(|byte| *byte == b':')?;
        let (user, password) = decoded.expose().split_at_checked(colon)?;
        Some(Self {
            user: String::from_utf8(user.to_vec()).ok()?,
            password: Secret::from(password.get(1..)?),
        })
    }
}
