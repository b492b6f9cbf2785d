//! What clients send with their requests, judged by the servers that get it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails shall panic"
)]

mod binding;
mod both_ends;
#[cfg(feature = "client")]
#[path = "../support/ca.rs"]
mod ca;
mod credentials;
#[cfg(feature = "client")]
mod https;
#[cfg(feature = "reqwest")]
mod of_reqwest;
mod presented;
mod refusals;
mod replay;
mod secrecy;
#[cfg(feature = "client")]
mod servers;
mod spray;
mod support;
