#![doc = include_str!("../README.md")]

#[cfg(feature = "client")]
mod client;
mod endpoint;
mod replay;

#[cfg(feature = "client")]
pub use client::{
    Builder, Client, ConnectError, Generation, HttpsConnector, HttpsStream, Oneshot, ResponseFuture, Retry, Swap,
    Transport,
};
pub use endpoint::ReportService;
pub use replay::Replay;

/// Any error that can be passed between threads.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
