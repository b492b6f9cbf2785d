//! Tokens and API keys that are presented.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use http::HeaderValue;
use keydir::{
    Broken, Candidates, Dir, Fingerprint, Key, Live, NoPrimary, OpenError, Parsed, Revision, Unusable, Usage, View,
    uses,
};

use crate::header_value::sensitive;

/// The token that a client presents: the primary of a directory, at each request. Cheap to clone.
///
/// A revision is a `token`; one line end at the end of the file is no part of it. A token that could not be sent is set
/// aside with its reason, and the one before goes on: one that no bearer token can be (RFC 6750, 2.1), such as one with
/// its scheme before it, or one of more than 15 KiB, which HTTP/2 would refuse.
///
/// [`AuthorizationLayer`](crate::AuthorizationLayer) sends it. By hand it is a header value that is ready to be cloned:
///
/// ```
/// # use http::{Request, header::AUTHORIZATION};
/// let dir = keydir::Dir::in_memory([("r1.token.primary", "correct-horse\n")]);
/// let token = keydir_hyper::Token::in_dir(&dir)?; // or Token::open("/run/secrets/api-token")
///
/// let request = Request::get("https://api.internal/").header(AUTHORIZATION, token.primary()?.bearer()).body(())?;
/// assert_eq!(request.headers()[AUTHORIZATION], "Bearer correct-horse");
/// assert!(request.headers()[AUTHORIZATION].is_sensitive());
///
/// let dir = keydir::Dir::in_memory([("r1.token.primary", "Bearer correct-horse")]);
/// let error = keydir_hyper::Token::in_dir(&dir).unwrap_err();
/// assert!(error.to_string().contains("no bearer token may have"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Token {
    live: Live<TokenView>,
}

impl Token {
    /// Opens a directory and follows it.
    ///
    /// # Errors
    /// If it cannot be read, or there is no token in it to present.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::in_dir(&Dir::open(path)?)
    }

    /// The token in a directory that is open already, perhaps for other uses too.
    ///
    /// # Errors
    /// If there is no token in it to present.
    pub fn in_dir(dir: &Dir) -> Result<Self, OpenError> {
        let live = dir.view(TokenView { any_text: false })?;
        Ok(Self { live })
    }

    /// The same for any text that a header field can carry (RFC 9110, 5.5), with no space or tab at its ends: API keys
    /// that look like no bearer token, or values with a scheme of their own.
    ///
    /// # Errors
    /// If there is no token in it to present.
    pub fn of_any_text(dir: &Dir) -> Result<Self, OpenError> {
        let live = dir.view(TokenView { any_text: true })?;
        Ok(Self { live })
    }

    /// What is presented at this moment, or why nothing is. To keep it is to go on presenting it after a rotation: ask
    /// for each request.
    pub fn primary(&self) -> Result<Arc<Key<PresentedToken>>, NoPrimary> {
        self.live.primary()
    }

    /// The live set, to subscribe to or to look into.
    pub fn live(&self) -> &Live<TokenView> {
        &self.live
    }
}

/// Reads a directory as tokens that are presented. [`Token`] makes it.
#[derive(Clone, Copy, Debug)]
pub struct TokenView {
    any_text: bool,
}

/// A token that is presented, as header values, which are marked as sensitive.
pub struct PresentedToken {
    bearer: HeaderValue,
    value: HeaderValue,
    fingerprint: Fingerprint,
}

impl PresentedToken {
    /// `Bearer <token>` (RFC 6750, 2.1), for `Authorization`.
    pub fn bearer(&self) -> &HeaderValue {
        &self.bearer
    }

    /// The token alone, for a header of its own.
    pub fn value(&self) -> &HeaderValue {
        &self.value
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl fmt::Debug for PresentedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresentedToken").finish_non_exhaustive()
    }
}

impl View for TokenView {
    type Item = PresentedToken;
    type Whole = ();

    fn usage(&self) -> &Usage {
        &uses::TOKEN
    }

    fn parse(&self, revision: &Revision<'_>) -> Result<Parsed<PresentedToken>, Unusable> {
        let token = match self.any_text {
            true => revision.token()?,
            false => revision.bearer_token()?,
        };
        Ok(Parsed::new(PresentedToken {
            bearer: sensitive("Bearer ", token)?,
            value: sensitive("", token)?,
            fingerprint: Fingerprint::of(token),
        }))
    }

    fn combine(&self, _: &Candidates<'_, PresentedToken>) -> Result<(), Broken> {
        Ok(())
    }
}
