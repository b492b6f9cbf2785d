//! Logins to a real PostgreSQL, judged by its own log.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails shall panic"
)]

mod certificates;
mod classification;
mod directory;
mod fallback;
mod faults;
mod impostor;
mod lease;
mod pki;
#[cfg(all(feature = "bb8", feature = "deadpool"))]
mod pools;
mod proxy;
mod retirement;
mod role;
mod server;
#[cfg(feature = "sqlx")]
mod sqlx;
mod tls;
