//! The configs of all sides: keydir's, rustls's own, and rustls's own with what a peer puts into it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keydir::Dir;
use keydir_rustls::{ClientBuilder, Identity, ServerBuilder, TrustAnchors, client_config, server_config};
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::telling::Telling;
use super::{CAS, Case, STRANGER, Sessions};

/// Client and server.
pub(super) type Pair = (Arc<ClientConfig>, Arc<ServerConfig>);

/// One key exchange for both sides: the cheapest, beside which any cost of ours looks largest.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: vec![kx_group::X25519],
        ..default_provider()
    })
}

/// What all sides read.
#[derive(Debug)]
pub(super) struct Files(PathBuf);

impl Files {
    pub(super) fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    pub(super) fn write(&self, name: String, content: &str) {
        fs::write(self.0.join(name), content).unwrap();
    }

    fn read(&self, name: String) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }

    /// Ends with the one that the leaves are of.
    fn cas(&self, count: usize) -> Vec<String> {
        (CAS - count..CAS).map(|n| self.read(format!("ca-{n}.crt"))).collect()
    }

    /// Certificate and key.
    pub(super) fn leaf(&self, end: &str, n: usize) -> [PathBuf; 2] {
        ["crt", "key"].map(|part| self.0.join(format!("{end}-{n}.{part}")))
    }
}

/// keydir's builders for one case.
pub(super) struct Ours {
    files: Files,
    case: Case,
    /// Each end has what it trusts for itself, as in two processes.
    of_client: TrustAnchors,
    of_server: TrustAnchors,
}

impl Ours {
    pub(super) fn new(files: Files, case: Case) -> Self {
        let cas = files.cas(case.cas);
        let anchors = || {
            let files = cas
                .iter()
                .enumerate()
                .map(|(n, crt)| (format!("c{n}.crt"), crt.as_str()));
            TrustAnchors::builder(&Dir::in_memory(files))
                .with_provider(provider())
                .build()
                .unwrap()
        };
        Self {
            of_client: anchors(),
            of_server: anchors(),
            files,
            case,
        }
    }

    fn identity(&self, end: &str, n: usize) -> Identity {
        let read = |leaf: [PathBuf; 2]| leaf.map(|path| fs::read_to_string(path).unwrap());
        let [crt, key] = read(self.files.leaf(end, n));
        let dir = match self.case.rotating {
            true => {
                let [old_crt, old_key] = read(self.files.leaf(STRANGER, 0));
                let old = [("r1.crt.primary", old_crt), ("r1.key", old_key)];
                Dir::in_memory(old.into_iter().chain([("r2.crt", crt), ("r2.key", key)]))
            }
            false => Dir::in_memory([("r1.crt.primary", crt), ("r1.key", key)]),
        };
        Identity::with_provider(&dir, provider()).unwrap()
    }

    pub(super) fn builders(&self, n: usize) -> (ClientBuilder, ServerBuilder) {
        let case = self.case;
        let server = server_config(&self.identity("server", n));
        let server = match case.mutual {
            true => server.require_client(&self.of_server),
            false => server.no_client(),
        };
        let server = match case.sessions {
            Sessions::Tickets => server.tickets(),
            Sessions::Off | Sessions::Stored => server,
        };
        let client = client_config(&self.of_client).versions(&[&TLS13]);
        let client = if case.names_told {
            client
        } else {
            client.without_hints()
        };
        let client = match case.mutual {
            true => client.identity(&self.identity("client", n)),
            false => client,
        };
        (client, server.versions(&[&TLS13]))
    }

    pub(super) fn configs(&self, n: usize) -> Pair {
        let (client, server) = self.builders(n);
        shared(self.case, client.build().unwrap(), server.build().unwrap())
    }
}

/// rustls's own configs for one case.
pub(super) struct Plain {
    files: Files,
    case: Case,
    of_client: Arc<dyn ServerCertVerifier>,
    of_server: Arc<dyn ClientCertVerifier>,
}

impl Plain {
    /// `tells`: its clients tell servers the names of the CAs, as keydir's do and rustls's by themselves do not.
    pub(super) fn new(files: Files, case: Case, tells: bool) -> Self {
        let mut roots = RootCertStore::empty();
        for ca in files.cas(case.cas) {
            roots
                .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
                .unwrap();
        }
        let roots = Arc::new(roots);
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .build()
            .unwrap();
        let of_client: Arc<dyn ServerCertVerifier> = match tells {
            true => Arc::new(Telling::new(verifier, &roots)),
            false => verifier,
        };
        let of_server = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .build()
            .unwrap();
        Self {
            files,
            case,
            of_client,
            of_server,
        }
    }

    /// Its server presents what the resolver says, if there is one.
    pub(super) fn configs(&self, n: usize, resolver: Option<Arc<dyn ResolvesServerCert>>) -> Pair {
        let identity = |end: &str| {
            let [crt, key] = self.files.leaf(end, n);
            let crt = CertificateDer::from_pem_file(crt).unwrap();
            (vec![crt], PrivateKeyDer::from_pem_file(key).unwrap())
        };
        let server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .unwrap();
        let server = match self.case.mutual {
            true => server.with_client_cert_verifier(Arc::clone(&self.of_server)),
            false => server.with_no_client_auth(),
        };
        let mut server = match resolver {
            Some(resolver) => server.with_cert_resolver(resolver),
            None => {
                let (chain, key) = identity("server");
                server.with_single_cert(chain, key).unwrap()
            }
        };
        // As keydir sets it.
        server.session_storage = ServerSessionMemoryCache::new(4096);
        if self.case.sessions == Sessions::Tickets {
            server.ticketer = Ticketer::new().unwrap();
        }
        let client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&self.of_client));
        let client = match self.case.mutual {
            true => {
                let (chain, key) = identity("client");
                client.with_client_auth_cert(chain, key).unwrap()
            }
            false => client.with_no_client_auth(),
        };
        shared(self.case, client, server)
    }
}

fn shared(case: Case, mut client: ClientConfig, mut server: ServerConfig) -> Pair {
    if case.sessions == Sessions::Off {
        client.resumption = Resumption::disabled();
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
    }
    (Arc::new(client), Arc::new(server))
}
