//! The end of a server, as its connections hear of it.

use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::until::until;

/// A client that has asked for nothing gets so long: a request may be on its way.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The server's side: it says when connections are cut, once it shuts down.
#[derive(Debug)]
pub(super) struct Stop(watch::Sender<Option<Instant>>);

impl Stop {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    pub(super) fn at(&self, cut: Instant) {
        self.0.send_replace(Some(cut));
    }

    pub(super) fn stopping(&self) -> Stopping {
        Stopping(self.0.subscribe())
    }
}

/// A connection's side.
#[derive(Clone, Debug)]
pub(super) struct Stopping(watch::Receiver<Option<Instant>>);

impl Stopping {
    /// Resolves when the server shuts down, with the time when connections are cut.
    pub(super) async fn begun(&mut self) -> Instant {
        match self.0.wait_for(Option::is_some).await.map(|cut| *cut) {
            Ok(Some(cut)) => cut,
            // The server was dropped; its connections live on.
            _ => pending().await,
        }
    }

    /// Resolves when connections are cut.
    pub(super) async fn cut(&mut self) {
        sleep_until(self.begun().await).await;
    }

    /// Resolves when nobody waits any more for a client that has asked for nothing.
    pub(super) async fn last_words(&mut self) {
        let _ = until(pin!(sleep(LAST_WORDS)), self.cut()).await;
    }
}
