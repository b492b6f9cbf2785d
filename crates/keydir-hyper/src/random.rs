//! Where many should not do the same at one moment.

use std::hash::{BuildHasher, RandomState};

/// From 0 to 1, evenly, and another for each call. Nothing secret depends on it.
pub(crate) fn random() -> f64 {
    let bits = RandomState::new().hash_one(()) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_spread() {
        let mut all: Vec<_> = (0..1000).map(|_| random()).collect();
        assert!(all.iter().all(|share| (0.0..1.0).contains(share)));
        all.sort_by(f64::total_cmp);
        all.dedup();
        assert!(all.len() > 990 && all[0] < 0.1 && all[all.len() - 1] > 0.9);
    }
}
