//! What a server says with a 401: `WWW-Authenticate` (RFC 9110, 11.6.1).

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// Whether credentials of this scheme are asked for, and not only more rights than ours have (`insufficient_scope`,
/// RFC 6750, 3.1).
pub(super) fn asks_for(headers: &HeaderMap, scheme: &str) -> bool {
    let (mut asked, mut ours) = (false, false);
    // Several fields are one list (RFC 9110, 5.3).
    let fields = headers.get_all(WWW_AUTHENTICATE).iter();
    for element in fields.flat_map(|field| elements(field.as_bytes())) {
        let (token, rest) = token(trim(element));
        let parameter = match value(rest) {
            Some(value) => Some((token, value)),
            None if token.is_empty() => None,
            None => {
                ours = token.eq_ignore_ascii_case(scheme.as_bytes());
                asked |= ours;
                let (name, rest) = self::token(trim(rest));
                value(rest).map(|value| (name, value))
            }
        };
        let more_rights = parameter.is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case(b"error") && value.eq_ignore_ascii_case(b"insufficient_scope")
        });
        if ours && more_rights {
            return false;
        }
    }
    asked
}

/// What commas divide, but for those inside quotes.
fn elements(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    field.split(move |byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b',' => return !quoted,
            _ => {}
        }
        false
    })
}

/// The token that some text begins with (RFC 9110, 5.6.2), and what follows.
fn token(text: &[u8]) -> (&[u8], &[u8]) {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let end = text.iter().position(|byte| !is_tchar(byte)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, &[]))
}

/// What stands after `=`, without its quotes.
fn value(text: &[u8]) -> Option<&[u8]> {
    let value = trim(trim(text).strip_prefix(b"=")?);
    let inside = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    Some(inside.unwrap_or(value))
}

fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn asks(fields: &[&str], scheme: &str) -> bool {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(field).unwrap());
        }
        asks_for(&headers, scheme)
    }

    #[test]
    fn a_challenge_of_our_scheme_is_found_wherever_it_stands() {
        for (fields, expected) in [
            (&["Bearer"] as &[&str], true),
            (&["bearer realm=\"x\""], true),
            (
                &["Bearer error=\"invalid_token\", error_description=\"it expired\""],
                true,
            ),
            (&["Basic realm=\"a, Bearer b\""], false),
            (&["Basic realm=\"a \\\", Bearer\""], false),
            (&["Basic realm=\"a\", Bearer realm=\"b\""], true),
            (&["Basic realm=\"a\"", "Bearer realm=\"b\""], true),
            (&["Negotiate abc==, Bearer"], true),
            (&["Negotiate Bearer"], false),
            (&["Basic realm=Bearer"], false),
            (&["Basic Bearer=\"x\""], false),
            (&["Bearers"], false),
            (&["DPoP algs=\"ES256\""], false),
            (&[], false),
            (&[""], false),
            (&[", ,"], false),
            (&["\"Bearer\""], false),
        ] {
            assert_eq!(asks(fields, "Bearer"), expected, "{fields:?}");
        }
        assert!(asks(&["Basic realm=\"x\""], "Basic"));
    }

    #[test]
    fn who_wants_more_rights_does_not_ask_for_another_token() {
        for (fields, expected) in [
            (
                &["Bearer error=\"insufficient_scope\", scope=\"admin\""] as &[&str],
                false,
            ),
            (&["Bearer realm=\"x\", error=\"insufficient_scope\""], false),
            (&["Bearer realm=\"x\" , ERROR = insufficient_scope"], false),
            (&["Bearer realm=\"x\"", "error=\"insufficient_scope\""], false),
            (&["Basic realm=\"x\", error=\"insufficient_scope\", Bearer"], true),
            (&["Bearer realm=\"error=insufficient_scope\""], true),
        ] {
            assert_eq!(asks(fields, "Bearer"), expected, "{fields:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(field in "[ -~]{0,60}|[Bear\"\\\\,= ]{0,20}") {
            asks(&[&field], "Bearer");
        }
    }
}
