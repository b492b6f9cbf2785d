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
#[cfg(any(feature = "client", feature = "server"))]
mod random;
mod replay;
#[cfg(feature = "server")]
mod serve;
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
    SwapBuilder, Transport,
};
pub use endpoint::ReportService;
pub use login::{Login, LoginView, PresentedLogin};
#[cfg(feature = "password-hash")]
pub use passwords::{AcceptedPassword, Busy, Passwords, PasswordsView, Users};
pub use replay::{NoReplay, Replay};
#[cfg(feature = "tonic")]
pub use serve::Incoming;
#[cfg(feature = "axum-server")]
pub use serve::{AxumAcceptor, AxumService};
#[cfg(feature = "axum")]
pub use serve::{ConnectionInfo, Listener};
#[cfg(feature = "server")]
pub use serve::{Gate, GateFuture, GateLayer, Server, ServerStream, serve};
pub use token::{PresentedToken, Token, TokenView};
pub use tokens::{AcceptedToken, TokenMap, Tokens, TokensView};

/// Any error that can be passed between threads.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
