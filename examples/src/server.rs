//! An HTTPS server on one rustls config that stays the same while keys and CAs rotate.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use keydir::RevisionId;
use keydir_rustls::rustls::{HandshakeKind, ServerConfig};
use keydir_rustls::{BuildError, Identity, TrustAnchors, server_config};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::failure::causes;
use crate::subject;
use crate::witness::Witness;

/// A handshake takes no longer than this.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A connection waits so long for the next request.
const IDLE: Duration = Duration::from_secs(60);
/// At the end, requests in flight get so much time.
const GRACE: Duration = Duration::from_secs(10);
/// After an alert the client gets so much time to read it.
const LINGER: Duration = Duration::from_secs(1);

/// What clients must show.
#[derive(Clone, Debug)]
pub enum Clients {
    /// They are not asked.
    Unasked,
    /// A certificate if they have one.
    Optional(TrustAnchors),
    /// A certificate.
    Required(TrustAnchors),
}

/// The server: cheap to clone, serves any number of listeners.
#[derive(Clone, Debug)]
pub struct Server {
    config: Arc<ServerConfig>,
    identity: Identity,
    clients: Clients,
}

/// What each answer of a connection says: how its handshake went.
#[derive(Debug, Serialize)]
struct About {
    revision: Option<RevisionId>,
    client: Option<Peer>,
    resumed: bool,
}

#[derive(Debug, Serialize)]
struct Peer {
    subject: String,
    ca: RevisionId,
}

/// Why a connection was not served.
#[derive(Debug)]
enum Refused {
    Handshake(io::Error),
    TooSlow,
    /// Its CA was removed while the handshake went on.
    Removed,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handshake(_) => f.write_str("the handshake failed"),
            Self::TooSlow => write!(f, "the handshake took longer than {} s", HANDSHAKE.as_secs()),
            Self::Removed => f.write_str("the client's CA was removed during the handshake"),
        }
    }
}

impl Error for Refused {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Handshake(error) => Some(error),
            Self::TooSlow | Self::Removed => None,
        }
    }
}

impl Server {
    /// Builds the one config. Sessions are kept in memory, or with `tickets` by the clients.
    pub fn new(identity: &Identity, clients: Clients, tickets: bool) -> Result<Self, BuildError> {
        let builder = server_config(identity);
        let builder = match &clients {
            Clients::Unasked => builder.no_client(),
            Clients::Optional(anchors) => builder.optional_client(anchors),
            Clients::Required(anchors) => builder.require_client(anchors),
        };
        let builder = if tickets { builder.tickets() } else { builder };
        Ok(Self {
            config: Arc::new(builder.alpn(["http/1.1"]).build()?),
            identity: identity.clone(),
            clients,
        })
    }

    /// Serves until `end` resolves; then accepts no more, and lets requests in flight finish.
    pub async fn serve(self, listener: TcpListener, end: impl Future<Output = ()>) {
        let graceful = GracefulShutdown::new();
        tokio::pin!(end);
        loop {
            let accepted = tokio::select! {
                () = &mut end => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((tcp, _)) => {
                    tokio::spawn(self.clone().connection(tcp, graceful.watcher()));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: connections that end will give some back.
                    tracing::warn!(%error, "cannot accept a connection, trying again");
                    tokio::select! {
                        () = &mut end => break,
                        () = sleep(Duration::from_millis(50)) => {}
                    }
                }
            }
        }
        drop(listener);
        if timeout(GRACE, graceful.shutdown()).await.is_err() {
            tracing::warn!(seconds = GRACE.as_secs(), "connections were cut at the end");
        }
    }

    async fn connection(self, tcp: TcpStream, watcher: Watcher) {
        let peer = tcp.peer_addr().ok().map(tracing::field::display);
        let handshake = timeout(HANDSHAKE, self.handshake(tcp)).await;
        let (tls, about) = match handshake.unwrap_or(Err(Refused::TooSlow)) {
            Ok(done) => done,
            Err(refused) => {
                tracing::info!(peer, error = causes(&refused), "connection refused");
                return;
            }
        };
        let about = match serde_json::to_vec(&about) {
            Ok(mut json) => {
                json.push(b'\n');
                Bytes::from(json)
            }
            Err(error) => {
                tracing::error!(%error, "cannot tell how the handshake went");
                return;
            }
        };
        let service = service_fn(move |request| {
            let answer = answer(&request, &about);
            async { Ok::<_, Infallible>(answer) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .serve_connection(TokioIo::new(tls), service);
        if let Err(error) = watcher.watch(connection).await {
            // Clients go away without a word all the time.
            tracing::debug!(peer, error = causes(&error), "connection ended");
        }
    }

    async fn handshake(&self, tcp: TcpStream) -> Result<(TlsStream<TcpStream>, About), Refused> {
        // Small answers must not wait for acknowledgements of earlier ones; without it they are only slower.
        let _ = tcp.set_nodelay(true);
        let (config, witness) = Witness::of_connection(&self.config, &self.identity);
        let accept = TlsAcceptor::from(Arc::new(config)).accept(tcp).into_fallible();
        let tls = match accept.await {
            Ok(tls) => tls,
            Err((error, tcp)) => {
                linger(tcp).await;
                return Err(Refused::Handshake(error));
            }
        };
        let (_, session) = tls.get_ref();
        let client = match (&self.clients, session.peer_certificates()) {
            (Clients::Optional(anchors) | Clients::Required(anchors), Some(certificates)) => {
                // The handshake is verified; this asks once more, after it, so that a removal on the way is seen.
                let ca = anchors.revision_of_client(certificates).ok_or(Refused::Removed)?;
                let leaf = certificates.first();
                Some(Peer {
                    subject: leaf.and_then(|leaf| subject::of_certificate(leaf)).unwrap_or_default(),
                    ca,
                })
            }
            _ => None,
        };
        let about = About {
            revision: witness.presented(),
            client,
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        };
        Ok((tls, about))
    }
}

/// Lets a refused client read the alert: to close while bytes of it are unread would reset the connection, and the
/// reason would be lost on the way.
async fn linger(mut tcp: TcpStream) {
    let drain = async {
        let _ = tcp.shutdown().await;
        let mut rest = [0; 4096];
        while matches!(tcp.read(&mut rest).await, Ok(1..)) {}
    };
    let _ = timeout(LINGER, drain).await;
}

fn answer(request: &Request<Incoming>, about: &Bytes) -> Response<Full<Bytes>> {
    if *request.method() == Method::GET || *request.method() == Method::HEAD {
        let mut response = Response::new(Full::new(about.clone()));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        return response;
    }
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}
