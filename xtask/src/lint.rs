//! Format, lints and documentation, over the whole workspace.

use crate::{Outcome, run};

pub(crate) fn format() -> Outcome {
    run::run(run::cargo().args(["fmt", "--all", "--check"]))
}

pub(crate) fn clippy() -> Outcome {
    run::run(run::cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ]))
}

/// Private items are documented too, so that links inside the code are checked like those of the
/// public pages.
pub(crate) fn docs() -> Outcome {
    run::run(
        run::cargo()
            .args([
                "doc",
                "--workspace",
                "--no-deps",
                "--all-features",
                "--document-private-items",
            ])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}
