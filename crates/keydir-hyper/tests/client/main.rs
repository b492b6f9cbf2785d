//! The client's pool against a server that is none of ours.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails shall panic"
)]

mod bodies;
#[path = "../support/ca.rs"]
mod ca;
mod ends;
mod handshake;
mod origins;
mod pki;
mod pool;
mod retry;
mod server;
mod support;
mod swap;
