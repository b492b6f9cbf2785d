//! Handshakes in memory: keydir's configs on both sides, or on one, with directories that change between the flights.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails shall panic"
)]

mod anchors;
mod client;
mod hints;
mod identity;
mod naive;
mod provider;
mod sessions;
mod straddle;
mod support;
