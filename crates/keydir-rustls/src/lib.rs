#![doc = include_str!("../README.md")]

mod anchors;
mod certificate;
mod config;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod hints;
mod identity;
mod identity_view;
mod judge;
mod pem;
mod provider;
mod resumption;
mod session;
mod trust;
mod verdict;
mod verifier;
mod view;

pub use rustls;

pub use anchors::TrustAnchors;
pub use config::{ClientBuilder, ServerBuilder, ServerWithoutClients, client_config, server_config};
pub use error::{BuildError, NoProvider, OpenError};
pub use identity::Identity;
pub use identity_view::{IdentityKey, IdentityView};
pub use trust::Trust;
pub use view::{Accepted, AnchorsView};
