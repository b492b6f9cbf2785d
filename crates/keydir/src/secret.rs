//! Bytes that are erased when they go, and never printed.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

use zeroize::Zeroizing;

/// The bytes of one file. Erased on drop; `Debug` shows their number only.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes over bytes that a caller owns.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes().to_vec())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

impl From<&[u8]> for Secret {
    fn from(bytes: &[u8]) -> Self {
        Self::new(bytes.to_vec())
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(bytes)
    }
}

/// Tells whether two contents are the same without keeping either.
///
/// 128 bits of SipHash under keys drawn for this process: it can be compared within the process, and says nothing
/// about the content to anyone who sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u64; 2]);

impl Fingerprint {
    /// The fingerprint of some bytes, such as a certificate in DER.
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_all([bytes])
    }

    /// The fingerprint of a sequence; where its members begin and end counts.
    pub fn of_all<'a>(all: impl IntoIterator<Item = &'a [u8]>) -> Self {
        static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);
        let [mut a, mut b] = KEYS.each_ref().map(BuildHasher::build_hasher);
        for bytes in all {
            for hasher in [&mut a, &mut b] {
                hasher.write_usize(bytes.len());
                hasher.write(bytes);
            }
        }
        Self([a.finish(), b.finish()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_byte() {
        assert_eq!(format!("{:?}", Secret::from("hunter2")), "Secret(7 bytes)");
    }

    #[test]
    fn fingerprints_tell_contents_and_their_borders_apart() {
        assert_eq!(Fingerprint::of(b"a"), Fingerprint::of(b"a"));
        assert_ne!(Fingerprint::of(b"a"), Fingerprint::of(b"b"));
        let (ab_c, a_bc): ([&[u8]; 2], [&[u8]; 2]) = ([b"ab", b"c"], [b"a", b"bc"]);
        assert_ne!(Fingerprint::of_all(ab_c), Fingerprint::of_all(a_bc));
    }
}
