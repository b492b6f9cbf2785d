//! Whether a peer is accepted by what is trusted at this moment. Verifiers, session guards and the application ask here.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use keydir::{Clock, Live};
use rustls::Error;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};

use crate::anchor::Role;
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
        match self.verdicts.of_chain(role, chain.clone()) {
            Some(verdict) if verdict.holds(trust, now) => return Ok(verdict.admitted()),
            // Trust has changed, but nothing that this verdict rests on: it need not be verified anew.
            Some(verdict) if verdict.vouched.holds_at(now) && trust.stands_by(&verdict.vouched) => {
                let verdict = Verdict {
                    serial: trust.serial(),
                    ..verdict
                };
                self.verdicts.keep(role, chain, verdict.clone());
                return Ok(verdict.admitted());
            }
            _ => {}
        }
        let mut intermediates = chain.clone();
        let leaf = intermediates.next().ok_or(Error::NoCertificatesPresented)?;
        let verdict = Verdict {
            serial: trust.serial(),
            vouched: trust.vouch(role, &leaf.into(), intermediates, now, self.algorithms.all)?,
        };
        self.verdicts.keep(role, chain, verdict.clone());
        Ok(verdict.admitted())
    }

    /// Whether what was verified a moment ago in the same handshake still stands, asked when the peer proves that it
    /// has the key: trust may have changed between the two flights. rustls gives the leaf only, so the chain is the
    /// one remembered for it. If none is remembered (too long, or pushed out by thousands since) the first answer
    /// stands: this check narrows a race, the sessions are guarded anyway.
    pub(crate) fn still_vouches(&self, role: Role, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        let now = self.now();
        let set = self.live.load();
        let of_old_trust = self.verdicts.of_leaf(role, leaf, |verdict, chain| {
            (!verdict.holds(set.whole(), now)).then(|| chain.map(<[u8]>::to_vec).collect::<Vec<_>>())
        });
        match of_old_trust.flatten() {
            Some(chain) => self.vouches(role, chain.iter().map(AsRef::as_ref), now).map(drop),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge")
            .field("live", &self.live)
            .finish_non_exhaustive()
    }
}
