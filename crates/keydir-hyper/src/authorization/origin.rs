//! Where a credential may be sent.

use std::fmt;
use std::sync::Arc;

use http::Uri;
use http::uri::Authority;

/// A scheme, a host and a port (RFC 9110, 4.3.1): whom a credential is meant for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    tls: bool,
    /// In small letters.
    host: Box<str>,
    port: u16,
}

/// The origin that a request goes to, read off its URI.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) tls: bool,
    pub(super) host: &'a str,
    pub(super) port: u16,
}

impl<'a> Target<'a> {
    /// None for a URI that names no origin of HTTP: one without a scheme or a host, or with a port that is none.
    pub(super) fn of(uri: &'a Uri) -> Option<Self> {
        let tls = is_tls(uri.scheme_str()?)?;
        let (host, port) = host_and_port(uri.authority()?)?;
        Some(Self {
            tls,
            host,
            port: port.unwrap_or_else(|| default_port(tls)),
        })
    }

    /// The same, but for the host and the port that a `Host` names.
    pub(super) fn at(&self, host: &'a Authority) -> Option<Self> {
        let (host, port) = host_and_port(host)?;
        Some(Self {
            host,
            port: port.unwrap_or_else(|| default_port(self.tls)),
            ..*self
        })
    }

    pub(super) fn is(&self, origin: &Origin) -> bool {
        self.tls == origin.tls && self.port == origin.port && origin.host.eq_ignore_ascii_case(self.host)
    }
}

impl Origin {
    fn new(tls: bool, host: &str, port: Option<u16>) -> Arc<Self> {
        Arc::new(Self {
            tls,
            host: host.to_ascii_lowercase().into(),
            port: port.unwrap_or_else(|| default_port(tls)),
        })
    }

    /// Whether the peer has to prove that it is this origin.
    pub(super) fn is_tls(&self) -> bool {
        self.tls
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.host)?;
        match self.port == default_port(self.tls) {
            true => Ok(()),
            false => write!(f, ":{}", self.port),
        }
    }
}

/// The origins that a credential is bound to.
#[derive(Clone, Debug)]
pub(super) enum Binding {
    Only(Vec<Arc<Origin>>),
    Any { plain: bool },
}

impl Binding {
    /// Reads the origins as a user writes them; `plain` says whether those without TLS count.
    pub(super) fn only<T: AsRef<str>>(
        origins: impl IntoIterator<Item = T>,
        plain: bool,
    ) -> Result<Self, InvalidOrigin> {
        let mut all = Vec::new();
        for text in origins {
            let text = text.as_ref();
            all.extend(read(text, plain).map_err(|reason| InvalidOrigin::new(text, reason))?);
        }
        match all.is_empty() {
            true => Err(InvalidOrigin::new(
                "",
                "none is given, so that nothing would ever be sent",
            )),
            false => Ok(Self::Only(all)),
        }
    }

    pub(super) fn is_any(&self) -> bool {
        matches!(self, Self::Any { .. })
    }

    /// The origin, if the credential may be sent there.
    pub(super) fn admit(&self, target: &Target<'_>) -> Option<Arc<Origin>> {
        match self {
            Self::Only(origins) => origins.iter().find(|origin| target.is(origin)).cloned(),
            Self::Any { plain } => {
                (target.tls || *plain).then(|| Origin::new(target.tls, target.host, Some(target.port)))
            }
        }
    }
}

fn read(text: &str, plain: bool) -> Result<Vec<Arc<Origin>>, &'static str> {
    let (scheme, authority) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest.strip_suffix('/').unwrap_or(rest)),
        None => (None, text),
    };
    let kinds: &[bool] = match scheme {
        None if plain => &[true, false],
        None => &[true],
        Some(scheme) => match is_tls(scheme) {
            Some(true) => &[true],
            Some(false) if plain => &[false],
            Some(false) => {
                return Err("anyone on the way could read it there: say also_plain_http first if it has to be");
            }
            None => return Err("its scheme is neither https nor http"),
        },
    };
    if authority.contains(['/', '?', '#']) {
        return Err("an origin ends after its host and port");
    }
    if authority.contains('*') {
        return Err("there are no patterns: name each host");
    }
    let authority = authority.parse::<Authority>().map_err(
        |_| "it is no host, host:port, https://host or https://host:port (names that are not ASCII in Punycode)",
    )?;
    if authority.as_str().contains('@') {
        return Err("an origin has no user");
    }
    let (host, port) = host_and_port(&authority).ok_or("it has no host, or a port that is none")?;
    Ok(kinds.iter().map(|tls| Origin::new(*tls, host, port)).collect())
}

fn is_tls(scheme: &str) -> Option<bool> {
    match scheme {
        scheme if scheme.eq_ignore_ascii_case("https") => Some(true),
        scheme if scheme.eq_ignore_ascii_case("http") => Some(false),
        _ => None,
    }
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// None if there is no host, or if what stands for the port is none: `http` then says that there is no port.
fn host_and_port(authority: &Authority) -> Option<(&str, Option<u16>)> {
    let host = authority.host();
    let port = authority.port_u16();
    let ends_with_host = authority.as_str().ends_with(host);
    (!host.is_empty() && (port.is_some() || ends_with_host)).then_some((host, port))
}

/// Why a list of origins cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidOrigin {
    origin: String,
    reason: &'static str,
}

impl InvalidOrigin {
    fn new(origin: &str, reason: &'static str) -> Self {
        // What stands before an @ may be a password.
        let origin = origin.rsplit_once('@').map_or(origin, |(_, shown)| shown);
        Self {
            origin: origin.chars().take(300).collect(),
            reason,
        }
    }
}

impl fmt::Display for InvalidOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no credential can be bound to the origin {:?}: {}",
            self.origin, self.reason
        )
    }
}

impl std::error::Error for InvalidOrigin {}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(origins: &[&str], plain: bool, uri: &str) -> bool {
        let binding = Binding::only(origins, plain).unwrap();
        let uri = uri.parse().unwrap();
        Target::of(&uri).is_some_and(|target| binding.admit(&target).is_some())
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for (origins, uri, expected) in [
            (["api.internal"], "https://api.internal/x", true),
            (["api.internal"], "https://API.Internal:443/", true),
            (["API.internal"], "https://api.internal/", true),
            (["api.internal"], "https://api.internal:8443/", false),
            (["api.internal"], "http://api.internal/", false),
            (["api.internal"], "https://api.internal.evil.test/", false),
            (["api.internal"], "https://evil.test/api.internal", false),
            (["api.internal"], "https://api.internal@evil.test/", false),
            (["api.internal"], "https://user:pw@api.internal/", true),
            (["api.internal"], "https://api.internal:99999/", false),
            (["api.internal"], "https://api.internal:/", false),
            (["api.internal"], "wss://api.internal/", false),
            (["api.internal"], "/path", false),
            (["api.internal:8443"], "https://api.internal:8443/", true),
            (["api.internal:8443"], "https://api.internal/", false),
            (["api.internal:8443"], "http://api.internal:8443/", false),
            (["https://api.internal:80"], "http://api.internal/", false),
            (["https://api.internal"], "https://api.internal/", true),
            (["https://api.internal/"], "https://api.internal/", true),
            (["HTTPS://api.internal:443"], "https://api.internal/", true),
            (["[::1]:8443"], "https://[::1]:8443/", true),
            (["[::1]"], "https://[::1]/", true),
            (["127.0.0.1:1"], "https://127.0.0.1:1/", true),
        ] {
            assert_eq!(admits(&origins, false, uri), expected, "{origins:?} and {uri}");
        }
    }

    #[test]
    fn plain_http_counts_only_where_it_was_said() {
        for (origins, uri, expected) in [
            (["api.internal"], "http://api.internal/", true),
            (["api.internal"], "https://api.internal/", true),
            (["api.internal:80"], "http://api.internal/", true),
            (["https://api.internal"], "http://api.internal/", false),
            (["http://api.internal"], "http://api.internal:80/", true),
            (["http://api.internal"], "https://api.internal/", false),
            (["http://api.internal:8080"], "https://api.internal:8080/", false),
            (["api.internal:8080"], "https://api.internal:8080/", true),
            (["api.internal:8080"], "http://api.internal:8080/", true),
        ] {
            assert_eq!(admits(&origins, true, uri), expected, "{origins:?} and {uri}");
        }
        for (plain, uri, expected) in [
            (false, "https://anything.test/", true),
            (false, "http://anything.test/", false),
            (true, "http://anything.test/", true),
            (true, "ftp://anything.test/", false),
        ] {
            let uri: Uri = uri.parse().unwrap();
            let target = Target::of(&uri);
            let admitted = target.is_some_and(|target| Binding::Any { plain }.admit(&target).is_some());
            assert_eq!(admitted, expected, "{uri}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused_with_its_reason() {
        for (origin, expected) in [
            ("http://api.internal", "anyone on the way"),
            ("ftp://api.internal", "neither https nor http"),
            ("https://api.internal/v1", "ends after its host"),
            ("api.internal/v1", "ends after its host"),
            ("https://api.internal?x", "ends after its host"),
            ("*.internal", "no patterns"),
            ("", "it is no host"),
            ("https://", "it is no host"),
            ("bücher.example", "it is no host"),
            ("api.internal:99999", "a port that is none"),
            ("api.internal:", "a port that is none"),
            ("https://user:hunter2@api.internal", "has no user"),
            ("user:hunter2@api.internal", "has no user"),
        ] {
            let error = Binding::only([origin], false).unwrap_err();
            assert!(error.to_string().contains(expected), "{origin}: {error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
        let none = Binding::only::<&str>([], false).unwrap_err();
        assert!(none.to_string().contains("none is given"), "{none}");
    }

    #[test]
    fn it_is_shown_as_it_is_written() {
        for origin in [
            "https://api.internal",
            "https://[::1]:8443",
            "http://api.internal",
            "http://x:443",
        ] {
            let Binding::Only(origins) = Binding::only([origin], true).unwrap() else {
                unreachable!()
            };
            assert_eq!(origins[0].to_string(), origin);
        }
    }
}
