//! Something that happens once, and can be asked for, or waited for by any number of threads and tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use event_listener::Event;

#[derive(Debug, Default)]
pub(crate) struct Signal {
    raised: AtomicBool,
    told: AtomicBool,
    event: Event,
}

impl Signal {
    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// From now on whoever asks is told; whoever waits, goes on waiting for [`raise`](Self::raise).
    pub(crate) fn raise_for_askers(&self) {
        self.raised.store(true, Ordering::Release);
    }

    pub(crate) fn raise(&self) {
        self.raise_for_askers();
        // To notify costs an allocation, even if nobody listens.
        if !self.told.swap(true, Ordering::AcqRel) {
            self.event.notify(usize::MAX);
        }
    }

    pub(crate) async fn wait(self: Arc<Self>) {
        while !self.told.load(Ordering::Acquire) {
            let listener = self.event.listen();
            if self.told.load(Ordering::Acquire) {
                return;
            }
            listener.await;
        }
    }
}
