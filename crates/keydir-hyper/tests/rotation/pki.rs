//! CAs and leaves that are called by the number of their revision, and configs of plain rustls.

use std::sync::Arc;

use keydir::Dir;
use keydir_rustls::TrustAnchors;
use keydir_rustls::rustls::crypto::aws_lc_rs::default_provider;
use keydir_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use keydir_rustls::rustls::server::WebPkiClientVerifier;
use keydir_rustls::rustls::{ClientConfig, DEFAULT_VERSIONS, RootCertStore, ServerConfig};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
}

pub(crate) struct Leaf {
    der: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

pub(crate) type Files = Vec<(String, String)>;

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            der: certificate.der().clone(),
            pem: certificate.pem(),
        }
    }

    /// Whose common name is `r<revision>`.
    pub(crate) fn leaf(&self, revision: u64) -> Leaf {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("r{revision}"));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            key,
        }
    }

    pub(crate) fn files(cas: &[(u64, &Self)]) -> Files {
        cas.iter()
            .map(|(n, ca)| (format!("c{n}.crt"), ca.pem.clone()))
            .collect()
    }

    /// Trusted for ever.
    pub(crate) fn anchors(&self) -> TrustAnchors {
        TrustAnchors::in_dir(&Dir::in_memory(Self::files(&[(1, self)]))).unwrap()
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        Arc::new(roots)
    }
}

impl Leaf {
    /// Of several, the first is the primary.
    pub(crate) fn files(leaves: &[(u64, &Self)]) -> Files {
        let mut files = Vec::new();
        for (place, (n, leaf)) in leaves.iter().enumerate() {
            let mark = if place == 0 { ".primary" } else { "" };
            files.push((format!("r{n}.crt{mark}"), leaf.pem.clone()));
            files.push((format!("r{n}.key"), leaf.key.serialize_pem()));
        }
        files
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }
}

/// A plain server's, which presents `leaf`, and asks for certificates if it trusts somebody's.
pub(crate) fn plain_server(leaf: &Leaf, clients: Option<&Ca>) -> ServerConfig {
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(DEFAULT_VERSIONS)
        .unwrap();
    let builder = match clients {
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(ca.roots(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    builder.with_single_cert(vec![leaf.der.clone()], leaf.key()).unwrap()
}

/// A plain client's, which trusts `servers`.
pub(crate) fn plain_client(servers: &Ca, leaf: Option<&Leaf>, alpn: &str) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(DEFAULT_VERSIONS)
        .unwrap()
        .with_root_certificates(servers.roots());
    let mut config = match leaf {
        Some(leaf) => builder
            .with_client_auth_cert(vec![leaf.der.clone()], leaf.key())
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    config
}

/// Of a leaf's common name, `r17`: 17.
pub(crate) fn revision(leaf: &CertificateDer<'_>) -> u64 {
    // 06 03 55 04 03 0c <length> <text>: the last one is the subject's.
    let marker = [0x06, 0x03, 0x55, 0x04, 0x03, 0x0c];
    let at = leaf.windows(marker.len()).rposition(|window| window == marker).unwrap() + marker.len();
    let text = &leaf[at + 1..][..usize::from(leaf[at])];
    std::str::from_utf8(text).unwrap()[1..].parse().unwrap()
}
