//! Which key a handshake presents. rustls does not tell afterwards, but it asks its resolver on the thread that drives
//! the connection, so the resolver can leave a note there.

use std::cell::Cell;
use std::sync::Arc;

use keydir::{Key, KeySet, Live, Use};
use rustls::sign::CertifiedKey;

use crate::identity_view::{IdentityKey, IdentityView};

/// What a handshake presents.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "tokio"), expect(dead_code, reason = "only connections look into it"))]
pub(crate) struct Choice {
    pub(crate) key: Arc<Key<IdentityKey>>,
    /// Whether it had lost the mark before, so that a new connection would present it still.
    pub(crate) superseded: bool,
}

/// The choice, and its use by the handshake.
pub(crate) type Chosen = Option<(Choice, Use)>;

thread_local! {
    /// `Some` while somebody wants to know.
    static NOTE: Cell<Option<Chosen>> = const { Cell::new(None) };
}

/// What a resolver presents, by its choice from the set of this moment.
///
/// Where somebody wants to know, the choice counts as a use from here on, and is made again if the set was swapped
/// before it was counted: so whoever has moved the mark, and then finds no use of a revision, may take it away.
pub(crate) fn present(
    live: &Live<IdentityView>,
    choose: impl for<'s> Fn(&'s KeySet<IdentityView>) -> Option<&'s Arc<Key<IdentityKey>>>,
) -> Option<Arc<CertifiedKey>> {
    loop {
        let set = live.load();
        let key = choose(&set)?;
        if !note(key) || Arc::ptr_eq(&set, &live.load()) {
            return Some(Arc::clone(key.certified()));
        }
    }
}

/// Whether somebody wanted to know.
fn note(key: &Arc<Key<IdentityKey>>) -> bool {
    NOTE.with(|note| {
        let wanted = note.take().is_some();
        if wanted {
            let choice = Choice {
                key: Arc::clone(key),
                superseded: key.is_superseded(),
            };
            note.set(Some(Some((choice, key.hold()))));
        }
        wanted
    })
}

/// Runs one step of a handshake. What it chose goes into `chosen`; if it chose nothing, that stays as it was.
#[cfg(any(feature = "tokio", test))]
pub(crate) fn noting<T>(chosen: &mut Chosen, step: impl FnOnce() -> T) -> T {
    /// Puts back what was there before, also if the step panics.
    struct Scope(Option<Chosen>);
    impl Drop for Scope {
        fn drop(&mut self) {
            NOTE.set(self.0.take());
        }
    }

    let scope = Scope(NOTE.replace(Some(None)));
    let done = step();
    if let Some(Some(noted)) = NOTE.take() {
        *chosen = Some(noted);
    }
    drop(scope);
    done
}

#[cfg(test)]
mod tests {
    use keydir::Dir;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::Identity;

    fn key() -> Arc<Key<IdentityKey>> {
        let key = KeyPair::generate().unwrap();
        let crt = CertificateParams::default().self_signed(&key).unwrap().pem();
        let dir = Dir::in_memory([("r1.crt.primary", crt), ("r1.key", key.serialize_pem())]);
        Identity::in_dir(&dir).unwrap().primary().unwrap()
    }

    #[test]
    fn a_note_goes_to_the_step_that_it_was_left_in() {
        let (a, b) = (key(), key());
        let uses = Arc::strong_count(&b);
        let (mut outer, mut inner) = (None, None);
        noting(&mut outer, || {
            note(&a);
            noting(&mut inner, || note(&b));
        });
        assert!(outer.as_ref().is_some_and(|(choice, _)| Arc::ptr_eq(&choice.key, &a)));
        assert!(inner.as_ref().is_some_and(|(choice, _)| Arc::ptr_eq(&choice.key, &b)));

        noting(&mut outer, || {});
        assert!(
            outer.is_some_and(|(choice, _)| Arc::ptr_eq(&choice.key, &a)),
            "a step without a choice"
        );

        note(&a);
        let mut nothing = None;
        noting(&mut nothing, || {});
        assert!(nothing.is_none(), "what was chosen before is none of it");
        drop(inner);
        assert_eq!(Arc::strong_count(&b), uses, "nothing is kept");
    }
}
