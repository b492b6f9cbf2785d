//! Bodies that can be sent again.
use bytes::Buf;
use http_body_util::{Empty, Full};

/// A request body that can be sent once more from its beginning.
pub trait Replay: Sized {
    /// The same body, or `None` if it cannot be had again.
    fn replay(&self) -> Option<Self>;
}

impl<D: Buf + Clone> Replay for Full<D> {
    fn replay(&self) -> Option<Self> {
        Some(self.clone())
    }
}

impl<D> Replay for Empty<D> {
    fn replay(&self) -> Option<Self> {
        Some(Self::new())
    }
}
