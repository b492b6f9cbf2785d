//! A tonic server.

use std::time::Duration;

use keydir_hyper::{GateLayer, Incoming};
use keydir_rustls::{Identity, TrustAnchors, server_config};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::{Request, Status};

use crate::BoxError;
use crate::whoami::{Answer, WhoamiServer};

/// Serves until it is dropped. Who asks stands in the extensions of each request, as a [`keydir_rustls::Connection`].
/// Clients connect anew after `max_age`, and so move to a new identity before the old one is retired.
///
/// # Errors
/// If the TLS config cannot be built.
pub async fn serve<F>(
    tcp: TcpListener,
    identity: &Identity,
    anchors: &TrustAnchors,
    service: WhoamiServer<F>,
    max_age: Duration,
) -> Result<(), BoxError>
where
    F: Fn(&Request<()>) -> Result<Answer, Status> + Clone + Send + Sync + 'static,
{
    let acceptor = server_config(identity)
        .require_client(anchors)
        .alpn(["h2"])
        .acceptor()?;
    let connections = Incoming::new(tcp, acceptor);
    let server = Server::builder().layer(GateLayer::new());

    let mut server = server.max_connection_age(max_age);
    server.add_service(service).serve_with_incoming(connections).await?;
    Ok(())
}
