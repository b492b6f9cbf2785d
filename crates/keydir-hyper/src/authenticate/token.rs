//! Tokens as a way to authenticate.

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};

use super::authenticated::Authenticated;
use super::challenge::Challenge;
use super::credentials::{Why, of_scheme, only};
use crate::tokens::Tokens;

/// Tokens in one place of a request.
#[derive(Clone, Debug)]
pub(super) struct TokenWay {
    /// The header that has the token and nothing else; `None` for `Authorization: Bearer`.
    bare: Option<HeaderName>,
    tokens: Tokens,
    pub(super) challenge: Challenge,
}

impl TokenWay {
    pub(super) fn bearer(tokens: Tokens) -> Self {
        Self {
            bare: None,
            tokens,
            challenge: Challenge::bearer(),
        }
    }

    pub(super) fn header(name: HeaderName, tokens: Tokens) -> Self {
        Self {
            tokens,
            challenge: Challenge::header(&name),
            bare: Some(name),
        }
    }

    /// The header that it looks at.
    pub(super) fn place(&self) -> &HeaderName {
        self.bare.as_ref().unwrap_or(&AUTHORIZATION)
    }

    /// What is presented, without looking it up.
    ///
    /// RFC 6750 knows fewer characters than are in use, so that whatever a header may hold is taken as a token.
    pub(super) fn given<'a>(&self, headers: &'a HeaderMap) -> Result<&'a [u8], Why> {
        match &self.bare {
            Some(name) => only(headers, name),
            None => of_scheme(headers, "Bearer").and_then(|token| match token {
                [] => Err(Why::Malformed),
                token => Ok(token),
            }),
        }
    }

    pub(super) fn check(&self, headers: &HeaderMap) -> Result<Authenticated, Why> {
        let key = self.tokens.verify(self.given(headers)?).ok_or(Why::Unknown)?;
        Ok(Authenticated::new(key, None))
    }
}
