//! An HTTPS client that keeps resuming sessions while keys and CAs rotate.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use keydir::{Changes, RevisionId};
use keydir_rustls::rustls::client::ResolvesClientCert;
use keydir_rustls::rustls::{ClientConfig, HandshakeKind};
use keydir_rustls::{AnchorsView, BuildError, Identity, IdentityView, TrustAnchors, client_config};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::failure::causes;
use crate::target::Target;
use crate::witness::Witness;

/// To connect takes no longer than this, and nor does a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longer answers are none of a service that this client knows.
const MAX_BODY: usize = 1 << 20;

/// A client that makes one connection after another.
#[derive(Debug)]
pub struct Client {
    anchors: TrustAnchors,
    identity: Option<Identity>,
    config: Config,
    trust_changes: Changes<AnchorsView>,
    identity_changes: Option<Changes<IdentityView>>,
}

#[derive(Debug)]
struct Config {
    rustls: Arc<ClientConfig>,
    witness: Option<Arc<Witness<dyn ResolvesClientCert>>>,
}

/// How a handshake went.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// The revision that this client has shown, in this handshake or in the one whose session it resumes; `None` if the
    /// server did not ask.
    pub identity: Option<RevisionId>,
    /// The revision that vouches for the server.
    pub server_ca: Option<RevisionId>,
    /// Whether a session was resumed.
    pub resumed: bool,
}

/// A connection that is kept alive between requests.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    task: JoinHandle<Result<(), hyper::Error>>,
    handshake: Handshake,
}

/// Why there is no answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum RequestError {
    /// The server cannot be reached.
    Connect(io::Error),
    /// The TLS handshake failed.
    Handshake(io::Error),
    /// The connection broke. A TLS 1.3 server that refuses the client's certificate shows here, not in the handshake.
    Http(hyper::Error),
    /// The answer's body did not come whole, or is too long.
    Body(Box<dyn Error + Send + Sync>),
    /// The target cannot be put into a request.
    Target(hyper::http::Error),
    /// Nothing came in time.
    TooSlow,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(_) => f.write_str("cannot connect"),
            Self::Handshake(_) => f.write_str("the TLS handshake failed"),
            Self::Http(_) => f.write_str("no answer"),
            Self::Body(_) => f.write_str("no whole answer"),
            Self::Target(_) => f.write_str("not a request"),
            Self::TooSlow => write!(f, "nothing came within {} s", PATIENCE.as_secs()),
        }
    }
}

impl Error for RequestError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Connect(error) | Self::Handshake(error) => Some(error),
            Self::Http(error) => Some(error),
            Self::Body(error) => Some(&**error),
            Self::Target(error) => Some(error),
            Self::TooSlow => None,
        }
    }
}

impl RequestError {
    /// The error and everything that caused it, in one line.
    pub fn causes(&self) -> String {
        causes(self)
    }
}

impl Client {
    /// A client that trusts servers of these anchors, and shows an identity to those that ask.
    pub fn new(anchors: &TrustAnchors, identity: Option<&Identity>) -> Result<Self, BuildError> {
        Ok(Self {
            trust_changes: anchors.live().subscribe(),
            identity_changes: identity.map(|identity| identity.live().subscribe()),
            config: Config::build(anchors, identity)?,
            anchors: anchors.clone(),
            identity: identity.cloned(),
        })
    }

    /// A config resumes no more once something was removed or the identity has changed. Everything else about it stays
    /// right, so a new one is made only to resume again.
    fn follow(&mut self) -> Result<(), BuildError> {
        let lost = self
            .trust_changes
            .try_recv()
            .is_some_and(|change| change.removed().next().is_some());
        let changed = self
            .identity_changes
            .as_mut()
            .and_then(Changes::try_recv)
            .is_some_and(|change| change.primary_changed());
        if lost || changed {
            self.config = Config::build(&self.anchors, self.identity.as_ref())?;
        }
        Ok(())
    }

    /// Opens a connection.
    pub async fn connect(&mut self, target: &Target) -> Result<Connection, RequestError> {
        if let Err(error) = self.follow() {
            tracing::warn!(%error, "going on without resumption");
        }
        let connect = self.config.connect(target, &self.anchors);
        timeout(PATIENCE, connect).await.unwrap_or(Err(RequestError::TooSlow))
    }
}

impl Config {
    fn build(anchors: &TrustAnchors, identity: Option<&Identity>) -> Result<Self, BuildError> {
        let builder = client_config(anchors);
        let builder = match identity {
            Some(identity) => builder.identity(identity),
            None => builder,
        };
        let mut rustls = builder.build()?;
        rustls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let witness = identity.map(|identity| Witness::watch(&mut rustls, identity));
        Ok(Self {
            rustls: Arc::new(rustls),
            witness,
        })
    }

    async fn connect(&self, target: &Target, anchors: &TrustAnchors) -> Result<Connection, RequestError> {
        let tcp = TcpStream::connect((target.host.as_str(), target.port))
            .await
            .map_err(RequestError::Connect)?;
        let _ = tcp.set_nodelay(true);
        let tls = TlsConnector::from(Arc::clone(&self.rustls))
            .connect(target.name.clone(), tcp)
            .await
            .map_err(RequestError::Handshake)?;
        let (_, session) = tls.get_ref();
        let handshake = Handshake {
            identity: self.witness.as_ref().and_then(|witness| witness.presented()),
            server_ca: session
                .peer_certificates()
                .and_then(|certificates| anchors.revision_of_server(certificates)),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        };
        let (sender, connection) = http1::handshake(TokioIo::new(tls)).await.map_err(RequestError::Http)?;
        Ok(Connection {
            sender,
            task: tokio::spawn(connection),
            handshake,
        })
    }
}

impl Connection {
    /// How its handshake went.
    pub fn handshake(&self) -> &Handshake {
        &self.handshake
    }

    /// Sends a GET and reads the answer to its end.
    pub async fn get(&mut self, target: &Target) -> Result<StatusCode, RequestError> {
        let request = Request::get(&target.path)
            .header(HOST, &target.authority)
            .body(Empty::new())
            .map_err(RequestError::Target)?;
        let exchange = async {
            let response = match self.exchange(request).await {
                Ok(response) => response,
                Err(error) => return Err(RequestError::Http(self.why(error).await)),
            };
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
            body.map_err(RequestError::Body)?;
            Ok(status)
        };
        timeout(PATIENCE, exchange).await.unwrap_or(Err(RequestError::TooSlow))
    }

    async fn exchange(
        &mut self,
        request: Request<Empty<Bytes>>,
    ) -> Result<hyper::Response<hyper::body::Incoming>, hyper::Error> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }

    /// If the connection broke before the request was sent, only its own task knows why.
    async fn why(&mut self, error: hyper::Error) -> hyper::Error {
        if error.source().is_some() {
            return error;
        }
        match (&mut self.task).await {
            Ok(Err(cause)) => cause,
            Ok(Ok(())) | Err(_) => error,
        }
    }
}
