//! Bearer tokens and API keys that are accepted.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use keydir::{
    Broken, Candidates, Dir, Fingerprint, Key, LONGEST_CREDENTIAL, Live, OpenError, Parsed, Revision, RevisionId,
    Unusable, Usage, View, uses,
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The tokens that a server accepts: any usable revision of a directory, with no primary needed. Cheap to clone.
///
/// A revision is a `token-sha256` (the SHA-256 of the token, 64 hex digits), so that the server cannot lose the token
/// itself, or a `token`. One line end at the end of a file is no part of it. A `token` that no header field can carry is
/// set aside, and so is one of more than 15 KiB, which HTTP/2 would refuse.
///
/// ```
/// let dir = keydir::Dir::in_memory([("r1.token", "correct-horse"), ("r2.token", "battery-staple")]);
/// let tokens = keydir_hyper::Tokens::in_dir(&dir)?; // or Tokens::open("/run/secrets/api-tokens")
///
/// let key = tokens.verify(b"battery-staple").ok_or("refused")?;
/// assert_eq!(key.id().as_str(), "r2");
///
/// dir.publish([("r1.token", "correct-horse"), ("r2.token", "battery-staple"), ("r2.revoked", "")])?;
/// assert!(tokens.verify(b"battery-staple").is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tokens {
    live: Live<TokensView>,
}

impl Tokens {
    /// Opens a directory and follows it.
    ///
    /// # Errors
    /// If it cannot be read, or there is no usable token in it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::in_dir(&Dir::open(path)?)
    }

    /// The tokens in a directory that is open already, perhaps for other uses too.
    ///
    /// # Errors
    /// If there is no usable token in it.
    pub fn in_dir(dir: &Dir) -> Result<Self, OpenError> {
        let live = dir.view(TokensView)?;
        Ok(Self { live })
    }

    /// The revision whose token this is, if it is in force at this moment; its use is noted for the report. Of several
    /// with the same token it is the first in natural order.
    ///
    /// The cost does not depend on how many revisions there are: one digest and two look-ups in maps. Nor does the time
    /// tell how much of a token is right: what is looked up is a keyed hash of the token's digest, and the digest is then
    /// compared in constant time.
    pub fn verify(&self, token: &[u8]) -> Option<Arc<Key<AcceptedToken>>> {
        if token.len() > LONGEST_CREDENTIAL {
            return None;
        }
        let digest = AcceptedToken::of(token);
        let set = self.live.load();
        let key = set.get(set.whole().revision(&digest)?.as_str())?;
        if !bool::from(key.sha256.ct_eq(&digest.sha256)) {
            return None;
        }
        key.touch();
        Some(Arc::clone(key))
    }

    /// The live set, to subscribe to or to look into.
    pub fn live(&self) -> &Live<TokensView> {
        &self.live
    }
}

/// Reads a directory as tokens that are accepted. [`Tokens`] makes it.
#[derive(Clone, Copy, Debug)]
pub struct TokensView;

/// A token that is accepted, as its digest.
pub struct AcceptedToken {
    sha256: [u8; 32],
}

impl AcceptedToken {
    fn of(token: &[u8]) -> Self {
        Self {
            sha256: Sha256::digest(token).into(),
        }
    }
}

impl fmt::Debug for AcceptedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptedToken").finish_non_exhaustive()
    }
}

/// Which revision has a token: one look-up, by a keyed hash of its digest.
#[derive(Debug, Default)]
pub struct TokenMap(HashMap<Fingerprint, RevisionId>);

impl TokenMap {
    fn revision(&self, token: &AcceptedToken) -> Option<&RevisionId> {
        self.0.get(&Fingerprint::of(&token.sha256))
    }
}

impl View for TokensView {
    type Item = AcceptedToken;
    type Whole = TokenMap;

    fn usage(&self) -> &Usage {
        &uses::TOKEN_CHECK
    }

    fn parse(&self, revision: &Revision<'_>) -> Result<Parsed<AcceptedToken>, Unusable> {
        let token = || revision.token().map(AcceptedToken::of);
        if revision.part("token-sha256").is_none() {
            // One that could never be sent would else be noticed by the refusals only.
            return token().map(Parsed::new);
        }
        let sha256 = revision.token_sha256()?;
        if revision.part("token").is_some() && token()?.sha256 != sha256 {
            return Err(Unusable::new("token-mismatch", "the token has another SHA-256").part("token-sha256"));
        }
        Ok(Parsed::new(AcceptedToken { sha256 }))
    }

    fn combine(&self, keys: &Candidates<'_, AcceptedToken>) -> Result<TokenMap, Broken> {
        let mut map = HashMap::new();
        for (id, token) in keys.iter() {
            map.entry(Fingerprint::of(&token.sha256)).or_insert_with(|| id.clone());
        }
        Ok(TokenMap(map))
    }
}
