//! What a policy says of certificates: profiles of CAs and of leaves.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use super::{Error, KeyAlgorithm, names};

/// Certificates are dated to the second.
const SHORTEST: Duration = Duration::from_secs(1);
/// A century: beyond it a date is a mistake, and DER ends with the year 9999.
const LONGEST: Duration = Duration::from_secs(36_525 * 24 * 60 * 60);

/// What each revision of a CA is like.
///
/// ```
/// let profile: keydir_rotate::generate::CaProfile = toml::from_str(r#"
///     name = "mesh root"
///     life = "1y"
///     path_len = 1               # one issuing CA below; without it as many as you like
///     algorithm = "ecdsa-p384"   # without it ecdsa-p256
/// "#)?;
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[non_exhaustive]
pub struct CaProfile {
    /// The subject of a revision is `CN=<name> <revision id>`.
    pub name: String,
    /// From when it is made to notAfter.
    #[serde(deserialize_with = "life")]
    pub life: Duration,
    /// How many CAs a chain below it may have; none by default: as many as one likes. A CA with 0 issues leaves only,
    /// and cross-signs nobody; to cross-sign another it needs 1 more than that one has.
    #[serde(default)]
    pub path_len: Option<u8>,
    /// The kind of its key.
    #[serde(default)]
    pub algorithm: KeyAlgorithm,
}

/// What a leaf is like.
///
/// ```
/// let profile: keydir_rotate::generate::LeafProfile = toml::from_str(r#"
///     spiffe = "spiffe://example.org/ns/prod/sa/api"
///     dns = ["api.prod.svc"]
///     ip = ["10.0.0.7"]
///     usage = ["server", "client"]
///     life = "24h"
/// "#)?;
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[non_exhaustive]
pub struct LeafProfile {
    /// Host names; `*.` may stand before one.
    #[serde(default)]
    pub dns: Vec<String>,
    /// Addresses.
    #[serde(default)]
    pub ip: Vec<IpAddr>,
    /// URIs, except a SPIFFE ID.
    #[serde(default)]
    pub uri: Vec<String>,
    /// `spiffe://trust-domain/path`. It is then the only URI of the certificate.
    #[serde(default)]
    pub spiffe: Option<String>,
    /// The subject, `CN=..`, such as the role of a client of PostgreSQL; empty without it.
    #[serde(default)]
    pub common_name: Option<String>,
    /// What it may be used for.
    pub usage: Vec<LeafUsage>,
    /// From when it is issued to notAfter, unless its issuer ends sooner.
    #[serde(deserialize_with = "life")]
    pub life: Duration,
    /// The kind of its key.
    #[serde(default)]
    pub algorithm: KeyAlgorithm,
}

/// An end of a TLS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeafUsage {
    /// serverAuth.
    Server,
    /// clientAuth.
    Client,
}

impl CaProfile {
    /// One that lives this long, with the defaults for all else.
    pub fn new(name: impl Into<String>, life: Duration) -> Self {
        Self {
            name: name.into(),
            life,
            path_len: None,
            algorithm: KeyAlgorithm::default(),
        }
    }

    /// Whether it can be. A profile that was read from a policy, and [`Ca::create`](super::Ca::create), have done this.
    ///
    /// # Errors
    /// [`Error::Impossible`], with the field and the reason.
    pub fn check(&self) -> Result<(), Error> {
        names::common_name("name", &self.name)?;
        if self.name.chars().count() > names::COMMON_NAME - 2 {
            return Err(Error::impossible(
                "name",
                "leaves no room for a revision id in the subject",
            ));
        }
        check_life(self.life)?;
        self.algorithm.check()
    }
}

impl LeafProfile {
    /// One without any name, which has to be given yet.
    pub fn new(usage: impl Into<Vec<LeafUsage>>, life: Duration) -> Self {
        Self {
            dns: Vec::new(),
            ip: Vec::new(),
            uri: Vec::new(),
            spiffe: None,
            common_name: None,
            usage: usage.into(),
            life,
            algorithm: KeyAlgorithm::default(),
        }
    }

    /// Whether it can be. A profile that was read from a policy, and [`Ca::issue`](super::Ca::issue), have done this.
    ///
    /// # Errors
    /// [`Error::Impossible`], with the field and the reason.
    pub fn check(&self) -> Result<(), Error> {
        self.dns.iter().try_for_each(|name| names::dns(name))?;
        self.uri.iter().try_for_each(|uri| names::uri(uri))?;
        if let Some(id) = &self.spiffe {
            names::spiffe(id)?;
            if !self.uri.is_empty() {
                return Err(Error::impossible(
                    "uri",
                    "a SPIFFE ID must be the only URI of a certificate",
                ));
            }
        }
        if let Some(name) = &self.common_name {
            names::common_name("common_name", name)?;
        }
        let alternative = self.dns.len() + self.ip.len() + self.uri.len();
        if alternative == 0 && self.spiffe.is_none() && self.common_name.is_none() {
            return Err(Error::impossible(
                "dns",
                "a certificate needs a name: dns, ip, uri, spiffe or common_name",
            ));
        }
        match self.usage.as_slice() {
            [] => return Err(Error::impossible("usage", "it is empty; server, client or both")),
            [first, rest @ ..] if rest.contains(first) || rest.len() > 1 => {
                return Err(Error::impossible("usage", "it names one twice"));
            }
            _ => {}
        }
        check_life(self.life)?;
        self.algorithm.check()
    }
}

fn check_life(life: Duration) -> Result<(), Error> {
    if (SHORTEST..=LONGEST).contains(&life) {
        return Ok(());
    }
    let reason = format!(
        "{} is not between a second and 100 years",
        humantime::format_duration(life)
    );
    Err(Error::impossible("life", reason))
}

fn life<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|error| de::Error::custom(format!("life: {text:?}: {error}")))
}

// serde derives these for `Self` as a remote type, so that what is read can be checked as a whole.
impl<'de> Deserialize<'de> for CaProfile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let profile = Self::deserialize(deserializer)?;
        profile.check().map_err(de::Error::custom)?;
        Ok(profile)
    }
}

impl<'de> Deserialize<'de> for LeafProfile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let profile = Self::deserialize(deserializer)?;
        profile.check().map_err(de::Error::custom)?;
        Ok(profile)
    }
}
