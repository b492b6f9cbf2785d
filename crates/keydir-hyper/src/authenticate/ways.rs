//! All ways to authenticate that a layer knows, tried on one request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::HeaderMap;

use super::authenticated::Authenticated;
use super::basic::BasicWays;
use super::challenge::{Challenge, Refusal};
use super::credentials::{Why, mark_sensitive};
use super::token::TokenWay;

#[derive(Clone, Debug, Default)]
pub(super) struct Ways {
    pub(super) tokens: Vec<TokenWay>,
    pub(super) basic: BasicWays,
}

/// The outcome of a check, now or later.
pub(super) enum Check {
    Now(Result<Authenticated, Refusal>),
    Later(Later),
}

/// Of a check that takes time.
pub(super) type Later = Pin<Box<dyn Future<Output = Result<Authenticated, Refusal>> + Send>>;

impl Ways {
    pub(super) fn append(&mut self, other: Self) {
        self.tokens.extend(other.tokens);
        self.basic.append(other.basic);
    }

    pub(super) fn challenges_mut(&mut self) -> impl Iterator<Item = &mut Challenge> {
        let tokens = self.tokens.iter_mut().map(|way| &mut way.challenge);
        tokens.chain(self.basic.challenges_mut())
    }

    /// Tokens first, since they cost nothing. Of several credentials one that is accepted is enough, but none of them may
    /// be malformed.
    pub(super) fn check(self: &Arc<Self>, headers: &mut HeaderMap) -> Check {
        let basic = self.basic.given(headers);
        if let Err(Why::Malformed) = basic {
            return Check::Now(Err(self.refusal(&self.malformed(headers), Why::Malformed)));
        }
        let tokens = match self.check_tokens(headers) {
            Ok(authenticated) => return Check::Now(Ok(authenticated)),
            Err(tokens) => tokens,
        };
        match basic {
            Ok(login) if !tokens.contains(&Why::Malformed) => {
                let ways = Arc::clone(self);
                Check::Later(Box::pin(async move {
                    let outcome = ways.basic.check(login).await;
                    outcome.map_err(|why| ways.refusal(&tokens, why))
                }))
            }
            basic => Check::Now(Err(self.refusal(&tokens, basic.err().unwrap_or(Why::Absent)))),
        }
    }

    /// For each way by token what is the matter, if none of them is accepted.
    pub(super) fn check_tokens(&self, headers: &mut HeaderMap) -> Result<Authenticated, Vec<Why>> {
        for place in self.tokens.iter().map(TokenWay::place).chain(self.basic.place()) {
            mark_sensitive(headers, place);
        }
        if self.tokens.iter().any(|way| way.given(headers) == Err(Why::Malformed)) {
            return Err(self.malformed(headers));
        }
        let mut tried = Vec::new();
        for way in &self.tokens {
            match way.check(headers) {
                Ok(authenticated) => return Ok(authenticated),
                Err(why) => tried.push(why),
            }
        }
        Err(tried)
    }

    /// For each way by token what is the matter, as far as form goes.
    fn malformed(&self, headers: &HeaderMap) -> Vec<Why> {
        let given = self.tokens.iter().map(|way| way.given(headers));
        given.map(|given| given.err().unwrap_or(Why::Absent)).collect()
    }

    pub(super) fn refusal(&self, tokens: &[Why], basic: Why) -> Refusal {
        let tokens = self.tokens.iter().map(|way| &way.challenge).zip(tokens.iter().copied());
        Refusal::new(tokens.chain(self.basic.challenges().map(|challenge| (challenge, basic))))
    }
}
