//! A QUIC server.

use std::sync::Arc;

use keydir_rustls::rustls::pki_types::CertificateDer;
use keydir_rustls::rustls::version::TLS13;
use keydir_rustls::{Identity, TrustAnchors, server_config};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, ServerConfig, VarInt};

use crate::BoxError;

/// Why a connection was closed: connect again.
pub const ENDED: VarInt = VarInt::from_u32(1);

/// QUIC has no TLS but 1.3.
///
/// # Errors
/// If the TLS config cannot be built.
pub fn config(identity: &Identity, anchors: &TrustAnchors) -> Result<ServerConfig, BoxError> {
    let tls = server_config(identity).require_client(anchors);
    let tls = tls.alpn(["whoami"]).versions(&[&TLS13]).build()?;
    Ok(ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?)))
}

/// Serves until it is dropped or the endpoint is closed. `answer` is asked on each stream, with the certificates of the
/// client.
pub async fn serve<F>(endpoint: Endpoint, identity: Identity, anchors: TrustAnchors, answer: F)
where
    F: Fn(&[CertificateDer<'static>], &[u8]) -> Vec<u8> + Clone + Send + Sync + 'static,
{
    while let Some(incoming) = endpoint.accept().await {
        let (identity, anchors, answer) = (identity.clone(), anchors.clone(), answer.clone());
        tokio::spawn(async move {
            // Whoever does not get in knows why.
            let _ = connection(incoming, &identity, &anchors, answer).await;
        });
    }
}

/// One connection. It is closed when the client is not trusted any more, or our own identity was revoked.
async fn connection<F>(
    incoming: Incoming,
    identity: &Identity,
    anchors: &TrustAnchors,
    answer: F,
) -> Result<(), BoxError>
where
    F: Fn(&[CertificateDer<'static>], &[u8]) -> Vec<u8> + Clone + Send + Sync + 'static,
{
    // Before the handshake: what that presents is not older.
    let own = identity.primary()?;
    let _rests_on = own.hold();
    let mut changes = anchors.live().subscribe();
    let connection = incoming.await?;
    let client: Arc<[_]> = peer(&connection).into();
    loop {
        let streams = tokio::select! {
            streams = connection.accept_bi() => Some(streams?),
            _ = changes.changed() => None,
            () = own.ended() => None,
        };
        if anchors.revision_of_client(&client).is_none() || !own.stands() {
            break;
        }
        if let Some(streams) = streams {
            tokio::spawn(stream(streams, Arc::clone(&client), answer.clone()));
        }
    }
    connection.close(ENDED, b"what it rests on was revoked");
    Ok(())
}

/// The certificates of the other end, the leaf first.
pub fn peer(connection: &Connection) -> Vec<CertificateDer<'static>> {
    let identity = connection.peer_identity();
    let chain = identity.and_then(|identity| identity.downcast().ok());
    chain.map(|chain| *chain).unwrap_or_default()
}

async fn stream<F>(streams: (SendStream, RecvStream), client: Arc<[CertificateDer<'static>]>, answer: F)
where
    F: Fn(&[CertificateDer<'static>], &[u8]) -> Vec<u8>,
{
    let (mut send, mut receive) = streams;
    if let Ok(question) = receive.read_to_end(1024).await {
        // A client that has gone away needs no answer.
        let _ = send.write_all(&answer(&client, &question)).await;
        let _ = send.finish();
        let _ = send.stopped().await;
    }
}
