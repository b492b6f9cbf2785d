//! CAs and leaves, made while the tests run. Their private keys go into `target/canaries`, so that the run can prove
//! that no output holds one.

use keydir_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, RevokedCertParams, RsaKeySize, SerialNumber,
    date_time_ymd,
};

use crate::canaries::never_to_be_printed;

/// A CA with a subject of its own.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// PEM.
    pub crt: String,
    /// PEM.
    pub key: String,
    /// The certificate.
    pub der: CertificateDer<'static>,
}

impl Ca {
    /// A new self-signed one.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        let key = new_key();
        Self {
            certificate: params.self_signed(&key).unwrap(),
            issuer: Issuer::new(params, key),
        }
    }

    /// What whoever holds a leaf's key can do: sign with it, in the leaf's name.
    pub fn of_leaf(leaf: &Leaf) -> Self {
        let key = KeyPair::from_pem(&leaf.key).unwrap();
        let mut params = leaf_params("client");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self {
            certificate: params.self_signed(&key).unwrap(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for `localhost` with this common name, good for both ends.
    pub fn leaf(&self, name: &str) -> Leaf {
        self.leaf_for(name, &new_key())
    }

    /// The same with an RSA key.
    pub fn rsa_leaf(&self, name: &str) -> Leaf {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        // The middle of the PEM lies among the secret numbers; the public one comes before.
        let pem = key.serialize_pem();
        never_to_be_printed(pem.lines().nth(12).unwrap());
        self.leaf_for(name, &key)
    }

    fn leaf_for(&self, name: &str, key: &KeyPair) -> Leaf {
        let certificate = leaf_params(name).signed_by(key, &self.issuer).unwrap();
        Leaf {
            crt: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().clone(),
        }
    }

    /// A CRL that revokes these, PEM.
    pub fn crl(&self, number: u64, revoked: &[&Leaf]) -> String {
        let revoked = revoked.iter().map(|leaf| {
            let (_, certificate) = x509_parser::parse_x509_certificate(&leaf.der).unwrap();
            RevokedCertParams {
                serial_number: SerialNumber::from_slice(certificate.raw_serial()),
                revocation_time: date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2090, 1, 1),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Its certificate.
    pub fn der(&self) -> &CertificateDer<'static> {
        self.certificate.der()
    }
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca").finish_non_exhaustive()
    }
}

impl Leaf {
    /// The key as rustls takes it.
    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        let key = KeyPair::from_pem(&self.key).unwrap();
        PrivateKeyDer::Pkcs8(key.serialize_der().into())
    }
}

fn leaf_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

/// An ECDSA key whose secret half is on the list of what no output may hold.
fn new_key() -> KeyPair {
    let key = KeyPair::generate().unwrap();
    let pem = key.serialize_pem();
    let lines: Vec<&str> = pem.lines().collect();
    // In PKCS#8 the 32 secret bytes follow 36 that are the same in every key of this kind.
    never_to_be_printed(&lines[1][48..64]);
    never_to_be_printed(&lines[2][..24]);
    key
}
