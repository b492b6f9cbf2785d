//! What is presented or trusted is told of some time before it expires.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::key::Key;
use crate::keyset::KeySet;
use crate::view::{Piece, View};

/// In the last sixth of its validity, so that whoever renews in time, as most do after half or two thirds of it, is not
/// warned; but no more than this ahead.
const AT_MOST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

fn warns_at(piece: &Piece) -> Option<SystemTime> {
    let validity = piece.not_after.duration_since(piece.not_before).ok()?;
    piece.not_after.checked_sub((validity / 6).min(AT_MOST))
}

/// The keys whose end matters: all that are accepted, else the primary.
fn that_matter<'a, V: View>(set: &'a KeySet<V>, view: &V) -> impl Iterator<Item = &'a Arc<Key<V::Item>>> {
    let accepts = view.usage().accepts;
    let all = accepts.then(|| set.iter()).into_iter().flatten();
    let primary = set.primary().ok().filter(|_| !accepts);
    all.chain(primary)
}

/// When the next certificate will have to be warned of.
pub(crate) fn next<V: View>(set: &KeySet<V>, view: &V) -> Option<SystemTime> {
    that_matter(set, view)
        .flat_map(|key| key.pieces())
        .filter_map(warns_at)
        .filter(|at| *at > set.as_of)
        .min()
}

/// Those that are to be warned of now, and were not in the set before.
pub(crate) fn due<'a, V: View>(
    set: &'a KeySet<V>,
    last: &KeySet<V>,
    view: &V,
) -> Vec<(&'a Arc<Key<V::Item>>, &'a Piece)> {
    let mattered = |key: &Key<V::Item>| {
        let before = match view.usage().accepts {
            true => last.get(key.id().as_str()),
            false => last.primary().ok(),
        };
        before.is_some_and(|before| before.derivation == key.derivation)
    };
    let pieces = that_matter(set, view).flat_map(|key| key.pieces().iter().map(move |piece| (key, piece)));
    pieces
        .filter(|(key, piece)| {
            let at = warns_at(piece).filter(|at| *at <= set.as_of && !piece.has_ended_at(set.as_of));
            at.is_some_and(|at| last.as_of < at || !mattered(key))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Fingerprint;

    #[test]
    fn the_last_sixth_or_thirty_days() {
        let day = Duration::from_secs(24 * 60 * 60);
        let ahead = |days: u32| {
            let piece = Piece {
                fingerprint: Fingerprint::of(b""),
                not_before: SystemTime::UNIX_EPOCH,
                not_after: SystemTime::UNIX_EPOCH + day * days,
            };
            piece.not_after.duration_since(warns_at(&piece).unwrap()).unwrap()
        };
        assert_eq!([1, 90, 180, 3650].map(ahead), [day / 6, day * 15, day * 30, day * 30]);
    }
}
