//! A server and a client with key directories of their own, and the rotation of all that is in them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use keydir::{Live, View};
use keydir_integration::{Ca, Leaf, Written, ca_file, folder_in_memory, leaf_files};
use keydir_rustls::rustls::pki_types::CertificateDer;
use keydir_rustls::{Connection, Identity, TrustAnchors};
use tempfile::TempDir;

use crate::load::Load;

/// One end: who it is and whom it trusts, as it sees it, and as its publisher does.
pub(crate) struct End {
    pub(crate) identity: Identity,
    pub(crate) anchors: TrustAnchors,
    identities: Written,
    cas: Written,
}

pub(crate) struct Scene {
    pub(crate) server: End,
    pub(crate) client: End,
    /// The CA of the revision that is presented.
    pub(crate) ca: Ca,
    /// Requests that the server has answered.
    pub(crate) served: Arc<AtomicUsize>,
    round: u64,
    _folder: TempDir,
}

impl Scene {
    /// Both ends present `r1`, of the CA `c1`, which both trust.
    pub(crate) fn new() -> Self {
        let (folder, ca) = (folder_in_memory(), Ca::new("ca 1"));
        let end = |name: &str| End::new(&folder, name, &ca);
        Self {
            server: end("server"),
            client: end("client"),
            ca,
            served: Arc::default(),
            round: 1,
            _folder: folder,
        }
    }

    /// Counts an answer; what it says of a connection of keydir's own.
    pub(crate) fn describe(served: &AtomicUsize, connection: Option<&Connection>) -> String {
        served.fetch_add(1, SeqCst);
        let connection = connection.unwrap();
        let (own, peer) = (connection.identity().unwrap(), connection.peer().unwrap());
        format!("{} {}", own.id(), peer.subject())
    }

    /// Both trust the next CA, and have its leaves ready.
    pub(crate) fn stage(&mut self) {
        self.round += 1;
        self.ca = Ca::new(&format!("ca {}", self.round));
        for end in [&mut self.server, &mut self.client] {
            end.cas.add(ca_file(self.round, &self.ca));
            end.cas.publish();
        }
        for end in [&mut self.server, &mut self.client] {
            end.identities
                .add(leaf_files(self.round, leaf(&self.ca, self.round), ""));
            end.identities.publish();
        }
    }

    /// Both present what is ready.
    pub(crate) fn promote(&mut self) {
        for end in [&mut self.server, &mut self.client] {
            end.identities.promote(self.round - 1, self.round);
            end.identities.publish();
        }
    }

    /// A whole rotation. The client leaves what is old first, as only a client can without losing a request: every other
    /// time because of its own identity, and because of the server's CA. The server follows when nothing rests on it.
    pub(crate) async fn rotate(&mut self, load: &Load) {
        self.stage();
        load.more().await;
        self.promote();
        load.more().await;
        let identity_first = self.round.is_multiple_of(2);
        for of_identity in [identity_first, !identity_first] {
            if of_identity {
                self.client.retire(self.round - 1);
                load.clients_from(self.round);
            } else {
                self.client.distrust(self.round - 1);
                load.servers_from(self.round);
            }
            load.more().await;
        }
        let last = self.round - 1;
        self.server.until_unused(last).await;
        self.server.retire(last);
        self.server.distrust(last);
        load.more().await;
    }
}

impl End {
    fn new(folder: &TempDir, name: &str, ca: &Ca) -> Self {
        let [identities, cas] = ["tls", "ca"].map(|what| folder.path().join(format!("{name}-{what}")));
        let mut end = Self {
            identities: Written::new(&identities, leaf_files(1, leaf(ca, 1), ".primary")),
            cas: Written::new(&cas, ca_file(1, ca)),
            identity: Identity::open(&identities).unwrap(),
            anchors: TrustAnchors::open(&cas).unwrap(),
        };
        end.identities.consumer(end.identity.live());
        end.cas.consumer(end.anchors.live());
        end
    }

    /// Removes a revision of its own.
    pub(crate) fn retire(&mut self, revision: u64) {
        self.identities.remove(&format!("r{revision}"));
        self.identities.publish();
    }

    /// Removes a CA.
    pub(crate) fn distrust(&mut self, revision: u64) {
        self.cas.remove(&format!("c{revision}"));
        self.cas.publish();
    }

    /// Waits until the report says that nothing rests on a revision, as a rotator does.
    pub(crate) async fn until_unused(&self, revision: u64) {
        let uses = || {
            let own = uses(self.identity.live(), &format!("r{revision}"));
            own + uses(self.anchors.live(), &format!("c{revision}"))
        };
        eventually("nothing rests on it", || uses() == 0).await;
    }
}

pub(crate) fn uses<V: View>(live: &Live<V>, id: &str) -> usize {
    live.dir().report().sets.iter().map(|set| set.uses(id)).sum()
}

/// A leaf that bears the name of its revision.
fn leaf(ca: &Ca, revision: u64) -> Leaf {
    ca.leaf(&format!("r{revision}"))
}

/// The common name in a leaf.
pub(crate) fn name_in(chain: &[CertificateDer<'_>]) -> String {
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    let name = leaf.subject().iter_common_name().next().unwrap();
    name.as_str().unwrap().to_owned()
}

/// Waits until something is the case; panics with `what` after 20 seconds.
pub(crate) async fn eventually(what: &str, is_the_case: impl Fn() -> bool) {
    let wait = async {
        while !is_the_case() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
    assert!(waited.is_ok(), "still not the case after 20 s: {what}");
}
