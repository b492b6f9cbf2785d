//! Connections for hosts that ask for one after the other.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use keydir_rustls::Acceptor;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::accepting::{Accepted, Accepting, Limits, RENEWAL};
use super::stream::ServerStream;
use super::until::until;

/// So many connections may wait for their host; more wait in tasks that count as pending handshakes.
const WAITING: usize = 64;

/// Accepts in a task of its own, so that no client and no host that is slow keeps others waiting. Dropped, it accepts no
/// more.
#[derive(Debug)]
pub(super) struct Queue {
    listener: Arc<TcpListener>,
    streams: mpsc::Receiver<ServerStream>,
}

impl Queue {
    pub(super) fn new(listener: TcpListener, acceptor: Acceptor) -> Self {
        let listener = Arc::new(listener);
        let (sender, streams) = mpsc::channel(WAITING);
        let accepting = Accepting::new(acceptor, Limits::default(), RENEWAL);
        let shared = Arc::clone(&listener);
        tokio::spawn(async move {
            let hand_over = sender.clone();
            let run = accepting.run(&shared, move |accepted| {
                let sender = hand_over.clone();
                async move {
                    let Accepted { stream, pending } = accepted;
                    // If nobody is there any more, the connection closes.
                    let _ = sender.send(stream).await;
                    drop(pending);
                }
            });
            let _ = until(pin!(run), sender.closed()).await;
        });
        Self { listener, streams }
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// `None` if the runtime of the task has ended.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<ServerStream>> {
        self.streams.poll_recv(context)
    }
}
