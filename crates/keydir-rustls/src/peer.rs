//! Who is at the other end: the names in its certificate, and the revision that vouches for it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use keydir::RevisionId;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::subject;

/// A peer whose certificates were verified: its names, and who vouches for it.
#[derive(Clone)]
pub struct Peer {
    certificates: Arc<[CertificateDer<'static>]>,
    ca: Option<RevisionId>,
}

impl Peer {
    pub(crate) fn new(certificates: Arc<[CertificateDer<'static>]>, ca: Option<RevisionId>) -> Self {
        Self { certificates, ca }
    }

    pub(crate) fn of_chain<'a>(chain: impl IntoIterator<Item = &'a [u8]>, ca: Option<RevisionId>) -> Self {
        let owned = |der: &[u8]| CertificateDer::from(der.to_vec());
        Self::new(chain.into_iter().map(owned).collect(), ca)
    }

    /// The revision that vouches for the peer: the one its CA, or its pin, lies in. `None` if a root of the platform
    /// does, which lies in none.
    pub fn ca(&self) -> Option<&RevisionId> {
        self.ca.as_ref()
    }

    /// The certificates, as the peer has sent them: the leaf first.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// The leaf's subject in the style of RFC 4514, such as `CN=client,O=Example`; empty if it has none. To compare
    /// whom one deals with, the alternative names are better: only their form is beyond doubt.
    pub fn subject(&self) -> String {
        let leaf = self.certificates.first();
        leaf.and_then(|der| subject::of_certificate(der)).unwrap_or_default()
    }

    /// The DNS names among the leaf's subject alternative names (RFC 5280, 4.2.1.6), wildcards as they are.
    pub fn dns_names(&self) -> Vec<String> {
        self.alternative_names(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
    }

    /// The URIs among the leaf's subject alternative names.
    pub fn uris(&self) -> Vec<String> {
        self.alternative_names(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        })
    }

    /// The IP addresses among the leaf's subject alternative names.
    pub fn ip_addresses(&self) -> Vec<IpAddr> {
        self.alternative_names(|name| match name {
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => Some(IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?)),
                16 => Some(IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?)),
                _ => None,
            },
            _ => None,
        })
    }

    /// The SPIFFE ID: the one URI of the leaf, if it is a SPIFFE ID in its canonical form. `None` if there is another
    /// URI beside it, as the X.509-SVID standard (section 2) demands.
    pub fn spiffe_id(&self) -> Option<String> {
        match <[String; 1]>::try_from(self.uris()) {
            Ok([uri]) if is_spiffe_id(&uri) => Some(uri),
            _ => None,
        }
    }

    fn alternative_names<T>(&self, wanted: impl Fn(&GeneralName<'_>) -> Option<T>) -> Vec<T> {
        let names = || {
            let (_, leaf) = X509Certificate::from_der(self.certificates.first()?).ok()?;
            let names = leaf.subject_alternative_name().ok()??;
            Some(names.value.general_names.iter().filter_map(wanted).collect())
        };
        names().unwrap_or_default()
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("subject", &self.subject())
            .field("ca", &self.ca)
            .finish_non_exhaustive()
    }
}

/// Whether this is a SPIFFE ID (SPIFFE-ID standard, section 2): `spiffe://`, a trust domain of lower-case letters,
/// digits, `.`, `-` and `_`, then segments of letters, digits and the same, none of them empty, `.` or `..`; at most
/// 2,048 bytes.
pub(crate) fn is_spiffe_id(uri: &str) -> bool {
    let Some(rest) = uri.strip_prefix("spiffe://").filter(|_| uri.len() <= 2048) else {
        return false;
    };
    let mut parts = rest.split('/');
    let domain = parts.next().unwrap_or_default();
    let plain = |byte: u8| matches!(byte, b'.' | b'-' | b'_') || byte.is_ascii_digit();
    let in_domain = |byte: u8| plain(byte) || byte.is_ascii_lowercase();
    let in_segment = |byte: u8| plain(byte) || byte.is_ascii_alphabetic();
    (1..=255).contains(&domain.len())
        && domain.bytes().all(in_domain)
        && parts.all(|segment| !matches!(segment, "" | "." | "..") && segment.bytes().all(in_segment))
}

#[cfg(test)]
mod tests {
    use rcgen::string::Ia5String;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn peer(names: Vec<SanType>) -> Peer {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "the peer");
        params.subject_alt_names = names;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Peer::of_chain([certificate.der().as_ref()], "c1".parse().ok())
    }

    fn uri(uri: &str) -> SanType {
        SanType::URI(Ia5String::try_from(uri).unwrap())
    }

    #[test]
    fn names_are_read() {
        let peer = peer(vec![
            SanType::DnsName("a.test".try_into().unwrap()),
            uri("spiffe://mesh.test/ns/one"),
            SanType::IpAddress("10.0.0.7".parse().unwrap()),
            SanType::IpAddress("::1".parse().unwrap()),
            SanType::DnsName("*.b.test".try_into().unwrap()),
        ]);
        assert_eq!(peer.ca().unwrap(), "c1");
        assert_eq!(peer.dns_names(), ["a.test", "*.b.test"]);
        assert_eq!(peer.uris(), ["spiffe://mesh.test/ns/one"]);
        assert_eq!(peer.spiffe_id().as_deref(), Some("spiffe://mesh.test/ns/one"));
        let addresses: Vec<String> = peer.ip_addresses().iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.0.7", "::1"]);
        assert!(peer.subject().contains("CN=the peer"));
        assert_eq!(
            format!("{peer:?}"),
            format!("Peer {{ subject: {:?}, ca: Some(\"c1\"), .. }}", peer.subject())
        );
    }

    #[test]
    fn a_spiffe_id_is_the_only_uri() {
        assert_eq!(peer(vec![uri("https://mesh.test/")]).spiffe_id(), None);
        let two = vec![uri("spiffe://mesh.test/a"), uri("https://mesh.test/")];
        assert_eq!(peer(two).spiffe_id(), None);
        assert_eq!(peer(Vec::new()).spiffe_id(), None);
    }

    #[test]
    fn nothing_can_be_read_out_of_rubbish() {
        let peer = Peer::of_chain([&b"no certificate"[..]], "c1".parse().ok());
        assert!(peer.dns_names().is_empty() && peer.ip_addresses().is_empty());
        assert_eq!((peer.subject().as_str(), peer.spiffe_id()), ("", None));
    }

    #[test]
    fn spiffe_ids() {
        for good in ["spiffe://mesh", "spiffe://a-b_c.1/x", "spiffe://mesh/ns/Prod/sa.1/_-"] {
            assert!(is_spiffe_id(good), "{good}");
        }
        let long = format!("spiffe://mesh/{}", "a".repeat(2048));
        for bad in [
            "",
            "spiffe:",
            "spiffe://",
            "spiffe:///a",
            "spiffe://Mesh",
            "spiffe://mesh/",
            "spiffe://mesh//a",
            "spiffe://mesh/.",
            "spiffe://mesh/../a",
            "spiffe://mesh/a?b",
            "spiffe://mesh:1/a",
            "spiffe://u@mesh/a",
            "SPIFFE://mesh/a",
            "spiffe://mesh/%41",
            "https://mesh/a",
            &long,
        ] {
            assert!(!is_spiffe_id(bad), "{bad}");
        }
    }
}
