//! How a directory is read as passwords that are accepted.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::sync::{LazyLock, OnceLock};

use keydir::{Broken, Candidates, Fingerprint, Parsed, Revision, RevisionId, Unusable, Usage, View, uses};

use super::hash::Hash;

/// A wrong password is tried against all hashes of its user. Rotation needs two.
const MOST_OF_A_USER: usize = 16;

/// Reads a directory as passwords that are accepted. [`Passwords`](crate::Passwords) makes it.
#[derive(Clone, Copy, Debug)]
pub struct PasswordsView;

/// A user with the hash of one password.
pub struct AcceptedPassword {
    user: String,
    hash: Hash,
    /// Of the password, once one was found to be right.
    verified: OnceLock<Fingerprint>,
}

impl AcceptedPassword {
    /// The name to log in with.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Whether this password was right before.
    pub(super) fn remembers(&self, password: Fingerprint) -> bool {
        self.verified.get() == Some(&password)
    }

    /// Whether the password is right. What was found out is kept as long as the hash is.
    pub(super) fn matches(&self, password: &[u8]) -> Result<bool, argon2::Error> {
        let fingerprint = Fingerprint::of(password);
        let right = self.remembers(fingerprint) || self.hash.matches(password)?;
        if right {
            let _ = self.verified.set(fingerprint);
        }
        Ok(right)
    }

    /// The same work, of which nothing comes.
    pub(super) fn pretend(&self, password: &[u8]) -> Result<(), argon2::Error> {
        black_box(self.hash.matches(password)?);
        Ok(())
    }
}

impl fmt::Debug for AcceptedPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptedPassword")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Which revisions have the passwords of a user.
#[derive(Debug, Default)]
pub struct Users {
    index: HashMap<String, usize>,
    revisions: Vec<Vec<RevisionId>>,
}

impl Users {
    /// The user's revisions in natural order, if there is one of this name.
    pub(super) fn find(&self, user: &str) -> Option<&[RevisionId]> {
        self.revisions.get(*self.index.get(user)?).map(Vec::as_slice)
    }

    /// The revisions of another user in place of one who is unknown, so that a name costs what a known one does, also where
    /// users' hashes differ in cost or number. Always of the same user while there is that one: what a name costs must not
    /// change with a publication, since what a known one costs does not.
    pub(super) fn instead_of(&self, user: &str) -> &[RevisionId] {
        static WEIGHT: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let heaviest = self
            .index
            .iter()
            .max_by_key(|(known, _)| WEIGHT.hash_one((known, user)));
        let revisions = heaviest.and_then(|(_, index)| self.revisions.get(*index));
        revisions.map(Vec::as_slice).unwrap_or_default()
    }
}

impl View for PasswordsView {
    type Item = AcceptedPassword;
    type Whole = Users;

    fn usage(&self) -> &Usage {
        &uses::PASSWORD_CHECK
    }

    fn parse(&self, revision: &Revision<'_>) -> Result<Parsed<AcceptedPassword>, Unusable> {
        let user = revision.basic_user_name()?.to_owned();
        let hash = Hash::parse(revision.argon2_hash()?).map_err(|unusable| unusable.part("password-hash"))?;
        let verified = OnceLock::new();
        Ok(Parsed::new(AcceptedPassword { user, hash, verified }))
    }

    fn combine(&self, keys: &Candidates<'_, AcceptedPassword>) -> Result<Users, Broken> {
        let mut users = Users::default();
        for (id, password) in keys.iter() {
            let next = users.revisions.len();
            let index = *users.index.entry(password.user.clone()).or_insert(next);
            match users.revisions.get_mut(index) {
                None => users.revisions.push(vec![id.clone()]),
                Some(revisions) if revisions.len() < MOST_OF_A_USER => revisions.push(id.clone()),
                Some(_) => {
                    return Err(Broken::new(format!(
                        "revision {id} is one more than {MOST_OF_A_USER} passwords of the same user, each of which a wrong \
                         one is tried against: remove those that are not in use any more"
                    )));
                }
            }
        }
        Ok(users)
    }
}

#[cfg(test)]
mod tests {
    use keydir::Dir;

    use crate::passwords::Passwords;

    /// A known name costs the same after each publication, so an unknown one must too.
    #[test]
    fn an_unknown_name_is_taken_for_the_same_user_after_each_publication() {
        let hash = "$argon2id$v=19$m=32,t=1,p=1$c29tZXNhbHQ$4B4RlHx0aXnFJDxLGN0Zsw";
        // In another order each time, and with another number of revisions.
        let files = |publication: usize| -> Vec<(String, String)> {
            let of = |number: usize| {
                let id = format!("r{}", (number * 7 + publication * 5) % 20);
                [
                    (format!("{id}.username"), format!("user {number}")),
                    (format!("{id}.password-hash"), hash.to_owned()),
                ]
            };
            (0..20).flat_map(of).collect()
        };
        let dir = Dir::in_memory(files(0));
        let passwords = Passwords::in_dir(&dir).unwrap();
        let taken_for = || -> Vec<String> {
            let set = passwords.live().load();
            let user = |name: usize| {
                let revisions = set.whole().instead_of(&format!("unknown {name}"));
                set.get(revisions[0].as_str()).unwrap().user().to_owned()
            };
            (0..50).map(user).collect()
        };
        let first = taken_for();
        assert!(first.iter().any(|user| *user != first[0]), "not all for one");
        for publication in 1..5 {
            dir.publish(files(publication)).unwrap();
            assert_eq!(taken_for(), first);
        }
    }
}
