//! A client that is used as hyper-util's own.

use bytes::Bytes;
use http_body_util::Full;
use keydir_hyper::Client;
use keydir_rustls::{BuildError, Identity, TrustAnchors, client_config};

/// A client of HTTP/1 and HTTP/2, with a pool. It is a tower service too.
///
/// # Errors
/// If the TLS config cannot be built.
pub fn client(identity: &Identity, anchors: &TrustAnchors) -> Result<Client<Full<Bytes>>, BuildError> {
    let tls = client_config(anchors).identity(identity);
    Client::builder(tls).build()
}
