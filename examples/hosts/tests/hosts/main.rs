//! Each host with its credentials rotating under load, and what each does when they are taken away under its hands.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails shall panic"
)]

mod actix;
mod hyper;
mod load;
mod overtaken;
mod python;
mod quinn;
mod readme;
mod reqwest;
mod scene;
mod tonic;
