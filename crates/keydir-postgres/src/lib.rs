#![doc = include_str!("../README.md")]

mod attempt;
mod channel_binding;
mod credentials;
mod error;
mod good_bye;
mod hosts;
mod last_word;
mod lease;
mod login;
mod logins;
#[cfg(feature = "sqlx")]
mod pem;
#[cfg(feature = "_pool")]
mod pool;
mod refused;
mod retirement;
#[cfg(feature = "sqlx")]
mod sqlx;
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
#[cfg(feature = "deadpool")]
pub use pool::DeadpoolManager;
#[cfg(feature = "_pool")]
pub use pool::Leased;
#[cfg(feature = "bb8")]
pub use pool::{Bb8Error, Bb8Manager, Sweeper};
pub use refused::Refused;
pub use retirement::NotSafe;
#[cfg(feature = "sqlx")]
pub use sqlx::{SqlxError, SqlxLogin, SqlxRotation};
pub use stream::PgStream;
pub use tls::{Handshake, PostgresTls, SslMode, TlsError};
pub use view::{Credential, CredentialsView};
pub use wire::AsksForPassword;
