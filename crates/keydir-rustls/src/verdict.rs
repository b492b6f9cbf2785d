//! What was verified, remembered, so that a resumption costs a comparison and not a verification.
//!
//! Only what an anchor vouched for is kept. A chain is found by the end of its leaf's signature and compared in full;
//! each leaf has one place. A chain of unusual length is not kept: it is verified each time.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{PoisonError, RwLock};

use keydir::RevisionId;
use rustls::pki_types::UnixTime;

use crate::anchor::{Role, Vouched};
use crate::trust::Trust;

/// Verdicts of each of the two ages of a shard.
const AGE: usize = 512;
/// The chains of an age, in bytes: as many as it has verdicts, at the length that they have in practice.
const AGE_BYTES: usize = 2 * 1024 * 1024;
/// For how many, and for how many bytes of chains, an age takes memory at first.
const AGE_BEGINS: (usize, usize) = (16, 8 * 1024);
const SHARDS: usize = 8;
/// The longest chain that is kept, in bytes as it is kept.
const MAX_CHAIN: usize = 16 * 1024;

/// That an anchor vouches for a chain.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "tokio"), expect(dead_code, reason = "only connections look into it"))]
pub(crate) struct Admitted {
    /// `None` for a root of the platform.
    pub(crate) revision: Option<RevisionId>,
    /// The trust that said so ([`Trust::serial`](crate::Trust)).
    pub(crate) serial: u64,
    /// When the first certificate on the way to the anchor ends, in seconds since 1970.
    pub(crate) not_after: u64,
}

/// What vouched for a chain, and under which trust.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    /// [`Trust::serial`](crate::Trust).
    pub(crate) serial: u64,
    pub(crate) vouched: Vouched,
}

impl Verdict {
    /// Whether it is what this trust would say.
    pub(crate) fn holds(&self, trust: &Trust, now: UnixTime) -> bool {
        self.serial == trust.serial() && self.vouched.holds_at(now)
    }

    pub(crate) fn admitted(self) -> Admitted {
        Admitted {
            revision: self.vouched.revision,
            serial: self.serial,
            not_after: self.vouched.not_after,
        }
    }
}

/// A chain as it is kept: the DER of each certificate, leaf first, after its length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain<'a>(&'a [u8]);

const LENGTH: usize = size_of::<usize>();

impl<'a> Iterator for Chain<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<LENGTH>()?;
        let (der, rest) = rest.split_at_checked(usize::from_ne_bytes(*length))?;
        self.0 = rest;
        Some(der)
    }
}

/// Verdicts, bounded: when the young are many they become the old, and the old are forgotten. What was just kept
/// survives the next few thousand, whoever sends them.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    shards: [RwLock<Shard>; SHARDS],
}

type Place = (Role, [u8; 16]);

impl Verdicts {
    /// The verdict about exactly this chain.
    pub(crate) fn of_chain<'a>(
        &self,
        role: Role,
        chain: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>,
    ) -> Option<Verdict> {
        let chain = chain.into_iter();
        let leaf = chain.clone().next()?;
        self.find(
            role,
            leaf,
            |known| known.eq(chain.clone()),
            |verdict, _| verdict.clone(),
        )
    }

    /// Reads the last verdict about a chain of this leaf, and the chain.
    pub(crate) fn of_leaf<T>(&self, role: Role, leaf: &[u8], read: impl FnOnce(&Verdict, Chain<'_>) -> T) -> Option<T> {
        self.find(role, leaf, |mut known| known.next() == Some(leaf), read)
    }

    pub(crate) fn keep<'a>(
        &self,
        role: Role,
        chain: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>,
        verdict: Verdict,
    ) {
        let chain = chain.into_iter();
        let bytes: usize = chain.clone().map(|der| LENGTH + der.len()).sum();
        let place = chain.clone().next().and_then(|leaf| place(role, leaf));
        let Some(place) = place.filter(|_| bytes <= MAX_CHAIN) else {
            return;
        };
        let Some(shard) = self.shards.get(shard_of(&place)) else {
            return;
        };
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        // What nobody has asked for since what is trusted changed goes first.
        if verdict.serial > shard.serial {
            shard.serial = verdict.serial;
            shard.grow_old();
        }
        if shard.young.renew(&place, chain.clone(), &verdict) {
            return;
        }
        shard.young.remove(&place);
        if !shard.young.has_room(bytes) {
            shard.grow_old();
        }
        shard.young.insert(place, verdict, |chains| {
            for der in chain {
                chains.extend(der.len().to_ne_bytes());
                chains.extend(der);
            }
        });
    }

    fn find<T>(
        &self,
        role: Role,
        leaf: &[u8],
        fits: impl FnOnce(Chain<'_>) -> bool,
        read: impl FnOnce(&Verdict, Chain<'_>) -> T,
    ) -> Option<T> {
        let place = place(role, leaf)?;
        let lock = self.shards.get(shard_of(&place))?;
        let shard = lock.read().unwrap_or_else(PoisonError::into_inner);
        let young = shard.young.get(&place);
        let (verdict, chain) = young.or_else(|| shard.old.get(&place))?;
        if !fits(chain) {
            return None;
        }
        let found = read(verdict, chain);
        if young.is_none() {
            drop(shard);
            let mut shard = lock.write().unwrap_or_else(PoisonError::into_inner);
            shard.rejuvenate(&place);
        }
        Some(found)
    }
}

#[derive(Debug, Default)]
struct Shard {
    /// Of the latest trust that a verdict was made under.
    serial: u64,
    young: Age,
    old: Age,
}

impl Shard {
    /// The memory of those that are forgotten is used again.
    fn grow_old(&mut self) {
        std::mem::swap(&mut self.young, &mut self.old);
        self.young.clear();
    }

    /// Still in use: young again, while there is room.
    fn rejuvenate(&mut self, place: &Place) {
        let Some((verdict, Chain(chain))) = self.old.get(place) else {
            return;
        };
        if self.young.has_room(chain.len()) && self.young.get(place).is_none() {
            self.young
                .insert(*place, verdict.clone(), |chains| chains.extend(chain));
        }
    }
}

/// Verdicts of about the same time. Their chains lie in one buffer, so that one more is no allocation of its own.
#[derive(Debug, Default)]
struct Age {
    verdicts: HashMap<Place, (Range<usize>, Verdict)>,
    chains: Vec<u8>,
}

impl Age {
    fn get(&self, place: &Place) -> Option<(&Verdict, Chain<'_>)> {
        let (range, verdict) = self.verdicts.get(place)?;
        Some((verdict, Chain(self.chains.get(range.clone())?)))
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.verdicts.len() < AGE && self.chains.len() + bytes <= AGE_BYTES
    }

    /// The next verdict about a chain that is here, whether or not there is room. `false` if it is not here.
    fn renew<'a>(&mut self, place: &Place, chain: impl Iterator<Item = &'a [u8]>, next: &Verdict) -> bool {
        let Some((range, verdict)) = self.verdicts.get_mut(place) else {
            return false;
        };
        let known = self.chains.get(range.clone()).map(Chain);
        let renewed = known.is_some_and(|known| known.eq(chain));
        if renewed {
            verdict.clone_from(next);
        }
        renewed
    }

    /// Closes the gap, so that a leaf which comes with ever other chains takes the room of one.
    fn remove(&mut self, place: &Place) {
        let Some((gap, _)) = self.verdicts.remove(place) else {
            return;
        };
        let after = self.chains.split_off(gap.end.min(self.chains.len()));
        self.chains.truncate(gap.start);
        self.chains.extend(after);
        for (range, _) in self.verdicts.values_mut() {
            if range.start >= gap.end {
                *range = range.start - gap.len()..range.end - gap.len();
            }
        }
    }

    /// At a place that is free.
    fn insert(&mut self, place: Place, verdict: Verdict, write: impl FnOnce(&mut Vec<u8>)) {
        if self.verdicts.is_empty() {
            let (verdicts, bytes) = AGE_BEGINS;
            self.verdicts.reserve(verdicts);
            self.chains.reserve(bytes);
        }
        let from = self.chains.len();
        write(&mut self.chains);
        self.verdicts.insert(place, (from..self.chains.len(), verdict));
    }

    fn clear(&mut self) {
        self.verdicts.clear();
        self.chains.clear();
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

    /// One that is told from others by its end.
    fn verdict(not_after: u64) -> Verdict {
        under(7, not_after)
    }

    fn under(serial: u64, not_after: u64) -> Verdict {
        let mut vouched = Vouched::for_tests("r1");
        vouched.not_after = not_after;
        Verdict { serial, vouched }
    }

    fn chain_of(leaf: u32) -> Vec<Vec<u8>> {
        let mut der = vec![1; 40];
        der.extend(leaf.wrapping_mul(0x9e37_79b9).to_be_bytes());
        der.extend([2; 12]);
        vec![der, vec![3; 8]]
    }

    fn parts(chain: &[Vec<u8>]) -> impl Iterator<Item = &[u8]> + Clone {
        chain.iter().map(AsRef::as_ref)
    }

    impl Verdicts {
        fn end(&self, chain: &[Vec<u8>]) -> Option<u64> {
            let verdict = self.of_chain(Role::Client, parts(chain))?;
            Some(verdict.vouched.not_after)
        }

        /// Verdicts, and the bytes of their chains.
        fn size(&self) -> (usize, usize) {
            let shards = self.shards.iter().map(|shard| shard.read().unwrap());
            shards.fold((0, 0), |(verdicts, bytes), shard| {
                let Shard { young, old, .. } = &*shard;
                (
                    verdicts + young.verdicts.len() + old.verdicts.len(),
                    bytes + young.chains.len() + old.chains.len(),
                )
            })
        }
    }

    #[test]
    fn a_verdict_is_of_one_chain_in_one_role() {
        let verdicts = Verdicts::default();
        let known = chain_of(1);
        verdicts.keep(Role::Client, parts(&known), verdict(7));
        assert_eq!(verdicts.end(&known), Some(7));
        assert!(verdicts.of_chain(Role::Server, parts(&known)).is_none());
        assert_eq!(verdicts.end(&known[..1]), None);
        assert_eq!(verdicts.end(&[known.concat()]), None);
        assert_eq!(verdicts.end(&[known.clone(), known.clone()].concat()), None);
        assert_eq!(verdicts.end(&chain_of(2)), None);
        assert_eq!(verdicts.end(&[]), None);

        let of_leaf = |leaf: &[u8]| {
            let read =
                |verdict: &Verdict, chain: Chain<'_>| (verdict.vouched.not_after, chain.map(<[u8]>::to_vec).collect());
            verdicts.of_leaf(Role::Client, leaf, read)
        };
        assert_eq!(of_leaf(&known[0]), Some((7, known.clone())));
        // The end is the same, the rest is not.
        let mut other = known[0].clone();
        other[0] = 9;
        assert_eq!(of_leaf(&other), None);
        assert_eq!(of_leaf(&[1; 15]), None);

        verdicts.keep(Role::Client, parts(&known), verdict(8));
        assert_eq!(verdicts.end(&known), Some(8));
        verdicts.keep(Role::Client, parts(&known[..1]), verdict(9));
        assert_eq!((verdicts.end(&known), verdicts.end(&known[..1])), (None, Some(9)));
        assert_eq!(of_leaf(&known[0]), Some((9, known[..1].to_vec())));
    }

    #[test]
    fn what_is_used_stays_and_the_number_is_bounded() {
        let verdicts = Verdicts::default();
        let used = chain_of(0);
        verdicts.keep(Role::Client, parts(&used), verdict(0));
        for leaf in 1..50_000 {
            verdicts.keep(Role::Client, parts(&chain_of(leaf)), verdict(leaf.into()));
            assert_eq!(verdicts.end(&chain_of(leaf)), Some(leaf.into()));
            if leaf % 16 == 0 {
                assert_eq!(verdicts.end(&used), Some(0), "{leaf}");
            }
        }
        assert!(verdicts.size().0 <= 2 * AGE * SHARDS);
    }

    #[test]
    fn long_chains_are_bounded_by_their_bytes_and_a_new_verdict_about_one_takes_none() {
        let verdicts = Verdicts::default();
        let long = |leaf| {
            let mut chain = chain_of(leaf);
            chain.push(vec![4; MAX_CHAIN / 2]);
            chain
        };
        for leaf in 0..5_000 {
            verdicts.keep(Role::Client, parts(&long(leaf)), verdict(leaf.into()));
            assert_eq!(verdicts.end(&long(leaf)), Some(leaf.into()));
        }
        let size = verdicts.size();
        assert!(size.1 <= 2 * AGE_BYTES * SHARDS, "{size:?}");
        for serial in 0..5_000 {
            verdicts.keep(Role::Client, parts(&long(4_999)), verdict(serial));
            assert_eq!(verdicts.end(&long(4_999)), Some(serial));
        }
        assert_eq!(verdicts.size(), size);
    }

    #[test]
    fn a_leaf_that_comes_with_ever_other_chains_pushes_nobody_out() {
        let verdicts = Verdicts::default();
        let leaves = 0..1_000;
        for leaf in leaves.clone() {
            verdicts.keep(Role::Client, parts(&chain_of(leaf)), verdict(leaf.into()));
        }
        let mut other = chain_of(0);
        for length in 0..5_000 {
            other[1] = vec![4; length];
            verdicts.keep(Role::Client, parts(&other), verdict(7));
            assert_eq!(verdicts.end(&other), Some(7));
        }
        for leaf in leaves.skip(1) {
            assert_eq!(verdicts.end(&chain_of(leaf)), Some(leaf.into()));
        }
        assert_eq!(verdicts.size().0, 1_000);
    }

    #[test]
    fn what_was_said_under_another_trust_goes_first() {
        let verdicts = Verdicts::default();
        for serial in 1..=1000 {
            for leaf in 0..10 {
                let leaf = 10 * u32::try_from(serial).unwrap() + leaf;
                verdicts.keep(Role::Client, parts(&chain_of(leaf)), under(serial, 1));
                assert_eq!(verdicts.end(&chain_of(leaf)), Some(1));
            }
        }
        assert!(verdicts.size().0 < 200, "{:?}", verdicts.size());
        // Who comes late with an older trust takes nobody's place.
        let before = verdicts.size().0;
        verdicts.keep(Role::Client, parts(&chain_of(1)), under(3, 1));
        assert_eq!(verdicts.size().0, before + 1);
    }

    #[test]
    fn a_chain_of_unusual_length_is_not_kept() {
        let verdicts = Verdicts::default();
        let mut long = chain_of(1);
        long.push(vec![0; MAX_CHAIN]);
        verdicts.keep(Role::Client, parts(&long), verdict(0));
        assert_eq!(verdicts.size(), (0, 0));
    }
}
