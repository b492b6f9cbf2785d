//! What is presented, to whom, and how it is said.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderName};
use tower_layer::Layer;

use super::memory::Memory;
use super::origin::{Binding, InvalidOrigin};
use super::rules::Rules;
use super::service::Authorization;
use super::source::{Of, Source};
use crate::login::Login;
use crate::token::Token;

/// Adds the credential of this moment to each request of a client: the primary of a directory, from the request on that
/// begins after it was loaded. A tower layer over any client that takes [`http::Request`]s: [`Client`](crate::Client),
/// hyper-util's, tonic's `Channel`; with the feature `reqwest` over a `reqwest::Client`.
///
/// # Where it is sent
/// Only to the origins that it is [bound to](AuthorizationBuilder::only_for), and only by TLS unless plain HTTP was allowed.
/// Other requests go out as they are, told by an event at debug level; so do requests that have the header already. What
/// counts is the request's URI, and a `Host` that the request has itself, which has to be bound too; so that
/// - a layer that follows redirects belongs above this one: then each step is judged anew. A client that follows them by
///   itself decides by its own rules what it takes along: reqwest drops `Authorization` at another host, but not a
///   header of another name; build it with `redirect::Policy::none()`.
/// - URIs must be absolute. Clients made by tonic need their `with_origin`.
///
/// # A refusal
/// By default it is the caller's. With [`try_another`](AuthorizationBuilder::try_another) another revision may be tried.
///
/// # Use
/// The revision counts as used in [`keydir::report`] while a request waits for the head of its response. Its last use is
/// noted with any response but 401, 407, 408, 421 and those of a server that has failed (5xx): also with 403, 404 or 429,
/// which a client may get for ever with a credential that must not be retired.
///
/// # Errors
/// [`Authorization`]'s error is a [`BoxError`](crate::BoxError), as tower's own layers have it. It holds the client's error
/// as it is, or [`NoCredential`](crate::NoCredential) if there is nothing to present: the request was not sent then.
///
/// ```no_run
/// # async fn get() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// # use bytes::Bytes;
/// # use http_body_util::Empty;
/// use keydir_hyper::{AuthorizationLayer, Client, Token};
/// use keydir_rustls::{TrustAnchors, client_config};
/// use tower::{Layer, ServiceExt};
///
/// let anchors = TrustAnchors::open("/run/secrets/mesh-ca")?;
/// let token = Token::open("/run/secrets/api-token")?;
/// let client = Client::builder(client_config(&anchors)).build::<Empty<Bytes>>()?;
/// let client = AuthorizationLayer::bearer(&token).only_for(["api.internal"])?.layer(client);
///
/// let request = http::Request::get("https://api.internal/v1/things").body(Empty::new())?;
/// let response = client.clone().oneshot(request).await?;
/// # drop(response);
/// # Ok(())
/// # }
/// ```
///
/// With reqwest:
///
/// ```no_run
/// # #[cfg(feature = "reqwest")]
/// # async fn get(client: reqwest::Client) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// use http::HeaderName;
/// use keydir_hyper::{AuthorizationLayer, Token};
/// use tower::{Layer, ServiceExt};
///
/// let key = Token::open("/run/secrets/api-key")?;
/// let layer = AuthorizationLayer::header(HeaderName::from_static("x-api-key"), &key).only_for(["api.internal"])?;
/// let request = client.get("https://api.internal/v1/things").build()?;
/// let response = layer.layer(client).oneshot(request).await?;
/// # drop(response);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct AuthorizationLayer {
    rules: Arc<Rules>,
}

impl AuthorizationLayer {
    /// `Authorization: Bearer <token>` (RFC 6750).
    pub fn bearer(token: &Token) -> AuthorizationBuilder {
        let source = Of {
            live: token.live().clone(),
            form: |token| (token.bearer(), token.fingerprint()),
        };
        AuthorizationBuilder::new(Arc::new(source), AUTHORIZATION, Some("Bearer"))
    }

    /// `Authorization: Basic <user name and password>` (RFC 7617).
    pub fn basic(login: &Login) -> AuthorizationBuilder {
        let source = Of {
            live: login.live().clone(),
            form: |login| (login.basic(), login.fingerprint()),
        };
        AuthorizationBuilder::new(Arc::new(source), AUTHORIZATION, Some("Basic"))
    }

    /// The token alone in a header of its own, such as `x-api-key`.
    pub fn header(name: HeaderName, token: &Token) -> AuthorizationBuilder {
        let source = Of {
            live: token.live().clone(),
            form: |token| (token.value(), token.fingerprint()),
        };
        AuthorizationBuilder::new(Arc::new(source), name, None)
    }
}

impl<S> Layer<S> for AuthorizationLayer {
    type Service = Authorization<S>;

    fn layer(&self, inner: S) -> Authorization<S> {
        Authorization::new(inner, Arc::clone(&self.rules))
    }
}

/// An [`AuthorizationLayer`] that does not know yet where its credential may be sent.
#[derive(Clone, Debug)]
#[must_use = "nothing happens until it is bound"]
pub struct AuthorizationBuilder {
    rules: Rules,
    plain: bool,
}

impl AuthorizationBuilder {
    fn new(source: Arc<dyn Source>, header: HeaderName, scheme: Option<&'static str>) -> Self {
        let rules = Rules {
            source,
            header,
            scheme,
            binding: Binding::Only(Vec::new()),
            memory: None,
        };
        Self { rules, plain: false }
    }

    /// After a refusal sends the request once more, with one other revision that is in force: for the time between two
    /// ends that do not move at the same moment, and for a rotation that went wrong. The second answer is the caller's,
    /// whatever it is.
    ///
    /// It is sent again only
    /// - after a 401 whose `WWW-Authenticate` asks for our scheme (for a header of its own: any 401), and not for more
    ///   rights (`insufficient_scope`); never after a 403;
    /// - by TLS, to the same origin, which has proved who it is: leave verification on;
    /// - if its body can be [replayed](crate::Replay);
    /// - with one that is not revoked: one that this server has accepted, else the new primary if it has just changed,
    ///   else the last in natural order.
    ///
    /// A revision that a server refuses is left alone there for 1 s, then for the double, up to 5 minutes: meanwhile the
    /// other is presented at once, and after each pause one request tries again. A new primary is first tried by one
    /// request too, if another is accepted meanwhile. So a bad rotation costs one refusal in each pause, and no request fails
    /// by it that can be sent again. Without another to present, the primary is presented as ever. Clones of a layer, and
    /// of its services, share what they know; it is kept for 256 origins.
    ///
    /// gRPC refuses with a status inside a 200, which is not looked at.
    ///
    /// Services must then be called from within a tokio runtime with time enabled.
    pub fn try_another(mut self) -> Self {
        self.rules.memory = Some(Arc::new(Memory::default()));
        self
    }

    /// Sends the credential over plain HTTP too, where anyone on the way can read it. Say it before the origins.
    pub fn also_plain_http(mut self) -> Self {
        self.plain = true;
        self
    }

    /// Binds the credential to these origins. Each is
    /// - a host, or a host and a port (`api.internal`, `api.internal:8443`): by `https`, and if plain HTTP was allowed by
    ///   `http` too; or
    /// - an origin (`https://api.internal:8443`): by that scheme.
    ///
    /// Without a port it is the scheme's own, 443 or 80. Hosts are compared as they are written, but for the case of
    /// letters; nothing is looked up, and there are no patterns.
    ///
    /// # Errors
    /// If one of them is no origin, or `http` was not allowed, or there is none.
    pub fn only_for<T: AsRef<str>>(
        mut self,
        origins: impl IntoIterator<Item = T>,
    ) -> Result<AuthorizationLayer, InvalidOrigin> {
        self.rules.binding = Binding::only(origins, self.plain)?;
        Ok(self.build())
    }

    /// Sends the credential wherever requests go, by `https`, and if it was allowed by `http`. Right only where nobody
    /// else can say where requests go: a redirect that is followed above this layer would take the credential along.
    pub fn any_origin(mut self) -> AuthorizationLayer {
        self.rules.binding = Binding::Any { plain: self.plain };
        self.build()
    }

    fn build(self) -> AuthorizationLayer {
        AuthorizationLayer {
            rules: Arc::new(self.rules),
        }
    }
}
