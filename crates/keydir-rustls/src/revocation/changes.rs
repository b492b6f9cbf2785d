//! What a change of the CRLs means: who is refused from now on, and what whoever publishes them should know.

use std::time::SystemTime;

use super::Revocations;
use crate::crl::Crl;

impl Revocations {
    /// Whether somebody who was let in by `last` may be refused now, because a list says so or because none does any
    /// more, or a current one.
    pub(crate) fn refuse_more_than(&self, last: &Self, now: SystemTime, then: Option<SystemTime>) -> bool {
        let ended = self.policy.enforce_expiry && self.newly_expired(last, now, then).next().is_some();
        ended || self.number != last.number && (self.revoke_more_than(last) || self.miss_some_of(last))
    }

    /// Where it is not known whose a list is, what was in force is thought to be little, and what is, much.
    fn revoke_more_than(&self, last: &Self) -> bool {
        let before: Vec<_> = last.in_force(|key| key != Some(false)).collect();
        let revokes_more = |crl: &Crl| {
            let known = before.iter().copied();
            !crl.adds_nothing_to(known.filter(|known| known.has_the_key_of(crl) == Some(true)))
        };
        self.in_force(|key| key == Some(true)).any(revokes_more)
    }

    fn miss_some_of(&self, last: &Self) -> bool {
        let is_missed = |crl: &Crl| {
            let mut others = self.of_issuer(crl);
            !others.any(|other| other.has_the_key_of(crl) == Some(true) && other.has_the_scope_of(crl))
        };
        self.policy.deny_unknown && last.all().any(is_missed)
    }

    /// Tells of lists that are past their next update and were not so before.
    pub(crate) fn tell_of_expired(&self, last: &Self, now: SystemTime, then: Option<SystemTime>) {
        for crl in self.newly_expired(last, now, then) {
            tracing::warn!(
                issuer = crl.issuer(),
                next_update = crl.next_update_seconds(),
                enforced = self.policy.enforce_expiry,
                "a CRL has expired: publish the current one"
            );
        }
    }

    /// Tells of lists that are in force no more though none as new is there, as after a step back to an older
    /// publication. Whoever publishes may do that, but hardly means it. `counts` says whether a list would still matter.
    pub(crate) fn tell_of_lost(&self, last: &Self, counts: impl Fn(&Crl) -> bool) {
        let is_lost = |crl: &&Crl| {
            // In doubt it is the same key, or each new issue of such a list would be told of.
            let mut others = self
                .of_issuer(crl)
                .filter(|other| other.has_the_key_of(crl) != Some(false));
            let adds_nothing = crl.adds_nothing_to(others.clone());
            let is_stale = |other: &Crl| crl.supersedes(other) || !other.has_the_scope_of(crl);
            !adds_nothing && others.all(is_stale)
        };
        if self.number == last.number {
            return;
        }
        for crl in last
            .in_force(|key| key != Some(false))
            .filter(is_lost)
            .filter(|crl| counts(crl))
        {
            tracing::warn!(
                issuer = crl.issuer(),
                revoked = crl.revoked(),
                "a CRL is gone and none as new has taken its place: whom it alone revoked is let in again, publish the \
                 current one"
            );
        }
    }

    /// Tells of new lists whose issuer has another name than any anchor: nobody can say yet whether they ever count.
    pub(crate) fn tell_of_strangers(&self, last: &Self, is_anchor: impl Fn(&[u8]) -> bool) {
        let is_stranger = |crl: &&Crl| !is_anchor(crl.issuer_name()) && !last.holds(crl);
        for crl in self.all().filter(is_stranger) {
            tracing::info!(
                issuer = crl.issuer(),
                "a CRL is of no CA in the directory: it counts for an intermediate CA of that name, if peers show one"
            );
        }
    }

    /// Those that no other of the name supersedes, where `may_be` says by [`Crl::has_the_key_of`] which ones are of
    /// one key.
    fn in_force(&self, may_be: impl Fn(Option<bool>) -> bool) -> impl Iterator<Item = &Crl> {
        let is_superseded = move |crl: &Crl| {
            let mut others = self.of_issuer(crl);
            others.any(|newer| newer.supersedes(crl) && may_be(newer.has_the_key_of(crl)))
        };
        self.all().filter(move |crl| !is_superseded(crl))
    }

    fn newly_expired(&self, last: &Self, now: SystemTime, then: Option<SystemTime>) -> impl Iterator<Item = &Crl> {
        let had_expired = move |crl: &Crl| then.is_some_and(|then| crl.has_expired_by(then)) && last.holds(crl);
        self.all()
            .filter(move |crl| crl.has_expired_by(now) && !had_expired(crl))
    }

    fn holds(&self, crl: &Crl) -> bool {
        self.of_issuer(crl)
            .any(|known| known.fingerprint() == crl.fingerprint())
    }

    fn of_issuer(&self, crl: &Crl) -> impl Iterator<Item = &Crl> + Clone {
        let of_name = self.by_issuer.get(crl.issuer_name());
        of_name.into_iter().flatten().map(AsRef::as_ref)
    }

    fn all(&self) -> impl Iterator<Item = &Crl> {
        self.by_issuer.values().flatten().map(AsRef::as_ref)
    }
}
