//! The program, run as its users run it: on directories that each test makes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

mod check;
mod hostile;
mod http;
mod ls;
mod publish;
mod rotate;
mod support;
mod watch;
