//! What a new revision is made of: random keys, passwords and tokens, key pairs, certificate authorities and what they
//! issue.
//!
//! Everything here is pure but for randomness: the time is a parameter, and no file is touched.
//!
//! ```
//! # #[cfg(any(feature = "aws-lc-rs", feature = "ring"))] {
//! use keydir_rotate::generate::{Ca, CaProfile, LeafProfile};
//!
//! let mesh: CaProfile = toml::from_str(r#"name = "mesh"
//! life = "90d""#)?;
//! let api: LeafProfile = toml::from_str(r#"dns = ["api.example.com"]
//! usage = ["server", "client"]
//! life = "1d""#)?;
//!
//! # let now = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000);
//! let ca = Ca::create(&mesh, &"r1".parse()?, now)?;
//! let leaf = ca.issue(&api, now)?;
//! let files = [("r7.crt.primary", leaf.crt.as_bytes()), ("r7.key", leaf.key.expose())];
//! # let dir = keydir::Dir::in_memory(files);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod algorithm;
mod error;
mod names;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod pair;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod pem;
mod profile;
mod random;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod x509;

pub use algorithm::KeyAlgorithm;
pub use error::Error;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
pub use pair::KeyPair;
pub use profile::{CaProfile, LeafProfile, LeafUsage};
pub use random::{password, symmetric, token, token_sha256};
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
pub use x509::{Ca, Certificate, Issued, Revoked, Serial};
