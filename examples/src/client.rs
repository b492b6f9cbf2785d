//! An HTTPS client that keeps resuming sessions while keys and CAs rotate.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONNECTION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use keydir::RevisionId;
use keydir_rustls::{BuildError, Connector, HandshakeError, Identity, TrustAnchors, client_config};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::failure::causes;
use crate::target::Target;

/// To connect takes no longer than this, and nor does a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longer answers are none of a service that this client knows.
const MAX_BODY: usize = 1 << 20;

/// A client that makes one connection after another. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    connector: Connector,
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
    rests_on: keydir_rustls::Connection,
    closes: bool,
}

/// Why there is no answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum RequestError {
    /// The server cannot be reached.
    Connect(io::Error),
    /// The TLS handshake failed.
    Handshake(HandshakeError),
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
            Self::Handshake(error) => error.fmt(f),
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
            Self::Connect(error) => Some(error),
            Self::Handshake(error) => error.source(),
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
        let builder = client_config(anchors);
        let builder = match identity {
            Some(identity) => builder.identity(identity),
            None => builder,
        };
        let connector = builder.connector_with(|config| config.alpn_protocols = vec![b"http/1.1".to_vec()])?;
        Ok(Self { connector })
    }

    /// Opens a connection.
    pub async fn connect(&self, target: &Target) -> Result<Connection, RequestError> {
        let connect = async {
            loop {
                match self.open(target).await {
                    // A CA was removed on the way. Nothing was sent yet; the next handshake goes by what is trusted now.
                    Err(RequestError::Handshake(HandshakeError::Ended(_))) => {}
                    opened => return opened,
                }
            }
        };
        timeout(PATIENCE, connect).await.unwrap_or(Err(RequestError::TooSlow))
    }

    async fn open(&self, target: &Target) -> Result<Connection, RequestError> {
        let tcp = TcpStream::connect((target.host.as_str(), target.port))
            .await
            .map_err(RequestError::Connect)?;
        let _ = tcp.set_nodelay(true);
        let tls = self
            .connector
            .connect(target.name.clone(), tcp)
            .await
            .map_err(RequestError::Handshake)?;
        let rests_on = tls.connection().clone();
        let handshake = Handshake {
            identity: rests_on.identity().map(|key| key.id().clone()),
            server_ca: rests_on.peer().and_then(|peer| peer.ca().cloned()),
            resumed: rests_on.is_resumed(),
        };
        let (sender, connection) = http1::handshake(TokioIo::new(tls)).await.map_err(RequestError::Http)?;
        Ok(Connection {
            sender,
            task: tokio::spawn(connection),
            handshake,
            rests_on,
            closes: false,
        })
    }
}

impl Connection {
    /// How its handshake went.
    pub fn handshake(&self) -> &Handshake {
        &self.handshake
    }

    /// Whether a new connection should take its place: the server has said that it closes, there is a newer identity, or
    /// what this one rests on was revoked.
    pub fn is_stale(&self) -> bool {
        self.closes || !self.rests_on.stands() || self.rests_on.is_superseded()
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
            self.closes = response.headers().get(CONNECTION).is_some_and(|value| value == "close");
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
