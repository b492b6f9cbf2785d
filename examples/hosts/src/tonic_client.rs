//! A tonic client: a channel that is made anew when something is revoked. Generated clients take it as they take a
//! `Channel`.

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use keydir_hyper::Swap;
use keydir_rustls::{BuildError, Identity, TrustAnchors, client_config};
use tonic::transport::{Channel, Endpoint};

/// A channel to one server. Must be called from within a tokio runtime.
///
/// # Errors
/// If the TLS config cannot be built.
pub fn channel(identity: &Identity, anchors: &TrustAnchors, server: Uri) -> Result<Swap<Channel>, BuildError> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    let endpoint = Endpoint::from(server);

    let tls = client_config(anchors).identity(identity);
    let connector = tls.connector_with(|config| config.alpn_protocols = vec![b"h2".to_vec()])?;
    let Ok(swap) = Swap::new(&connector, move |generation| {
        let https = generation.https(http.clone());
        Ok(endpoint.connect_with_connector_lazy(https))
    });
    Ok(swap)
}
