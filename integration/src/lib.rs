//! What the end-to-end tests share: directories that are written as the kubelet does, clocks, views for every use.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "only tests use this crate; they report by panicking"
)]

mod canaries;
mod clock;
mod keys;
mod pki;
mod plain;
mod program;
mod services;
mod tree;
pub mod views;
mod written;

pub use canaries::never_to_be_printed;
pub use clock::ManualClock;
pub use keys::KeyDir;
pub use pki::{Ca, Leaf};
pub use plain::{Answer, Connection, PlainClient, Version};
pub use program::{End, Program, example, free_port, keydir, tool};
pub use services::{Api, Call, Crawl, Serve, loaded};
pub use tree::{Entry, Tree, without_read_override};
pub use written::{Written, ca_file, folder_in_memory, leaf_files};

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Waits until something is the case; panics with `what` after a minute.
pub fn eventually(what: &str, mut is_the_case: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_the_case() {
        assert!(
            begun.elapsed() < program::PATIENCE,
            "still not the case after a minute: {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Uses up what inotify has for this user, as long as the answer is kept: whoever opens a directory meanwhile gets no
/// events, so that nothing is looked at but when the test says so, or by polling.
#[must_use]
pub fn without_events() -> Vec<OwnedFd> {
    let instance = || rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC).ok();
    std::iter::from_fn(instance).collect()
}
