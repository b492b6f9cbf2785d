#![doc = include_str!("../README.md")]

mod authenticate;
#[cfg(feature = "client")]
mod client;
mod endpoint;
#[cfg(feature = "password-hash")]
mod passwords;
mod replay;
mod tokens;

pub use authenticate::{Authenticate, AuthenticateFuture, AuthenticateLayer, Authenticated};
#[cfg(feature = "tower-http")]
pub use authenticate::{Authorize, ValidateToken};

#[cfg(feature = "client")]
pub use client::{
    Builder, Client, ConnectError, Generation, HttpsConnector, HttpsStream, Oneshot, ResponseFuture, Retry, Swap,
    Transport,
};
pub use endpoint::ReportService;
#[cfg(feature = "password-hash")]
pub use passwords::{AcceptedPassword, Busy, Passwords, PasswordsView, Users};
pub use replay::Replay;
pub use tokens::{AcceptedToken, TokenMap, Tokens, TokensView};

/// Any error that can be passed between threads.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
