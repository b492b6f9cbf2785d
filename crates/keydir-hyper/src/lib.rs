#![doc = include_str!("../README.md")]

mod authenticate;
mod authorization;
#[cfg(feature = "client")]
mod client;
mod endpoint;
mod header_value;
mod login;
#[cfg(feature = "password-hash")]
mod passwords;
mod replay;
mod token;
mod tokens;

pub use authenticate::{Authenticate, AuthenticateFuture, AuthenticateLayer, Authenticated};
#[cfg(feature = "tower-http")]
pub use authenticate::{Authorize, ValidateToken};

pub use authorization::{
    Authorization, AuthorizationBuilder, AuthorizationFuture, AuthorizationLayer, InvalidOrigin, NoCredential,
};
#[cfg(feature = "client")]
pub use client::{
    Builder, Client, ConnectError, Generation, HttpsConnector, HttpsStream, Oneshot, ResponseFuture, Retry, Swap,
    Transport,
};
pub use endpoint::ReportService;
#[cfg(feature = "password-hash")]
pub use passwords::{AcceptedPassword, Busy, Passwords, PasswordsView, Users};
pub use login::{Login, LoginView, PresentedLogin};
pub use replay::{NoReplay, Replay};
pub use token::{PresentedToken, Token, TokenView};
pub use tokens::{AcceptedToken, TokenMap, Tokens, TokensView};

/// Any error that can be passed between threads.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
