//! User names and passwords that are presented.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use keydir::{
    Broken, Candidates, Dir, Fingerprint, Key, Live, NoPrimary, OpenError, Parsed, Revision, Unusable, Usage, View,
    uses,
};
use zeroize::Zeroizing;

use crate::header_value::sensitive;

/// The user name and password that a client presents: the primary of a directory, at each request. Cheap to clone.
///
/// A revision is a `password` and perhaps a `username`; without it the id is the user name. They are sent in UTF-8, as
/// HTTP's Basic scheme has it (RFC 7617): what it cannot send, such as a colon in the name or a control character, is
/// set aside with its reason, and the login before goes on.
///
/// [`AuthorizationLayer`](crate::AuthorizationLayer) sends it. By hand it is a header value that is ready to be cloned:
///
/// ```
/// let dir = keydir::Dir::in_memory([("r1.username.primary", "Aladdin"), ("r1.password", "open sesame")]);
/// let login = keydir_hyper::Login::in_dir(&dir)?; // or Login::open("/run/secrets/registry-login")
///
/// let primary = login.primary()?;
/// assert_eq!(primary.user(), "Aladdin");
/// assert_eq!(primary.basic(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Login {
    live: Live<LoginView>,
}

impl Login {
    /// Opens a directory and follows it.
    ///
    /// # Errors
    /// If it cannot be read, or there is no login in it to present.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::in_dir(&Dir::open(path)?)
    }

    /// The login in a directory that is open already, perhaps for other uses too; in the flat layout it is `username` and
    /// `password`.
    ///
    /// # Errors
    /// If there is no login in it to present.
    pub fn in_dir(dir: &Dir) -> Result<Self, OpenError> {
        let live = dir.view(LoginView)?;
        Ok(Self { live })
    }

    /// What is presented at this moment, or why nothing is. To keep it is to go on presenting it after a rotation: ask
    /// for each request.
    pub fn primary(&self) -> Result<Arc<Key<PresentedLogin>>, NoPrimary> {
        self.live.primary()
    }

    /// The live set, to subscribe to or to look into.
    pub fn live(&self) -> &Live<LoginView> {
        &self.live
    }
}

/// Reads a directory as logins that are presented. [`Login`] makes it.
#[derive(Clone, Copy, Debug)]
pub struct LoginView;

/// A login that is presented, as a header value, which is marked as sensitive.
pub struct PresentedLogin {
    user: String,
    basic: HeaderValue,
    fingerprint: Fingerprint,
}

impl PresentedLogin {
    /// The user name, which is no secret.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// `Basic` with the user name and the password in base64 (RFC 7617), for `Authorization`.
    pub fn basic(&self) -> &HeaderValue {
        &self.basic
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl fmt::Debug for PresentedLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresentedLogin")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl View for LoginView {
    type Item = PresentedLogin;
    type Whole = ();

    fn usage(&self) -> &Usage {
        &uses::PASSWORD_LOGIN
    }

    fn parse(&self, revision: &Revision<'_>) -> Result<Parsed<PresentedLogin>, Unusable> {
        let (user, password) = revision.basic_login()?;
        let joined = Zeroizing::new([user, ":", password].concat());
        let mut encoded = Zeroizing::new(vec![0; joined.len().div_ceil(3) * 4]);
        STANDARD
            .encode_slice(joined.as_bytes(), &mut encoded)
            .map_err(|_| Unusable::new("bad-password", "it cannot be encoded").part("password"))?;
        Ok(Parsed::new(PresentedLogin {
            user: user.to_owned(),
            basic: sensitive("Basic ", &encoded).map_err(|unusable| unusable.part("password"))?,
            fingerprint: Fingerprint::of(joined.as_bytes()),
        }))
    }

    fn combine(&self, _: &Candidates<'_, PresentedLogin>) -> Result<(), Broken> {
        Ok(())
    }
}
