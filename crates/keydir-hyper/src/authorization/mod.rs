//! Requests get their credential on the way out.

mod book;
mod challenge;
mod future;
mod layer;
mod memory;
mod origin;
mod outgoing;
mod rules;
mod service;
mod source;

pub use future::AuthorizationFuture;
pub use layer::{AuthorizationBuilder, AuthorizationLayer};
pub use origin::InvalidOrigin;
pub use service::Authorization;
pub use source::NoCredential;
