//! A server of plain hyper services.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};
use keydir_rustls::{BuildError, Identity, TrustAnchors, server_config};
use tokio::net::TcpListener;
use tower::Service;

use crate::BoxError;

/// Serves HTTP/1 and HTTP/2 until it is dropped. Who asks stands in the extensions of each request, as a
/// [`keydir_rustls::Connection`].
///
/// # Errors
/// If the TLS config cannot be built.
pub async fn serve<S>(
    tcp: TcpListener,
    identity: &Identity,
    anchors: &TrustAnchors,
    service: S,
) -> Result<(), BuildError>
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error: Into<BoxError>, Future: Send>,
    S: Clone + Send + 'static,
{
    let acceptor = server_config(identity)
        .require_client(anchors)
        .alpn(["h2", "http/1.1"])
        .acceptor()?;
    keydir_hyper::serve(tcp, acceptor, service).await;
    Ok(())
}
