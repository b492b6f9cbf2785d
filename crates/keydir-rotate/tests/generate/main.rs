//! What is generated, as other programs see it: OpenSSL at its strictest, GnuTLS and webpki.
#![cfg(any(feature = "aws-lc-rs", feature = "ring"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails shall panic"
)]

mod chains;
mod foreign;
mod pairs;
mod policy;
mod properties;
mod refusals;
mod revocation;
mod support;
