//! An HTTPS server on one rustls config that stays the same while keys and CAs rotate.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use keydir::RevisionId;
use keydir_rustls::{Acceptor, BuildError, Connection, Ended, Identity, TrustAnchors, server_config};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::failure::causes;

/// A connection waits so long for the next request.
const IDLE: Duration = Duration::from_secs(60);
/// At the end, requests in flight get so much time, and handshakes less.
const LAST: Duration = Duration::from_secs(10);
const LAST_HANDSHAKE: Duration = Duration::from_secs(1);

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
    acceptor: Acceptor,
}

/// What each answer of a connection says: how its handshake went.
#[derive(Debug, Serialize)]
struct About {
    revision: Option<RevisionId>,
    client: Option<Client>,
    resumed: bool,
}

#[derive(Debug, Serialize)]
struct Client {
    subject: String,
    ca: Option<RevisionId>,
}

impl About {
    fn connection(connection: &Connection) -> Self {
        Self {
            revision: connection.identity().map(|key| key.id().clone()),
            client: connection.peer().map(|peer| Client {
                subject: peer.subject(),
                ca: peer.ca().cloned(),
            }),
            resumed: connection.is_resumed(),
        }
    }
}

impl Server {
    /// Sessions are kept in memory, or with `tickets` by the clients. Connections that rest on what was revoked get
    /// `grace` to finish what is in flight.
    pub fn new(identity: &Identity, clients: Clients, tickets: bool, grace: Duration) -> Result<Self, BuildError> {
        let builder = server_config(identity);
        let builder = match &clients {
            Clients::Unasked => builder.no_client(),
            Clients::Optional(anchors) => builder.optional_client(anchors),
            Clients::Required(anchors) => builder.require_client(anchors),
        };
        let builder = if tickets { builder.tickets() } else { builder };
        let acceptor = builder.alpn(["http/1.1"]).acceptor()?.with_grace(grace);
        Ok(Self { acceptor })
    }

    /// Serves until `end` resolves; then accepts no more, and lets requests in flight finish.
    pub async fn serve(self, listener: TcpListener, end: impl Future<Output = ()>) {
        let (stop, stopped) = watch::channel(());
        let mut end = pin!(end);
        loop {
            let accepted = tokio::select! {
                () = &mut end => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((tcp, _)) => {
                    tokio::spawn(self.clone().connection(tcp, stopped.clone()));
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
        drop((listener, stopped));
        stop.send_replace(());
        if timeout(LAST, stop.closed()).await.is_err() {
            tracing::warn!(seconds = LAST.as_secs(), "connections were cut at the end");
        }
    }

    async fn connection(self, tcp: TcpStream, mut stopped: watch::Receiver<()>) {
        let peer = tcp.peer_addr().ok().map(tracing::field::display);
        // Small answers must not wait for acknowledgements of earlier ones; without it they are only slower.
        let _ = tcp.set_nodelay(true);
        let mut silent = stopped.clone();
        let accepted = tokio::select! {
            accepted = self.acceptor.accept(tcp) => accepted,
            // Whoever has a request to send has shaken hands by then.
            () = async { let _ = silent.changed().await; sleep(LAST_HANDSHAKE).await } => return,
        };
        let tls = match accepted {
            Ok(tls) => tls,
            Err(refused) => {
                tracing::info!(peer, error = causes(&refused), "connection refused");
                return;
            }
        };
        let connection = tls.connection().clone();
        let about = match serde_json::to_vec(&About::connection(&connection)) {
            Ok(mut json) => {
                json.push(b'\n');
                Bytes::from(json)
            }
            Err(error) => {
                tracing::error!(%error, "cannot tell how the handshake went");
                return;
            }
        };
        let closing = connection.closing();
        let service = service_fn(move |request| {
            let answer = answer(&connection, &request, &about);
            async { Ok::<_, Infallible>(answer) }
        });
        let http = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .serve_connection(TokioIo::new(tls), service);
        let mut http = pin!(http);
        let ended = tokio::select! {
            ended = &mut http => Some(ended),
            why = closing => {
                tracing::info!(peer, error = causes(&why), "connection ends");
                None
            }
            _ = stopped.changed() => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                // What is in flight is answered. When a grace is over, the stream itself fails.
                http.as_mut().graceful_shutdown();
                http.await
            }
        };
        if let Err(error) = ended {
            // Clients go away without a word all the time.
            tracing::debug!(peer, error = causes(&error), "connection ended");
        }
    }
}

fn answer(connection: &Connection, request: &Request<Incoming>, about: &Bytes) -> Response<Full<Bytes>> {
    let stands = connection.stands();
    let mut response = match (stands, connection.why()) {
        // Nothing of it may begin any more; it may be tried on another connection (RFC 9110, 15.5.20).
        (false, Some(Ended::Peer { .. })) => {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
            response
        }
        _ => describe(request, about),
    };
    // Whoever keeps a connection learns in time that there is something newer behind the next one.
    if !stands || connection.is_superseded() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

fn describe(request: &Request<Incoming>, about: &Bytes) -> Response<Full<Bytes>> {
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
