//! In place of `basic` where there are no passwords.

use std::convert::Infallible;
use std::iter::{Empty, empty};

use http::HeaderMap;
use http::header::HeaderName;

use super::authenticated::Authenticated;
use super::challenge::Challenge;
use super::credentials::Why;

/// No way at all.
#[derive(Clone, Debug, Default)]
pub(super) struct BasicWays;

pub(super) type Login = Infallible;

impl BasicWays {
    pub(super) fn append(&mut self, _: Self) {}

    pub(super) fn challenges(&self) -> Empty<&Challenge> {
        empty()
    }

    pub(super) fn challenges_mut(&mut self) -> Empty<&mut Challenge> {
        empty()
    }

    pub(super) fn place(&self) -> Option<&'static HeaderName> {
        None
    }

    pub(super) fn given(&self, _: &HeaderMap) -> Result<Login, Why> {
        Err(Why::Absent)
    }

    pub(super) async fn check(&self, login: Login) -> Result<Authenticated, Why> {
        match login {}
    }
}
