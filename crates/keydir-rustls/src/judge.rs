//! Whether a peer is accepted by what is trusted at this moment. Verifiers, session guards and the application ask here.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use keydir::{Clock, Live};
use rustls::Error;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};

use crate::trust::Role;
use crate::verdict::{Admitted, Verdict, Verdicts};
use crate::view::AnchorsView;

pub(crate) struct Judge {
    live: Live<AnchorsView>,
    clock: Arc<dyn Clock>,
    algorithms: WebPkiSupportedAlgorithms,
    verdicts: Verdicts,
}

impl Judge {
    pub(crate) fn new(live: Live<AnchorsView>, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self {
            clock: Arc::clone(live.dir().clock()),
            live,
            algorithms,
            verdicts: Verdicts::default(),
        }
    }

    pub(crate) fn live(&self) -> &Live<AnchorsView> {
        &self.live
    }

    pub(crate) fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.algorithms
    }

    /// The time by the directory's clock, for callers whom rustls tells none.
    pub(crate) fn now(&self) -> UnixTime {
        let since_1970 = self.clock.now().duration_since(SystemTime::UNIX_EPOCH);
        UnixTime::since_unix_epoch(since_1970.unwrap_or_default())
    }

    /// Whether a chain (leaf first) is vouched for today, and by which revision.
    pub(crate) fn vouches<'a>(
        &self,
        role: Role,
        chain: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>,
        now: UnixTime,
    ) -> Result<Admitted, Error> {
        let chain = chain.into_iter();
        let set = self.live.load();
        let trust = set.whole();
        let known = self.verdicts.of_chain(role, chain.clone());
        if let Some(verdict) = known
            && verdict.serial == trust.serial()
            && verdict.vouched.holds_at(now)
        {
            return Ok(verdict.admitted());
        }
        let chain: Vec<_> = chain.map(CertificateDer::from).collect();
        let (leaf, intermediates) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        let vouched = trust.vouch(role, leaf, intermediates, now, self.algorithms.all)?;
        let verdict = Verdict {
            chain: chain.into_iter().map(CertificateDer::into_owned).collect(),
            serial: trust.serial(),
            vouched,
        };
        let admitted = verdict.admitted();
        self.verdicts.keep(role, verdict);
        Ok(admitted)
    }

    /// Whether what was verified a moment ago in the same handshake still stands, asked when the peer proves that it
    /// has the key: trust may have changed between the two flights. rustls gives the leaf only, so the chain is the
    /// one remembered for it. If none is remembered (too long, or pushed out by thousands since) the first answer
    /// stands: this check narrows a race, the sessions are guarded anyway.
    pub(crate) fn still_vouches(&self, role: Role, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        let Some(verdict) = self.verdicts.of_leaf(role, leaf) else {
            return Ok(());
        };
        let chain = verdict.chain.iter().map(AsRef::as_ref);
        self.vouches(role, chain, self.now()).map(drop)
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge")
            .field("live", &self.live)
            .finish_non_exhaustive()
    }
}
