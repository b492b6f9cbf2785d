//! The shipped decision and the shipped steps, in a world of consumers that load when they like.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails shall panic"
)]

mod courses;
mod exhaustive;
mod mesh;
mod simulation;
mod world;
