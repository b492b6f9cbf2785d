//! Something that happens once, and can be asked for, or waited for by any number of threads and tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use event_listener::Event;

#[derive(Debug, Default)]
pub(crate) struct Signal {
    raised: AtomicBool,
    event: Event,
}

impl Signal {
    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    pub(crate) fn raise(&self) {
        // To notify costs an allocation, even if nobody listens.
        if !self.raised.swap(true, Ordering::AcqRel) {
            self.event.notify(usize::MAX);
        }
    }

    pub(crate) async fn wait(self: Arc<Self>) {
        while !self.is_raised() {
            let listener = self.event.listen();
            if self.is_raised() {
                return;
            }
            listener.await;
        }
    }
}
