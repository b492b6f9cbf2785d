//! Serving over real TLS on loopback, while what the connections rest on rotates.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails shall panic"
)]

#[cfg(feature = "axum")]
mod axum;
#[cfg(feature = "axum-server")]
mod axum_server;
#[path = "../support/ca.rs"]
mod ca;
mod client;
mod curl;
mod descriptors;
mod drain;
mod gate;
mod limits;
mod protocols;
mod scene;
mod shutdown;
#[cfg(feature = "tonic")]
mod tonic;
mod upgrade;
