//! What a handler learns about who has sent a request.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use keydir::{Key, RevisionId, Use};

/// Which revision a request was let through by, and for which user. It stands in the extensions of each request behind an
/// [`AuthenticateLayer`](crate::AuthenticateLayer), and shows no secret.
///
/// As long as a clone of it is kept, the revision counts as used in [`keydir::report`].
///
/// ```
/// # use http::Request;
/// use keydir_hyper::Authenticated;
///
/// fn greet<B>(request: &Request<B>) -> String {
///     match request.extensions().get::<Authenticated>() {
///         Some(caller) => format!("{:?} by {}", caller.user(), caller.revision()),
///         None => "nobody".to_owned(), // there is no layer
///     }
/// }
/// # assert_eq!(greet(&Request::new(())), "nobody");
/// ```
#[derive(Clone)]
pub struct Authenticated(Arc<Caller>);

struct Caller {
    revision: Arc<dyn Revision>,
    user: Option<String>,
    _use: Use,
}

impl Authenticated {
    pub(super) fn new<T: Send + Sync + 'static>(key: Arc<Key<T>>, user: Option<String>) -> Self {
        Self(Arc::new(Caller {
            user,
            _use: key.hold(),
            revision: key,
        }))
    }

    /// The id of the revision whose token or password was presented.
    pub fn revision(&self) -> &RevisionId {
        self.0.revision.id()
    }

    /// The user that a password was presented for; `None` for a token.
    pub fn user(&self) -> Option<&str> {
        self.0.user.as_deref()
    }

    /// Whether the revision has not been revoked since. The next request is refused then; what outlives its request,
    /// such as a WebSocket or a stream of events, has to ask, or to wait for [`ended`](Self::ended).
    pub fn stands(&self) -> bool {
        self.0.revision.stands()
    }

    /// Resolves when the revision is revoked; at once if it was.
    ///
    /// # Cancel safety
    /// May be dropped and asked for again at any time; nothing is missed.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        self.0.revision.ended()
    }
}

impl fmt::Debug for Authenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticated")
            .field("revision", self.revision())
            .field("user", &self.0.user)
            .finish_non_exhaustive()
    }
}

/// A key of whatever view.
trait Revision: Send + Sync {
    fn id(&self) -> &RevisionId;
    fn stands(&self) -> bool;
    fn ended(&self) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

impl<T: Send + Sync> Revision for Key<T> {
    fn id(&self) -> &RevisionId {
        self.id()
    }

    fn stands(&self) -> bool {
        self.stands()
    }

    fn ended(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.ended())
    }
}
