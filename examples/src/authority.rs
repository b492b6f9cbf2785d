//! Certificates for the demo: a CA with a name of its own for each revision, and leaves under it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use keydir::{Clock, SystemClock};
use keydir_rustls::rustls::crypto::aws_lc_rs::default_provider;
use keydir_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};

use crate::failure::Failure;

/// Clocks of other machines may be behind, so certificates begin before they are made.
const BEGUN: Duration = Duration::from_secs(5 * 60);
const CA_VALIDITY: Duration = Duration::from_secs(30 * 24 * 3600);
const LEAF_VALIDITY: Duration = Duration::from_secs(24 * 3600);

/// A self-signed CA. Its private key stays in memory: consumers only ever see its certificate.
pub(crate) struct Authority {
    id: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(crate) struct Leaf {
    pub(crate) crt: String,
    pub(crate) key: String,
    pub(crate) der: CertificateDer<'static>,
    key_der: PrivateKeyDer<'static>,
}

/// What a leaf is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Server,
    Client,
}

impl Authority {
    /// A new CA. The revision stands in its name, since peers choose certificates, and some choose CAs, by name alone.
    pub(crate) fn new(id: &str) -> Result<Self, Failure> {
        let mut params = base(&format!("keydir demo CA {id}"), CA_VALIDITY)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self {
            id: id.to_owned(),
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?,
        })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        self.issuer.der()
    }

    /// Issues a leaf with a key of its own.
    pub(crate) fn leaf(&self, role: Role) -> Result<Leaf, Failure> {
        let name = match role {
            Role::Server => "localhost",
            Role::Client => "demo client",
        };
        let mut params = base(name, LEAF_VALIDITY)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match role {
            Role::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Role::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        if role == Role::Server {
            params.subject_alt_names = vec![
                SanType::DnsName(name.try_into()?),
                SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            ];
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Leaf {
            crt: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().clone(),
            key_der: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        })
    }
}

impl Leaf {
    pub(crate) fn key_der(&self) -> PrivateKeyDer<'static> {
        self.key_der.clone_key()
    }
}

fn base(name: &str, validity: Duration) -> Result<CertificateParams, Failure> {
    let now = SystemClock.now();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - BEGUN).into();
    params.not_after = (now + validity).into();
    params.serial_number = Some(SerialNumber::from_slice(&random::<16>()?));
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Random bytes of the TLS library's own generator.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    let fill = default_provider().secure_random.fill(&mut bytes);
    fill.map_err(|_| rcgen::Error::RemoteKeyError)?;
    Ok(bytes)
}
