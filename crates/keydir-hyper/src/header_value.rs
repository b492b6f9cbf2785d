//! Header values that are secrets.

use bytes::Bytes;
use http::HeaderValue;
use keydir::Unusable;
use zeroize::Zeroizing;

/// What stands in a header: never indexed by HTTP/2, not shown by `Debug`, erased with its last clone.
pub(crate) fn sensitive(scheme: &str, credential: &[u8]) -> Result<HeaderValue, Unusable> {
    let mut value = Vec::with_capacity(scheme.len() + credential.len());
    value.extend_from_slice(scheme.as_bytes());
    value.extend_from_slice(credential);
    let value = Bytes::from_owner(Zeroizing::new(value));
    let mut value = HeaderValue::from_maybe_shared(value)
        .map_err(|_| Unusable::new("bad-token", "no header field can carry it (RFC 9110, 5.5)"))?;
    value.set_sensitive(true);
    Ok(value)
}
