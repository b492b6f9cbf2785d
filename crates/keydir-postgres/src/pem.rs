//! A certificate and its key as they lie in the directory, for sqlx, which reads PEM by itself.

use keydir::{Revision, Secret};

pub(crate) struct Pem {
    pub(crate) crt: Secret,
    pub(crate) key: Secret,
}

impl Pem {
    /// Of a revision that was found to have both.
    pub(crate) fn of(revision: &Revision<'_>) -> Self {
        let part = |name| Secret::from(revision.part(name).unwrap_or_default());
        Self {
            crt: part("crt"),
            key: part("key"),
        }
    }
}
