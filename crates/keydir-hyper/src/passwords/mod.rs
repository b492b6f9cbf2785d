//! Passwords that are accepted, kept as hashes.

mod hash;
mod view;

pub use view::{AcceptedPassword, PasswordsView, Users};

use std::fmt;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;

use keydir::{Dir, Fingerprint, Key, Live, OpenError, Secret};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

/// For each password that is verified, so many may wait; at some 20 ms each that is a second or so.
const WAITING: usize = 64;

/// The users and passwords that a server accepts: any usable revision of a directory, with no primary needed. Cheap to
/// clone.
///
/// A revision is a `password-hash`, a [PHC string] of Argon2 (`$argon2id$v=19$m=19456,t=2,p=1$..`), and perhaps a
/// `username`; without it the id is the user's name. Several revisions may have one user's passwords, up to 16: any of
/// them is accepted. A hash that would take more than 256 MiB of memory, or roughly a second of one core (`m` times `t`
/// over 1 GiB), is set aside, since whoever may send a request may have it computed.
///
/// # Cost
/// A hash is costly on purpose: with Argon2's usual parameters 20 ms and 19 MiB. So
/// - it is computed off the executor, as many at a time as there are cores, while up to 64 for each of these wait, and
///   more are refused as [`Busy`]; memory is bounded by the number at a time;
/// - a password that was right is known again (by a keyed hash in memory, as long as the revision is in force), so
///   that a client with the right password pays once and never waits. A wrong one pays each time;
/// - a name that is unknown costs as much as some known one does.
///
/// [PHC string]: https://github.com/P-H-C/phc-string-format/blob/master/phc-sf-spec.md
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use argon2::{Argon2, PasswordHasher};
/// # let hash = Argon2::default().hash_password_with_salt(b"open sesame", b"16 bytes of salt")?.to_string();
/// let dir = keydir::Dir::in_memory([("r1.password-hash", hash.as_str()), ("r1.username", "ali")]);
/// let passwords = keydir_hyper::Passwords::in_dir(&dir)?; // or Passwords::open("/run/secrets/users")
///
/// let key = passwords.verify("ali", b"open sesame").await?.ok_or("refused")?;
/// assert_eq!((key.id().as_str(), key.user()), ("r1", "ali"));
/// assert!(passwords.verify("ali", b"open barley").await?.is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Passwords {
    live: Live<PasswordsView>,
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
}

impl Passwords {
    /// Opens a directory and follows it.
    ///
    /// # Errors
    /// If it cannot be read, or there is no usable password in it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::in_dir(&Dir::open(path)?)
    }

    /// The passwords in a directory that is open already, perhaps for other uses too.
    ///
    /// # Errors
    /// If there is no usable password in it.
    pub fn in_dir(dir: &Dir) -> Result<Self, OpenError> {
        let live = dir.view(PasswordsView)?;
        let running = available_parallelism().map_or(1, NonZero::get);
        Ok(Self::limited(live, running, running.saturating_mul(WAITING)))
    }

    /// How many hashes are computed at a time, at least one, and how many may wait for that. Say it before the first
    /// clone: each call begins to count anew.
    pub fn with_limits(self, running: usize, waiting: usize) -> Self {
        Self::limited(self.live, running, waiting)
    }

    fn limited(live: Live<PasswordsView>, running: usize, waiting: usize) -> Self {
        let running = running.clamp(1, Semaphore::MAX_PERMITS);
        let admitted = running.saturating_add(waiting).min(Semaphore::MAX_PERMITS);
        Self {
            live,
            running: Arc::new(Semaphore::new(running)),
            admitted: Arc::new(Semaphore::new(admitted)),
        }
    }

    /// The revision with this user's name and password, if it is in force when this returns; its use is noted for the
    /// report. Names are compared byte for byte.
    ///
    /// Must be called from within a tokio runtime.
    ///
    /// # Errors
    /// If too many passwords are being verified already, or the memory for one more cannot be had.
    ///
    /// # Cancel safety
    /// May be dropped at any time. A hash whose computation has begun is computed to its end, and counts until then.
    pub async fn verify(&self, user: &str, password: &[u8]) -> Result<Option<Arc<Key<AcceptedPassword>>>, Busy> {
        let (keys, known) = self.candidates(user);
        let fingerprint = Fingerprint::of(password);
        let remembered = keys.iter().find(|key| known && key.remembers(fingerprint));
        let found = match remembered {
            Some(key) => Some(Arc::clone(key)),
            None if keys.is_empty() => None,
            None => self.compute(keys, known, Secret::from(password)).await?,
        };
        let found = found.filter(|key| self.is_in_force(key));
        if let Some(key) = &found {
            key.touch();
        }
        Ok(found)
    }

    /// The live set, to subscribe to or to look into.
    pub fn live(&self) -> &Live<PasswordsView> {
        &self.live
    }

    /// Which revisions to try, and whether they are this user's.
    fn candidates(&self, user: &str) -> (Vec<Arc<Key<AcceptedPassword>>>, bool) {
        let set = self.live.load();
        let own = set.whole().find(user);
        let revisions = own.unwrap_or_else(|| set.whole().instead_of(user));
        let keys = revisions.iter().filter_map(|id| set.get(id.as_str()).cloned());
        (keys.collect(), own.is_some())
    }

    /// A revision may go while its hash is computed.
    fn is_in_force(&self, key: &Arc<Key<AcceptedPassword>>) -> bool {
        let set = self.live.load();
        set.get(key.id().as_str())
            .is_some_and(|current| Arc::ptr_eq(current, key))
    }

    async fn compute(
        &self,
        keys: Vec<Arc<Key<AcceptedPassword>>>,
        known: bool,
        password: Secret,
    ) -> Result<Option<Arc<Key<AcceptedPassword>>>, Busy> {
        let admitted = Arc::clone(&self.admitted).try_acquire_owned().map_err(|_| Busy)?;
        let running = Arc::clone(&self.running).acquire_owned().await.map_err(|_| Busy)?;
        let work = move || try_all(&keys, known, &password, [admitted, running]);
        spawn_blocking(work).await.map_err(|_| Busy)?
    }
}

/// Of an unknown user nothing is right, but it takes as long.
fn try_all(
    keys: &[Arc<Key<AcceptedPassword>>],
    known: bool,
    password: &Secret,
    _places: [OwnedSemaphorePermit; 2],
) -> Result<Option<Arc<Key<AcceptedPassword>>>, Busy> {
    for key in keys {
        if !known {
            key.pretend(password.expose()).map_err(|_| Busy)?;
        } else if key.matches(password.expose()).map_err(|_| Busy)? {
            return Ok(Some(Arc::clone(key)));
        }
    }
    Ok(None)
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords")
            .field("live", &self.live)
            .finish_non_exhaustive()
    }
}

/// A password was not verified, since too many are being verified already: a moment later it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many passwords are being verified: try again in a moment, or allow more with with_limits")
    }
}

impl std::error::Error for Busy {}
