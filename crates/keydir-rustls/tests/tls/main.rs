//! Handshakes in memory: keydir's configs on both sides, or on one, with directories that change between the flights.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails shall panic"
)]

mod anchors;
mod choice;
mod client;
#[cfg(feature = "tokio")]
mod connections;
mod cross;
mod fips;
#[cfg(feature = "tokio")]
mod grace;
mod hints;
mod identity;
mod matrix;
mod naive;
#[cfg(feature = "platform-roots")]
mod platform;
mod presented;
mod provider;
mod revocation;
mod sessions;
mod straddle;
mod support;
#[cfg(feature = "tokio")]
mod terms;
