//! CAs, leaves, directories, and one helper that performs a handshake.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use keydir::{Clock, Dir};
use keydir_rustls::{Identity, TrustAnchors, client_config, server_config};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, Connection, HandshakeKind, ServerConfig, ServerConnection, SupportedProtocolVersion,
};

pub(crate) const NAME: &str = "server.test";

/// A CA, or something that takes itself for one.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: Certificate,
}

/// A certificate with its key.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) crt: String,
    pub(crate) key: String,
    pub(crate) der: CertificateDer<'static>,
}

pub(crate) fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.use_authority_key_identifier_extension = true;
    params
}

pub(crate) fn leaf_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params
}

/// The first day of a year, as certificates have it.
pub(crate) fn years(params: &mut CertificateParams, from: i32, to: i32) {
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(ca_params(name))
    }

    pub(crate) fn with(params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// A CA under this one.
    pub(crate) fn sub(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// Whoever holds a certificate's key can sign with it, whatever the certificate says.
    pub(crate) fn of_leaf(leaf: &Leaf) -> Self {
        let key = KeyPair::from_pem(&leaf.key).unwrap();
        let mut params = leaf_params(NAME);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self {
            certificate: params.self_signed(&key).unwrap(),
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn leaf(&self, name: &str) -> Leaf {
        self.leaf_with(leaf_params(name))
    }

    pub(crate) fn leaf_with(&self, params: CertificateParams) -> Leaf {
        let key = KeyPair::generate().unwrap();
        self.leaf_for(params, &key)
    }

    pub(crate) fn leaf_for(&self, params: CertificateParams, key: &KeyPair) -> Leaf {
        let certificate = params.signed_by(key, &self.issuer).unwrap();
        Leaf {
            crt: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().clone(),
        }
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }
}

impl Leaf {
    /// Presents the certificate of its CA along.
    pub(crate) fn chained(mut self, ca: &Ca) -> Self {
        self.crt += &ca.pem();
        self
    }

    /// The files of a marked revision.
    pub(crate) fn files(&self, id: &str) -> [(String, String); 2] {
        [
            (format!("{id}.crt.primary"), self.crt.clone()),
            (format!("{id}.key"), self.key.clone()),
        ]
    }
}

pub(crate) fn anchors_in(dir: &Dir) -> TrustAnchors {
    TrustAnchors::in_dir(dir).unwrap()
}

/// A directory of CAs: `[("c1", &ca1), ..]`.
pub(crate) fn ca_dir(cas: &[(&str, &Ca)]) -> Dir {
    Dir::in_memory(ca_files(cas))
}

pub(crate) fn ca_files(cas: &[(&str, &Ca)]) -> Vec<(String, String)> {
    cas.iter().map(|(id, ca)| (format!("{id}.crt"), ca.pem())).collect()
}

pub(crate) fn identity(leaf: &Leaf) -> Identity {
    Identity::in_dir(&Dir::in_memory(leaf.files("r1"))).unwrap()
}

/// A clock that stands where it is put.
#[derive(Clone)]
pub(crate) struct Hand(Arc<AtomicU64>);

impl Hand {
    pub(crate) fn at(year: i32) -> Self {
        let hand = Self(Arc::default());
        hand.set(year);
        hand
    }

    /// The middle of a year.
    pub(crate) fn set(&self, year: i32) {
        let seconds = date_time_ymd(year, 7, 1).unix_timestamp();
        self.0.store(seconds.try_into().unwrap(), Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

/// A TLS version and where the server's sessions are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Way {
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
    pub(crate) tickets: bool,
}

pub(crate) const WAYS: [Way; 4] = [
    Way {
        versions: &[&TLS13],
        tickets: false,
    },
    Way {
        versions: &[&TLS13],
        tickets: true,
    },
    Way {
        versions: &[&TLS12],
        tickets: false,
    },
    Way {
        versions: &[&TLS12],
        tickets: true,
    },
];

/// A server that trusts clients of a directory, and everything to talk to it.
pub(crate) struct Scene {
    pub(crate) root: Ca,
    pub(crate) c1: Ca,
    pub(crate) c2: Ca,
    pub(crate) cas: Dir,
    pub(crate) anchors: TrustAnchors,
    pub(crate) server_identity: Identity,
    pub(crate) server_ca: TrustAnchors,
}

impl Scene {
    /// Clients of two CAs are trusted.
    pub(crate) fn new() -> Self {
        let root = Ca::new("servers");
        let (c1, c2) = (Ca::new("clients 1"), Ca::new("clients 2"));
        let cas = ca_dir(&[("c1", &c1), ("c2", &c2)]);
        Self {
            anchors: anchors_in(&cas),
            server_identity: identity(&root.leaf(NAME)),
            server_ca: anchors_in(&ca_dir(&[("s1", &root)])),
            root,
            c1,
            c2,
            cas,
        }
    }

    /// From now on only the second CA is trusted.
    pub(crate) fn remove_c1(&self) {
        self.cas.publish(ca_files(&[("c2", &self.c2)])).unwrap();
    }

    pub(crate) fn server(&self, way: Way) -> Arc<ServerConfig> {
        let builder = server_config(&self.server_identity).require_client(&self.anchors);
        let builder = builder.versions(way.versions);
        let builder = if way.tickets { builder.tickets() } else { builder };
        Arc::new(builder.build().unwrap())
    }

    /// A client with a leaf of one of the CAs; each has its own sessions.
    pub(crate) fn client(&self, ca: &Ca, way: Way) -> Arc<ClientConfig> {
        let identity = identity(&ca.leaf("client"));
        let builder = client_config(&self.server_ca).identity(&identity);
        Arc::new(builder.versions(way.versions).build().unwrap())
    }
}

/// How a connection went, as the server and the client see it.
#[derive(Debug, PartialEq)]
pub(crate) enum End {
    Full,
    Resumed,
    /// By the side that is named.
    Refused(&'static str, String),
}

impl End {
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(..))
    }
}

pub(crate) struct Pair {
    pub(crate) client: Connection,
    pub(crate) server: Connection,
}

pub(crate) fn pair(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Pair {
    let name = NAME.try_into().unwrap();
    Pair {
        client: ClientConnection::new(Arc::clone(client), name).unwrap().into(),
        server: ServerConnection::new(Arc::clone(server)).unwrap().into(),
    }
}

/// Performs a handshake, and lets the client take what the server sends after it.
pub(crate) fn connect(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> End {
    pair(client, server).finish()
}

impl Pair {
    /// Performs the handshake up to the client's second flight, of which the server gets only what stands before one of
    /// the places where it can be cut. The rest; `None` if there is no such place.
    pub(crate) fn withhold(&mut self, at: impl FnOnce(&[usize]) -> Option<usize>) -> Option<Vec<u8>> {
        let hello = sent(&mut self.client);
        receive(&mut self.server, &hello).unwrap();
        let flight = sent(&mut self.server);
        receive(&mut self.client, &flight).unwrap();
        let mut flight = sent(&mut self.client);
        let rest = flight.split_off(at(&boundaries(&flight))?);
        receive(&mut self.server, &flight).unwrap();
        Some(rest)
    }

    pub(crate) fn finish(&mut self) -> End {
        while self.client.wants_write() || self.server.wants_write() {
            let flight = sent(&mut self.client);
            if let Err(error) = receive(&mut self.server, &flight) {
                return End::Refused("server", error.to_string());
            }
            let flight = sent(&mut self.server);
            if let Err(error) = receive(&mut self.client, &flight) {
                return End::Refused("client", error.to_string());
            }
        }
        assert!(!self.client.is_handshaking() && !self.server.is_handshaking());
        assert_eq!(self.client.handshake_kind(), self.server.handshake_kind());
        match self.server.handshake_kind() {
            Some(HandshakeKind::Resumed) => End::Resumed,
            _ => End::Full,
        }
    }
}

/// What a side has to say.
pub(crate) fn sent(from: &mut Connection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    bytes
}

pub(crate) fn receive(to: &mut Connection, mut bytes: &[u8]) -> Result<(), rustls::Error> {
    while !bytes.is_empty() {
        to.read_tls(&mut bytes).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

/// Where a flight can be cut: before its first record, and after each but the last.
pub(crate) fn boundaries(flight: &[u8]) -> Vec<usize> {
    let mut at = 0;
    let mut boundaries = Vec::new();
    while at < flight.len() {
        boundaries.push(at);
        at += 5 + usize::from(u16::from_be_bytes([flight[at + 3], flight[at + 4]]));
    }
    boundaries
}

/// The certificates that the server has seen.
pub(crate) fn client_certificates(pair: &Pair) -> Vec<CertificateDer<'static>> {
    let certificates = pair.server.peer_certificates().unwrap();
    certificates.iter().cloned().map(CertificateDer::into_owned).collect()
}
