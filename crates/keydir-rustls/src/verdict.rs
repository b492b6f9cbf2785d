//! What was verified, remembered, so that a resumption costs a comparison and not a verification.
//!
//! Only what an anchor vouched for is kept. A chain is found by the end of its leaf's signature and compared in full;
//! each leaf has one place. A chain of unusual length is not kept: it is verified each time.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use keydir::RevisionId;
use rustls::pki_types::CertificateDer;

use crate::trust::{Role, Vouched};

/// Verdicts of each of the two ages of a shard.
const AGE: usize = 256;
const SHARDS: usize = 16;
/// The longest chain that is kept, in bytes of DER.
const MAX_CHAIN: usize = 16 * 1024;

/// That an anchor vouches for a chain.
#[derive(Clone, Debug)]
pub(crate) struct Admitted {
    pub(crate) revision: RevisionId,
    /// The trust that said so ([`Trust::serial`](crate::Trust)).
    pub(crate) serial: u64,
    /// When the first certificate on the way to the anchor ends, in seconds since 1970.
    pub(crate) not_after: u64,
}

/// A chain, what vouched for it, and under which trust.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// [`Trust::serial`](crate::Trust).
    pub(crate) serial: u64,
    pub(crate) vouched: Vouched,
}

impl Verdict {
    pub(crate) fn admitted(&self) -> Admitted {
        Admitted {
            revision: self.vouched.revision.clone(),
            serial: self.serial,
            not_after: self.vouched.not_after,
        }
    }

    fn is_of<'a>(&self, chain: impl IntoIterator<Item = &'a [u8]>) -> bool {
        self.chain.iter().map(AsRef::as_ref).eq(chain)
    }

    fn is_of_leaf(&self, leaf: &[u8]) -> bool {
        self.chain.first().is_some_and(|first| **first == *leaf)
    }
}

/// Verdicts, bounded: when the young are many they become the old, and the old are forgotten. What was just kept
/// survives the next few thousand, whoever sends them.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    shards: [RwLock<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    young: HashMap<Place, Arc<Verdict>>,
    old: HashMap<Place, Arc<Verdict>>,
}

type Place = (Role, [u8; 16]);

impl Verdicts {
    /// The verdict about exactly this chain.
    pub(crate) fn of_chain<'a>(
        &self,
        role: Role,
        chain: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>,
    ) -> Option<Arc<Verdict>> {
        let chain = chain.into_iter();
        let leaf = chain.clone().next()?;
        self.find(role, leaf).filter(|verdict| verdict.is_of(chain))
    }

    /// The last verdict about a chain of this leaf.
    pub(crate) fn of_leaf(&self, role: Role, leaf: &[u8]) -> Option<Arc<Verdict>> {
        self.find(role, leaf).filter(|verdict| verdict.is_of_leaf(leaf))
    }

    pub(crate) fn keep(&self, role: Role, verdict: Verdict) {
        let bytes: usize = verdict.chain.iter().map(|der| der.len()).sum();
        let place = verdict.chain.first().and_then(|leaf| place(role, leaf));
        let Some(place) = place.filter(|_| bytes <= MAX_CHAIN) else {
            return;
        };
        let Some(shard) = self.shards.get(shard_of(&place)) else {
            return;
        };
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        if shard.young.len() >= AGE && !shard.young.contains_key(&place) {
            shard.old = std::mem::take(&mut shard.young);
        }
        shard.young.insert(place, Arc::new(verdict));
    }

    fn find(&self, role: Role, leaf: &[u8]) -> Option<Arc<Verdict>> {
        let place = place(role, leaf)?;
        let lock = self.shards.get(shard_of(&place))?;
        let shard = lock.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(verdict) = shard.young.get(&place) {
            return Some(Arc::clone(verdict));
        }
        let verdict = Arc::clone(shard.old.get(&place)?);
        drop(shard);
        // Still in use: young again.
        let mut shard = lock.write().unwrap_or_else(PoisonError::into_inner);
        if shard.young.len() < AGE {
            shard.young.entry(place).or_insert_with(|| Arc::clone(&verdict));
        }
        Some(verdict)
    }
}

/// The end of a certificate is the end of its signature: as good as random.
fn place(role: Role, leaf: &[u8]) -> Option<Place> {
    Some((role, *leaf.last_chunk()?))
}

fn shard_of((_, [first, ..]): &Place) -> usize {
    usize::from(*first) % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(leaf: u32, serial: u64) -> Verdict {
        let mut der = vec![1; 40];
        der.extend(leaf.wrapping_mul(0x9e37_79b9).to_be_bytes());
        der.extend([2; 12]);
        Verdict {
            chain: vec![CertificateDer::from(der), CertificateDer::from(vec![3; 8])],
            serial,
            vouched: Vouched::for_tests("r1"),
        }
    }

    fn chain(verdict: &Verdict) -> impl Iterator<Item = &[u8]> + Clone {
        verdict.chain.iter().map(AsRef::as_ref)
    }

    #[test]
    fn a_verdict_is_of_one_chain_in_one_role() {
        let verdicts = Verdicts::default();
        let known = verdict(1, 7);
        verdicts.keep(Role::Client, verdict(1, 7));
        assert_eq!(verdicts.of_chain(Role::Client, chain(&known)).unwrap().serial, 7);
        assert!(verdicts.of_chain(Role::Server, chain(&known)).is_none());
        assert!(verdicts.of_chain(Role::Client, chain(&known).take(1)).is_none());
        assert!(verdicts.of_chain(Role::Client, chain(&verdict(2, 7))).is_none());
        assert!(verdicts.of_chain(Role::Client, std::iter::empty::<&[u8]>()).is_none());
        assert!(verdicts.of_leaf(Role::Client, &known.chain[0]).is_some());
        // The end is the same, the rest is not.
        let mut other = known.chain[0].to_vec();
        other[0] = 9;
        assert!(verdicts.of_leaf(Role::Client, &other).is_none());
        assert!(verdicts.of_leaf(Role::Client, &[1; 15]).is_none());
        verdicts.keep(Role::Client, verdict(1, 8));
        assert_eq!(verdicts.of_chain(Role::Client, chain(&known)).unwrap().serial, 8);
    }

    #[test]
    fn what_is_used_stays_and_the_number_is_bounded() {
        let verdicts = Verdicts::default();
        let used = verdict(0, 0);
        verdicts.keep(Role::Client, verdict(0, 0));
        for leaf in 1..50_000 {
            verdicts.keep(Role::Client, verdict(leaf, 0));
            assert!(verdicts.of_chain(Role::Client, chain(&verdict(leaf, 0))).is_some());
            if leaf % 16 == 0 {
                assert!(verdicts.of_chain(Role::Client, chain(&used)).is_some(), "{leaf}");
            }
        }
        let kept = verdicts.shards.iter().map(|shard| {
            let shard = shard.read().unwrap();
            shard.young.len() + shard.old.len()
        });
        assert!(kept.sum::<usize>() <= 2 * AGE * SHARDS);
    }

    #[test]
    fn a_chain_of_unusual_length_is_not_kept() {
        let verdicts = Verdicts::default();
        let mut long = verdict(1, 0);
        long.chain.push(CertificateDer::from(vec![0; MAX_CHAIN]));
        let leaf = long.chain[0].clone();
        verdicts.keep(Role::Client, long);
        assert!(verdicts.of_leaf(Role::Client, &leaf).is_none());
    }
}
