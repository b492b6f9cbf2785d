#![doc = include_str!("../README.md")]

mod channel_binding;
mod credentials;
mod refused;
mod stream;
mod tls;
mod unverified;
mod view;
mod wire;

pub use credentials::Credentials;
pub use refused::Refused;
pub use stream::PgStream;
pub use tls::{Handshake, PostgresTls, SslMode, TlsError};
pub use view::{Credential, CredentialsView};
pub use wire::AsksForPassword;
