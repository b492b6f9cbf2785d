//! Ending a session that nobody uses, from below: pools hand idle clients to nobody who might drop them.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;
use tokio::sync::oneshot;

/// The message Terminate (PostgreSQL documentation, "Message Formats").
const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

/// Asks for the end of one session.
#[derive(Debug, Default)]
pub(crate) struct AskForEnd {
    ask: Mutex<Option<oneshot::Sender<()>>>,
    written: Arc<AtomicBool>,
}

impl AskForEnd {
    /// Of this stream from now on.
    pub(crate) fn of_stream(&self) -> GoodBye {
        let (ask, asked) = oneshot::channel();
        *self.ask.lock().unwrap_or_else(PoisonError::into_inner) = Some(ask);
        GoodBye {
            state: State::Goes { asked: Some(asked) },
            written: Arc::clone(&self.written),
        }
    }

    /// Only for a session on which nothing is under way.
    #[cfg(feature = "_pool")]
    pub(crate) fn ask(&self) {
        let ask = self.ask.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Nobody hears it if the session has ended by itself.
        let _ = ask.map(|ask| ask.send(()));
    }

    /// Whether anything was written since this was asked last.
    #[cfg(feature = "bb8")]
    pub(crate) fn was_written(&self) -> bool {
        self.written.swap(false, Ordering::Relaxed)
    }
}

/// The end of one session, as its stream sees it.
#[derive(Debug)]
pub(crate) struct GoodBye {
    state: State,
    written: Arc<AtomicBool>,
}

#[derive(Debug)]
enum State {
    Goes { asked: Option<oneshot::Receiver<()>> },
    Says { written: usize },
    Said,
}

impl GoodBye {
    pub(crate) fn writes(&self) {
        self.written.store(true, Ordering::Relaxed);
    }

    /// To be asked before each read: says good-bye if that was asked for, and then there is nothing more to read. Pending
    /// means that it is being said.
    pub(crate) fn poll_is_said(
        &mut self,
        mut stream: Pin<&mut impl AsyncWrite>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        loop {
            match &mut self.state {
                State::Goes { asked: None } => return Poll::Ready(Ok(false)),
                State::Goes { asked: Some(asked) } => match Pin::new(asked).poll(context) {
                    Poll::Ready(Ok(())) => self.state = State::Says { written: 0 },
                    // Nobody can ask any more.
                    Poll::Ready(Err(_)) => self.state = State::Goes { asked: None },
                    Poll::Pending => return Poll::Ready(Ok(false)),
                },
                State::Says { written } => match TERMINATE.get(*written..) {
                    Some(rest) if !rest.is_empty() => {
                        *written += ready!(stream.as_mut().poll_write(context, rest))?.max(1);
                    }
                    _ => {
                        ready!(stream.as_mut().poll_shutdown(context))?;
                        self.state = State::Said;
                    }
                },
                State::Said => return Poll::Ready(Ok(true)),
            }
        }
    }
}
