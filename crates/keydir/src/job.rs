//! Whether a directory is being looked at, who waits for it, and how closely the next look must be.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use event_listener::{Event, EventListener};

use crate::read::Look;

#[derive(Default)]
pub(crate) struct Job {
    state: Mutex<State>,
    end: Event,
}

#[derive(Default)]
struct State {
    phase: Phase,
    /// Something came up while it was running.
    again: bool,
    look: Option<Look>,
    requested: u64,
    running: u64,
    ended: u64,
}

#[derive(Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Idle,
    /// Handed to the workers, or running.
    Busy,
    /// Not over, but it has to wait for its alarm.
    Waiting,
}

impl Job {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a look that reads. The ticket to wait for; true if the job is to be handed to the workers.
    pub(crate) fn request(&self) -> (u64, bool) {
        let mut state = self.lock();
        state.requested += 1;
        state.look = Some(Look::Read);
        (state.requested, state.start())
    }

    /// Something happened. While the job waits for its alarm, that comes soon enough.
    pub(crate) fn wake(&self, look: Look) -> bool {
        let mut state = self.lock();
        state.want(look);
        state.phase != Phase::Waiting && state.start()
    }

    pub(crate) fn due(&self) -> bool {
        let mut state = self.lock();
        state.want(Look::Poll);
        state.start()
    }

    pub(crate) fn begin(&self) -> Look {
        let mut state = self.lock();
        state.phase = Phase::Busy;
        state.again = false;
        state.running = state.requested;
        state.look.take().unwrap_or(Look::Poll)
    }

    /// The look is over, or `waits` for its alarm. True if it is to run again at once.
    pub(crate) fn end(&self, waits: bool, look: Look) -> bool {
        let mut state = self.lock();
        if waits {
            state.want(look);
            state.phase = Phase::Waiting;
            return false;
        }
        state.ended = state.ended.max(state.running);
        let again = std::mem::take(&mut state.again);
        state.phase = if again { Phase::Busy } else { Phase::Idle };
        drop(state);
        self.end.notify(usize::MAX);
        again
    }

    /// It hangs: nobody waits for it any longer.
    pub(crate) fn give_up(&self) {
        let mut state = self.lock();
        state.ended = state.requested;
        drop(state);
        self.end.notify(usize::MAX);
    }

    /// Resolves when the look of this ticket is over.
    pub(crate) async fn ended(&self, ticket: u64) {
        loop {
            let listener = self.end.listen();
            if self.lock().ended >= ticket {
                return;
            }
            listener.await;
        }
    }

    /// Resolves at the end of the next look.
    pub(crate) fn next_end(&self) -> impl Future<Output = ()> + Send + use<> {
        let listener: EventListener = self.end.listen();
        listener
    }
}

impl State {
    fn want(&mut self, look: Look) {
        self.look = Some(match self.look {
            Some(Look::Read) => Look::Read,
            Some(Look::Event) if look == Look::Poll => Look::Event,
            _ => look,
        });
    }

    fn start(&mut self) -> bool {
        match self.phase {
            Phase::Idle | Phase::Waiting => {
                self.phase = Phase::Busy;
                true
            }
            Phase::Busy => {
                self.again = true;
                false
            }
        }
    }
}
