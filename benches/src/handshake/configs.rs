//! The configs of both sides: keydir's, and rustls's own.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use keydir::Dir;
use keydir_rustls::{Identity, TrustAnchors, client_config, server_config};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::{CAS, Case, Sessions};

/// Client and server.
pub(super) type Pair = (Arc<ClientConfig>, Arc<ServerConfig>);

/// One key exchange for both sides: the cheapest, beside which any cost of ours looks largest.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: vec![kx_group::X25519],
        ..default_provider()
    })
}

/// Makes the pair with this number.
pub(super) fn maker(side: &str, folder: &Path, case: Case) -> Box<dyn Fn(usize) -> Pair> {
    let read = {
        let folder = folder.to_owned();
        move |name: String| fs::read_to_string(folder.join(name)).unwrap()
    };
    let cas: Vec<String> = (CAS - case.cas..CAS).map(|n| read(format!("ca-{n}.crt"))).collect();
    let leaf = move |end: &str, n: usize| ["crt", "key"].map(|part| read(format!("{end}-{n}.{part}")));
    let make: Box<dyn Fn(usize) -> (ClientConfig, ServerConfig)> = match side {
        "ours" => ours(&cas, leaf, case),
        "static" => plain(&cas, leaf, case),
        other => panic!("no side {other}"),
    };
    Box::new(move |n| {
        let (mut client, mut server) = make(n);
        if case.sessions == Sessions::Off {
            client.resumption = Resumption::disabled();
            server.session_storage = Arc::new(NoServerSessionStorage {});
            server.send_tls13_tickets = 0;
        }
        (Arc::new(client), Arc::new(server))
    })
}

fn ours(
    cas: &[String],
    leaf: impl Fn(&str, usize) -> [String; 2] + 'static,
    case: Case,
) -> Box<dyn Fn(usize) -> (ClientConfig, ServerConfig)> {
    // Each end has what it trusts for itself, as in two processes.
    let anchors = || {
        let files = cas
            .iter()
            .enumerate()
            .map(|(n, crt)| (format!("c{n}.crt"), crt.as_str()));
        TrustAnchors::with_provider(&Dir::in_memory(files), provider()).unwrap()
    };
    let identity = move |end: &str, n: usize| {
        let [crt, key] = leaf(end, n);
        let dir = Dir::in_memory([("r1.crt.primary", crt), ("r1.key", key)]);
        Identity::with_provider(&dir, provider()).unwrap()
    };
    let (of_client, of_server) = (anchors(), anchors());
    Box::new(move |n| {
        let server = server_config(&identity("server", n));
        let server = match case.mutual {
            true => server.require_client(&of_server),
            false => server.no_client(),
        };
        let server = match case.sessions {
            Sessions::Tickets => server.tickets(),
            Sessions::Off | Sessions::Stored => server,
        };
        let client = client_config(&of_client).versions(&[&TLS13]);
        let client = if case.hints { client } else { client.without_hints() };
        let client = match case.mutual {
            true => client.identity(&identity("client", n)),
            false => client,
        };
        (client.build().unwrap(), server.versions(&[&TLS13]).build().unwrap())
    })
}

fn plain(
    cas: &[String],
    leaf: impl Fn(&str, usize) -> [String; 2] + 'static,
    case: Case,
) -> Box<dyn Fn(usize) -> (ClientConfig, ServerConfig)> {
    let mut roots = RootCertStore::empty();
    for ca in cas {
        roots
            .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
            .unwrap();
    }
    let roots = Arc::new(roots);
    let of_client = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider())
        .build()
        .unwrap();
    let of_server = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .unwrap();
    let identity = move |end: &str, n: usize| {
        let [crt, key] = leaf(end, n);
        let crt = CertificateDer::from_pem_slice(crt.as_bytes()).unwrap();
        (vec![crt], PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
    };
    Box::new(move |n| {
        let server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .unwrap();
        let server = match case.mutual {
            true => server.with_client_cert_verifier(Arc::clone(&of_server)),
            false => server.with_no_client_auth(),
        };
        let (chain, key) = identity("server", n);
        let mut server = server.with_single_cert(chain, key).unwrap();
        // As keydir sets it.
        server.session_storage = ServerSessionMemoryCache::new(4096);
        if case.sessions == Sessions::Tickets {
            server.ticketer = Ticketer::new().unwrap();
        }
        let client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .unwrap();
        let client = client.with_webpki_verifier(Arc::clone(&of_client));
        let client = match case.mutual {
            true => {
                let (chain, key) = identity("client", n);
                client.with_client_auth_cert(chain, key).unwrap()
            }
            false => client.with_no_client_auth(),
        };
        (client, server)
    })
}
