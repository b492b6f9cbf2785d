//! Whom verifiers, session guards and live connections let in: whoever today's anchors vouch for, unless a rule of the
//! application refuses.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use keydir::Live;
#[cfg(feature = "tokio")]
use keydir::{RevisionId, Use};
use rustls::pki_types::UnixTime;
use rustls::{CertificateError, Error};

use crate::anchor::Role;
use crate::judge::Judge;
use crate::peer::Peer;
use crate::verdict::Admitted;
use crate::view::AnchorsView;

/// A rule of the application about verified peers.
pub(crate) type Rule = Arc<dyn Fn(&Peer) -> bool + Send + Sync>;

/// Decides about the peers of one side.
#[derive(Clone)]
pub(crate) struct Admission {
    pub(crate) judge: Arc<Judge>,
    pub(crate) role: Role,
    pub(crate) rule: Option<Rule>,
}

impl Admission {
    /// Whether a peer is let in, by its certificates (leaf first). The rule is asked each time: what it goes by may
    /// change at any moment.
    pub(crate) fn admits<'a>(
        &self,
        chain: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>,
        now: UnixTime,
    ) -> Result<Admitted, Error> {
        let chain = chain.into_iter();
        let admitted = self.judge.vouches(self.role, chain.clone(), now)?;
        let lets_in = self.rule.as_ref().is_none_or(|rule| {
            let peer = Peer::of_chain(chain, admitted.revision.clone());
            // One that panics must not keep others from being asked about.
            catch_unwind(AssertUnwindSafe(|| rule(&peer))).unwrap_or(false)
        });
        match lets_in {
            true => Ok(admitted),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    pub(crate) fn live(&self) -> &Live<AnchorsView> {
        self.judge.live()
    }

    /// The time by the directory's clock.
    pub(crate) fn now(&self) -> UnixTime {
        self.judge.now()
    }

    /// Another number for each change of what is trusted.
    #[cfg(feature = "tokio")]
    pub(crate) fn serial(&self) -> u64 {
        self.live().load().whole().serial()
    }

    /// How often something that was trusted no longer was.
    pub(crate) fn losses(&self) -> u64 {
        self.live().load().whole().losses()
    }

    /// Counts a use of the revision that vouches, if it is in force.
    #[cfg(feature = "tokio")]
    pub(crate) fn hold(&self, revision: &RevisionId) -> Option<Use> {
        self.live().load().get(revision.as_str()).map(|key| key.hold())
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("judge", &self.judge)
            .field("role", &self.role)
            .field("rule", &self.rule.is_some())
            .finish()
    }
}
