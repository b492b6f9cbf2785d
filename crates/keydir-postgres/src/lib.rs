#![doc = include_str!("../README.md")]

mod attempt;
mod channel_binding;
mod credentials;
mod error;
mod hosts;
mod last_word;
mod lease;
mod login;
mod logins;
mod refused;
mod stream;
mod tls;
mod tried;
mod unverified;
mod view;
mod wire;

pub use credentials::Credentials;
pub use error::{LoginError, Try};
pub use lease::Lease;
pub use login::Login;
pub use refused::Refused;
pub use stream::PgStream;
pub use tls::{Handshake, PostgresTls, SslMode, TlsError};
pub use view::{Credential, CredentialsView};
pub use wire::AsksForPassword;
