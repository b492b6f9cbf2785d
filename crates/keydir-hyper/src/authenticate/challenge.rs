//! What a refused client is told to present: `WWW-Authenticate` (RFC 9110, 11.6.1), and the answer that it stands in.

use http::header::{HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};

use super::credentials::Why;

/// One way to authenticate, as it is told to clients.
#[derive(Clone, Debug)]
pub(super) struct Challenge {
    scheme: &'static str,
    realm: Option<String>,
    parameter: Option<String>,
    /// Whether errors are told by codes (RFC 6750, 3.1).
    codes: bool,
}

impl Challenge {
    /// RFC 6750.
    pub(super) fn bearer() -> Self {
        Self {
            scheme: "Bearer",
            realm: None,
            parameter: None,
            codes: true,
        }
    }

    /// No scheme is registered for tokens in a header of their own, but a 401 must have a challenge.
    pub(super) fn header(name: &HeaderName) -> Self {
        Self {
            scheme: "ApiKey",
            realm: None,
            parameter: Some(format!("header=\"{name}\"")),
            codes: false,
        }
    }

    /// RFC 7617, which demands a realm.
    #[cfg(feature = "password-hash")]
    pub(super) fn basic() -> Self {
        Self {
            scheme: "Basic",
            realm: Some("restricted".to_owned()),
            parameter: Some("charset=\"UTF-8\"".to_owned()),
            codes: false,
        }
    }

    pub(super) fn realm(&mut self, realm: &str) {
        self.realm = Some(realm.to_owned());
    }

    fn value(&self, why: Why) -> Option<HeaderValue> {
        let code = match why {
            Why::Unknown => Some("invalid_token"),
            Why::Malformed => Some("invalid_request"),
            Why::Absent | Why::Busy => None,
        };
        let realm = self.realm.as_deref().map(|realm| format!("realm={}", quoted(realm)));
        let error = code.filter(|_| self.codes).map(|code| format!("error=\"{code}\""));
        let parameters: Vec<_> = [realm, self.parameter.clone(), error].into_iter().flatten().collect();
        let text = format!("{} {}", self.scheme, parameters.join(", "));
        HeaderValue::try_from(text.trim_end()).ok()
    }
}

/// Whether a realm can stand in a header.
pub(super) fn check_realm(realm: &str) -> Result<(), InvalidHeaderValue> {
    HeaderValue::from_str(realm).map(|_| ())
}

/// A quoted-string (RFC 9110, 5.6.4).
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"")
}

/// The answer to a request that is not let through.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    headers: HeaderMap,
}

impl Refusal {
    /// `tried` has each way that there is, with what is the matter with its credentials.
    pub(super) fn new<'a>(tried: impl Iterator<Item = (&'a Challenge, Why)> + Clone) -> Self {
        let worst = tried.clone().map(|(_, why)| why).max().unwrap_or(Why::Absent);
        tracing::debug!(reason = ?worst, "request refused: it is not authenticated");
        let mut headers = HeaderMap::new();
        let status = match worst {
            Why::Absent | Why::Unknown => StatusCode::UNAUTHORIZED,
            Why::Malformed => StatusCode::BAD_REQUEST,
            Why::Busy => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
                let status = StatusCode::SERVICE_UNAVAILABLE;
                return Self { status, headers };
            }
        };
        let mut values: Vec<HeaderValue> = Vec::new();
        for value in tried.filter_map(|(challenge, why)| challenge.value(why)) {
            if !values.contains(&value) {
                headers.append(WWW_AUTHENTICATE, value.clone());
                values.push(value);
            }
        }
        Self { status, headers }
    }

    pub(super) fn into_response<B: Default>(self) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}
