//! Where a request goes: an `https` URL, taken apart once.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;
use keydir_rustls::rustls::pki_types::ServerName;

/// An `https` URL.
#[derive(Clone, Debug)]
pub struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What the server's certificate must be for.
    pub(crate) name: ServerName<'static>,
    pub(crate) authority: String,
    pub(crate) path: String,
    uri: Uri,
}

impl Target {
    /// All of it.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }
}

/// Why a text is no URL that a request can go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetError(String);

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: give something like https://localhost:8443/", self.0)
    }
}

impl std::error::Error for TargetError {}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let fail = |reason: &str| TargetError(reason.to_owned());
        let uri: Uri = text.parse().map_err(|_| fail("it is no URL"))?;
        match uri.scheme_str() {
            Some("https") => {}
            Some(other) => return Err(TargetError(format!("the scheme is {other}, not https"))),
            None => return Err(fail("it has no scheme")),
        }
        let authority = uri.authority().ok_or_else(|| fail("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(fail("user and password have no place in it"));
        }
        let after_host = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
        let port = match (authority.port_u16(), after_host) {
            (Some(port), _) => port,
            (None, "") => 443,
            (None, _) => return Err(fail("the port is no number up to 65535")),
        };
        // An IPv6 address stands in brackets in a URL, and nowhere else.
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| fail("the host is neither a name nor an address"))?;
        Ok(Self {
            host,
            port,
            name,
            authority: authority.to_string(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            uri,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (url, host, port, path) in [
            ("https://localhost:8443", "localhost", 8443, "/"),
            ("https://a.test/x?y=1", "a.test", 443, "/x?y=1"),
            ("https://127.0.0.1:1/", "127.0.0.1", 1, "/"),
            ("https://[::1]:8443/", "::1", 8443, "/"),
        ] {
            let target: Target = url.parse().unwrap();
            assert_eq!(
                (target.host.as_str(), target.port, target.path.as_str()),
                (host, port, path)
            );
        }
    }

    #[test]
    fn what_is_no_such_url_is_refused_with_the_reason() {
        for (url, reason) in [
            ("", "it is no URL"),
            ("localhost", "it has no scheme"),
            ("http://localhost/", "the scheme is http, not https"),
            ("https://u:p@localhost/", "user and password have no place in it"),
            ("https://localhost:x/", "the port is no number up to 65535"),
            ("https://localhost:99999/", "the port is no number up to 65535"),
            ("https://-_-:1/", "the host is neither a name nor an address"),
            ("https://:1/", "the host is neither a name nor an address"),
        ] {
            let error = url.parse::<Target>().unwrap_err();
            assert_eq!(error.0, reason, "{url}");
        }
    }
}
