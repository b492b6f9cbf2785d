//! Every kind of credential rotates under load, over TCP, by HTTP/1.1 and HTTP/2: no request fails, retries off, and
//! none that began after a removal is carried by what was removed, counted on the other side, which is none of ours.
//! Beside each the ways that do not hold. The full counts are for `cargo xtask prove requests`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails shall panic"
)]

mod client_identity;
mod client_trust;
mod headers;
mod load;
mod pki;
mod plain_client;
mod plain_server;
mod server_identity;
mod server_trust;
