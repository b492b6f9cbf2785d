//! Tokens and passwords that a server accepts, and the layer that asks for them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails shall panic"
)]

#[cfg(feature = "password-hash")]
mod basic;
#[cfg(feature = "password-hash")]
mod cost;
mod hosts;
mod layer;
#[cfg(feature = "password-hash")]
mod password_files;
mod secrets;
mod support;
mod token_files;
#[cfg(feature = "tower-http")]
mod tower_http;
