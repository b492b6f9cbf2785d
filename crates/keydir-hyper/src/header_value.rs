//! Header values that are secrets.

use bytes::Bytes;
use http::HeaderValue;
use keydir::{Revision, Unusable};
use zeroize::Zeroizing;

/// Longer credentials are refused, in files and in requests. hyper and others take 16 KiB of headers in an HTTP/2 request, all of them together
/// (SETTINGS_MAX_HEADER_LIST_SIZE: RFC 9113, 6.5.2); the rest is for the others.
pub(crate) const LONGEST: usize = 15 * 1024;

/// What stands in a header: never indexed by HTTP/2, not shown by `Debug`, erased with its last clone.
pub(crate) fn sensitive(scheme: &str, credential: &[u8]) -> Result<HeaderValue, Unusable> {
    if credential.len() > LONGEST {
        let reason = format!(
            "it takes {} bytes of a header; more than {LONGEST} are refused, since a request by HTTP/2 may have 16 KiB of \
             headers in all: have a shorter one issued",
            credential.len()
        );
        return Err(Unusable::new("too-long", reason));
    }
    let mut value = Vec::with_capacity(scheme.len() + credential.len());
    value.extend_from_slice(scheme.as_bytes());
    value.extend_from_slice(credential);
    let value = Bytes::from_owner(Zeroizing::new(value));
    let mut value = HeaderValue::from_maybe_shared(value).map_err(|_| {
        let reason = "it has a control character, which no header field may have (RFC 9110, 5.5): publish it again \
                      without";
        Unusable::new("bad-token", reason)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The user's name of a login that goes by HTTP's Basic scheme.
pub(crate) fn basic_user<'a>(revision: &Revision<'a>) -> Result<&'a str, Unusable> {
    let name = revision.user_name()?;
    if name.contains(|c: char| c == ':' || c.is_control()) {
        let reason = "it has a colon or a control character, which HTTP's Basic scheme cannot send (RFC 7617, 2)";
        return Err(Unusable::new("bad-user-name", reason).part("username"));
    }
    Ok(name)
}
