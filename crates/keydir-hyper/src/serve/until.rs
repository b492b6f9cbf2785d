//! Waiting for two things at once.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

/// Drives `work` until it is done, or until something else happens: `Err`, and `work` may go on.
pub(super) async fn until<W: Future, E: Future>(mut work: Pin<&mut W>, event: E) -> Result<W::Output, E::Output> {
    let mut event = pin!(event);
    poll_fn(|context| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(Ok(done));
        }
        event.as_mut().poll(context).map(Err)
    })
    .await
}
