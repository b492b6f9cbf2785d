//! Which key a handshake presents. rustls does not tell afterwards, but it asks its resolver on the thread that drives
//! the connection, so the resolver can leave a note there.

use std::cell::Cell;
use std::sync::Arc;

use keydir::Key;

use crate::identity_view::IdentityKey;

type Chosen = Option<Arc<Key<IdentityKey>>>;

thread_local! {
    /// `Some` while somebody wants to know.
    static NOTE: Cell<Option<Chosen>> = const { Cell::new(None) };
}

/// Called by each resolver with what it chose.
pub(crate) fn note(key: &Arc<Key<IdentityKey>>) {
    NOTE.with(|note| {
        if note.take().is_some() {
            note.set(Some(Some(Arc::clone(key))));
        }
    });
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
    if let Some(Some(key)) = NOTE.take() {
        *chosen = Some(key);
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
        assert!(outer.as_ref().is_some_and(|key| Arc::ptr_eq(key, &a)));
        assert!(inner.as_ref().is_some_and(|key| Arc::ptr_eq(key, &b)));

        noting(&mut outer, || {});
        assert!(
            outer.is_some_and(|key| Arc::ptr_eq(&key, &a)),
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
