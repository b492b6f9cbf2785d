#![doc = include_str!("../README.md")]

mod admission;
mod anchor;
mod anchors;
mod builder;
mod certificate;
mod choice;
mod chosen;
mod config;
#[cfg(feature = "tokio")]
mod connections;
mod crl;
mod cross;
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
#[cfg(feature = "platform-roots")]
mod platform;
mod provider;
mod resumption;
mod revocation;
mod session;
mod subject;
mod traits;
mod trust;
mod verdict;
mod verifier;
mod view;
mod walk;

pub use rustls;

pub use anchors::TrustAnchors;
pub use builder::AnchorsBuilder;
pub use config::{ClientBuilder, ServerBuilder, ServerWithoutClients, client_config, server_config};
#[cfg(feature = "tokio")]
pub use connections::{Acceptor, Connection, Connector, Ended, HandshakeError, Term, TlsStream};
pub use crl::Crl;
#[cfg(feature = "platform-roots")]
pub use error::NoPlatformRoots;
pub use error::{BuildError, NoProvider, OpenError};
pub use identity::Identity;
pub use identity_view::{IdentityKey, IdentityView};
pub use peer::Peer;
pub use provider::provider as crypto_provider;
pub use revocation::RevocationPolicy;
pub use trust::Trust;
pub use view::{Accepted, AnchorsView};
