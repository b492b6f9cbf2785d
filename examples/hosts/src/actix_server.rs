//! An actix-web server.

use std::any::Any;
use std::net::TcpListener;

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::body::MessageBody;
use actix_web::dev::{Extensions, Server, ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::StatusCode;
use actix_web::middleware::{Next, from_fn};
use actix_web::rt::net::TcpStream;
use actix_web::web::{Data, ServiceConfig};
use actix_web::{App, Error, HttpResponse, HttpServer};
use keydir_rustls::rustls::pki_types::CertificateDer;
use keydir_rustls::{Identity, TrustAnchors, server_config};

use crate::BoxError;

/// A server with these routes. It runs when it is awaited or spawned, until its handle is told to stop it.
///
/// # Errors
/// If the TLS config cannot be built, or the listener is of no use.
pub fn server(
    tcp: TcpListener,
    identity: &Identity,
    anchors: &TrustAnchors,
    routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
) -> Result<Server, BoxError> {
    // actix-web offers h2 and http/1.1 by itself.
    let tls = server_config(identity).require_client(anchors).build()?;
    let anchors = Data::new(anchors.clone());
    let app = move || {
        let app = App::new().app_data(anchors.clone());
        app.wrap(from_fn(gate)).configure(routes.clone())
    };
    let server = HttpServer::new(app).on_connect(remember).disable_signals();
    Ok(server.workers(1).listen_rustls_0_23(tcp, tls)?.run())
}

/// The certificates of the client of a connection, the leaf first.
#[derive(Debug)]
pub struct Client(pub Vec<CertificateDer<'static>>);

fn remember(io: &dyn Any, connection: &mut Extensions) {
    let tls = io.downcast_ref::<TlsStream<TcpStream>>();
    if let Some(chain) = tls.and_then(|tls| tls.get_ref().1.peer_certificates()) {
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned());
        connection.insert(Client(chain.collect()));
    }
}

/// Refuses the requests of a client that was trusted when it connected, and is not any more.
async fn gate(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let anchors = request.app_data::<Data<TrustAnchors>>();
    let client = request.conn_data::<Client>();
    let trusted = anchors
        .zip(client)
        .and_then(|(anchors, client)| anchors.revision_of_client(&client.0));
    if trusted.is_none() {
        let refusal = HttpResponse::build(StatusCode::MISDIRECTED_REQUEST)
            .force_close()
            .finish();
        return Err(InternalError::from_response("the client is not trusted any more", refusal).into());
    }
    next.call(request).await
}
