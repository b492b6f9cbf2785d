#![doc = include_str!("../README.md")]

mod admission;
mod anchors;
mod certificate;
mod choice;
mod chosen;
mod config;
#[cfg(feature = "tokio")]
mod connections;
mod ec;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod hints;
mod identity;
mod identity_view;
mod judge;
mod peer;
mod pem;
mod provider;
mod resumption;
mod session;
mod subject;
mod trust;
mod verdict;
mod verifier;
mod view;

pub use rustls;

pub use anchors::TrustAnchors;
pub use config::{ClientBuilder, ServerBuilder, ServerWithoutClients, client_config, server_config};
#[cfg(feature = "tokio")]
pub use connections::{Acceptor, Connection, Connector, Ended, HandshakeError, TlsStream};
pub use error::{BuildError, NoProvider, OpenError};
pub use identity::Identity;
pub use identity_view::{IdentityKey, IdentityView};
pub use peer::Peer;
pub use trust::Trust;
pub use view::{Accepted, AnchorsView};
