//! What a request presents, as far as its headers tell. Nothing is verified here.

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};

/// Why credentials do not count. The greatest of several decides the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// There are none.
    Absent,
    /// They are not those of a revision in force.
    Unknown,
    /// They break the rules of HTTP or of their scheme.
    Malformed,
    /// They could not be verified now.
    #[cfg_attr(
        not(feature = "password-hash"),
        allow(dead_code, reason = "tokens are always verified")
    )]
    Busy,
}

/// The one value of a header, which must not be there twice (RFC 9110, 5.3; RFC 6750, 3.1).
pub(super) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a [u8], Why> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(Why::Absent)?;
    match values.next() {
        None => Ok(trim(value.as_bytes())),
        Some(_) => Err(Why::Malformed),
    }
}

/// What follows the scheme in `Authorization`, empty if nothing does. The scheme may be in any case (RFC 9110, 11.1).
pub(super) fn of_scheme<'a>(headers: &'a HeaderMap, scheme: &str) -> Result<&'a [u8], Why> {
    let value = only(headers, &AUTHORIZATION)?;
    let end = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (given, rest) = value.split_at_checked(end).unwrap_or((value, &[]));
    match given.eq_ignore_ascii_case(scheme.as_bytes()) {
        true => Ok(trim(rest)),
        false => Err(Why::Absent),
    }
}

/// So that debug output shows none of the header's values, and HTTP/2 does not compress them where they are passed on.
pub(super) fn mark_sensitive(headers: &mut HeaderMap, name: &HeaderName) {
    if let Some(value) = headers.get_mut(name) {
        value.set_sensitive(true);
    }
}

fn trim(value: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !is_blank(byte)).unwrap_or(value.len());
    let end = value
        .iter()
        .rposition(|byte| !is_blank(byte))
        .map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
}
