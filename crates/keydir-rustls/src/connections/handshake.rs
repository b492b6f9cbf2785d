//! Driving a handshake of either side: within a time, and taking a note of the identity that it presents.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::ended::HandshakeError;
use crate::chosen::{Chosen, noting};

/// As long as a handshake may take, where nothing else is said.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// As long as what is in flight may go on after a revocation, likewise.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// A refused peer gets so long to read why.
const LINGER: Duration = Duration::from_secs(1);

/// Performs a handshake. The key that it presents counts as used until the note is dropped.
pub(super) async fn drive<T, IO: AsyncRead + AsyncWrite + Unpin>(
    mut handshake: Pin<&mut impl Future<Output = Result<T, (io::Error, IO)>>>,
    limit: Duration,
) -> Result<(T, Chosen), HandshakeError> {
    let mut chosen = None;
    let noted = poll_fn(|context| noting(&mut chosen, || handshake.as_mut().poll(context)));
    match timeout(limit, noted).await {
        Ok(Ok(done)) => Ok((done, chosen)),
        Ok(Err((error, io))) => {
            linger(io).await;
            Err(HandshakeError::Tls(error))
        }
        Err(_) => Err(HandshakeError::TooSlow(limit)),
    }
}

/// Lets a refused peer read the alert: to close while bytes of it are unread would reset the connection, and the
/// reason would be lost on the way.
async fn linger(mut io: impl AsyncRead + AsyncWrite + Unpin) {
    let drain = async {
        // Whoever does not listen any more misses nothing.
        let _ = io.shutdown().await;
        // Small, since each handshake's future has room for it.
        let mut rest = [0; 64];
        while matches!(io.read(&mut rest).await, Ok(1..)) {}
    };
    let _ = timeout(LINGER, drain).await;
}

/// Tells the peer that the connection ends. rustls lets nobody send an alert that says more.
pub(super) async fn close(mut tls: impl AsyncWrite + Unpin) {
    let _ = timeout(LINGER, tls.shutdown()).await;
}
