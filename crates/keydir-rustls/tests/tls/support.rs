//! CAs, leaves, directories, and one helper that performs a handshake.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, SystemTime};

use keydir::{Clock, Dir};
use keydir_rustls::{Identity, TrustAnchors, client_config, server_config};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
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
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
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

    /// A CRL with this number that revokes these, from 2020 on and good for long.
    pub(crate) fn crl(&self, number: u64, revoked: &[&CertificateDer<'_>]) -> String {
        self.crl_with(crl_params(number, revoked))
    }

    pub(crate) fn crl_with(&self, params: CertificateRevocationListParams) -> String {
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// Signs the key of another CA.
    pub(crate) fn cross_sign(&self, params: CertificateParams, other: &Self) -> Certificate {
        params.signed_by(other.issuer.key(), &self.issuer).unwrap()
    }
}

pub(crate) fn crl_params(number: u64, certificates: &[&CertificateDer<'_>]) -> CertificateRevocationListParams {
    let revoked = |der: &&CertificateDer<'_>| RevokedCertParams {
        serial_number: serial(der),
        revocation_time: date_time_ymd(2020, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(2090, 1, 1),
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: certificates.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
}

fn serial(der: &CertificateDer<'_>) -> SerialNumber {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).unwrap();
    SerialNumber::from_slice(certificate.raw_serial())
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

/// Whether an event was told whose fields hold all of these. Events of all tests are kept, so name something of your own.
pub(crate) fn told(parts: &[&str]) -> usize {
    let events = events().lock().unwrap();
    let fits = |event: &&String| parts.iter().all(|part| event.contains(part));
    events.iter().filter(fits).count()
}

/// Begins to keep events. Call it before what shall be told of.
pub(crate) fn events() -> &'static Mutex<Vec<String>> {
    static EVENTS: Mutex<Vec<String>> = Mutex::new(Vec::new());
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        tracing::subscriber::set_global_default(Listener).unwrap();
    });
    &EVENTS
}

struct Listener;

struct Fields(String);

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0 += &format!("{field}={value:?} ");
    }
}

impl tracing::Subscriber for Listener {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        events().lock().unwrap().push(fields.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
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
        Self::with(Dir::in_memory)
    }

    /// Likewise; the server judges by this clock.
    #[allow(
        dead_code,
        reason = "of those that share this file, only the proof about sessions needs it"
    )]
    pub(crate) fn at(clock: &Hand) -> Self {
        Self::with(|files| Dir::in_memory_at(files, clock.clone()))
    }

    fn with(dir: impl FnOnce(Vec<(String, String)>) -> Dir) -> Self {
        let root = Ca::new("servers");
        let (c1, c2) = (Ca::new("clients 1"), Ca::new("clients 2"));
        let cas = dir(ca_files(&[("c1", &c1), ("c2", &c2)]));
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
