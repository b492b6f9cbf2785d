//! Names that a certificate may carry.

use std::net::IpAddr;

use super::Error;

/// What X.520 leaves to a common name (`ub-common-name`).
pub(crate) const COMMON_NAME: usize = 64;

pub(crate) fn common_name(field: &'static str, name: &str) -> Result<(), Error> {
    let reason = if name.trim() != name || name.is_empty() {
        "is empty, or has space around it"
    } else if name.chars().any(char::is_control) {
        "holds a control character"
    } else if name.chars().count() > COMMON_NAME {
        "has more than the 64 characters of a common name"
    } else {
        return Ok(());
    };
    Err(Error::impossible(field, format!("{name:?} {reason}")))
}

/// A host name (RFC 1123; underscores are in use), or one below a wildcard.
pub(crate) fn dns(name: &str) -> Result<(), Error> {
    let legal = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let reason = if name.parse::<IpAddr>().is_ok() {
        "is an address, which belongs in ip"
    } else if name.len() > 253 || !name.strip_prefix("*.").unwrap_or(name).split('.').all(legal) {
        "is no host name"
    } else if name.strip_prefix("*.").is_some_and(|below| !below.contains('.')) {
        "is a wildcard over a whole top level"
    } else if name
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
    {
        // Clients read a name that ends in a number as an address (WHATWG URL), and never match it.
        "ends in a number"
    } else {
        return Ok(());
    };
    Err(Error::impossible("dns", format!("{name:?} {reason}")))
}

/// An absolute URI (RFC 5280, section 4.2.1.6).
pub(crate) fn uri(uri: &str) -> Result<(), Error> {
    let scheme = uri.split_once(':').filter(|(scheme, rest)| {
        let letters = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.bytes().all(letters) && !rest.is_empty()
    });
    let reason = if scheme.is_none() || !uri.bytes().all(|b| b.is_ascii_graphic()) {
        "is no absolute URI in ASCII"
    } else if scheme.is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("spiffe")) {
        "belongs in spiffe"
    } else {
        return Ok(());
    };
    Err(Error::impossible("uri", format!("{uri:?} {reason}")))
}

/// A SPIFFE ID of a workload: `spiffe://trust-domain/path` (SPIFFE ID, section 2; X509-SVID, section 4.1).
pub(crate) fn spiffe(id: &str) -> Result<(), Error> {
    let domain_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    let segment_letter = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let segment =
        |segment: &str| !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(segment_letter);
    let parts = id.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/'));
    let legal = parts.is_some_and(|(domain, path)| {
        (1..=255).contains(&domain.len()) && domain.bytes().all(domain_letter) && path.split('/').all(segment)
    });
    if legal && id.len() <= 2048 {
        return Ok(());
    }
    Err(Error::impossible(
        "spiffe",
        format!("{id:?} is not of the form spiffe://trust-domain/path"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(of: fn(&str) -> Result<(), Error>, good: &[&str], bad: &[(&str, &str)]) {
        for name in good {
            assert_eq!(of(name), Ok(()), "{name}");
        }
        for (name, reason) in bad {
            let error = of(name).unwrap_err().to_string();
            assert!(error.ends_with(reason), "{name}: {error}");
        }
    }

    #[test]
    fn host_names() {
        let long = ["a"; 127].join(".");
        check(
            dns,
            &[
                "localhost",
                "a.b-c.example",
                "*.example.com",
                "x_y.svc",
                "xn--bcher-kva.example",
                &long,
            ],
            &[
                ("", "is no host name"),
                ("a..b", "is no host name"),
                ("example.com.", "is no host name"),
                ("b\u{fc}cher.example", "is no host name"),
                ("a b", "is no host name"),
                ("-a.example", "is no host name"),
                ("a.*.example", "is no host name"),
                (&(long.clone() + "aa"), "is no host name"),
                (&"a".repeat(64), "is no host name"),
                ("*", "is no host name"),
                ("*.com", "is a wildcard over a whole top level"),
                ("10.0.0.1", "is an address, which belongs in ip"),
                ("::1", "is an address, which belongs in ip"),
                ("300.0.0.1", "ends in a number"),
            ],
        );
    }

    #[test]
    fn uris() {
        check(
            uri,
            &["https://example.com/a?b#c", "urn:uuid:1"],
            &[
                ("example.com/a", "is no absolute URI in ASCII"),
                ("1a:b", "is no absolute URI in ASCII"),
                ("a:", "is no absolute URI in ASCII"),
                ("a:b c", "is no absolute URI in ASCII"),
                ("a:\u{e9}", "is no absolute URI in ASCII"),
                ("SPIFFE://a/b", "belongs in spiffe"),
            ],
        );
    }

    #[test]
    fn spiffe_ids() {
        let good = ["spiffe://example.org/a", "spiffe://a_b-c.d/ns/prod/sa/Api.v2"];
        let long = format!("spiffe://a/{}", "b".repeat(2040));
        let bad = [
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe://Example.org/a",
            "spiffe://example.org:80/a",
            "spiffe://u@example.org/a",
            "spiffe://example.org/a/",
            "spiffe://example.org/a//b",
            "spiffe://example.org/a/../b",
            "spiffe://example.org/a/./b",
            "spiffe://example.org/a?b",
            "spiffe://example.org/a%20b",
            "spiffe:///a",
            "https://example.org/a",
            &long,
        ];
        check(
            spiffe,
            &good,
            &bad.map(|id| (id, "is not of the form spiffe://trust-domain/path")),
        );
    }

    #[test]
    fn common_names() {
        let (full, long) = ("\u{e9}".repeat(64), "a".repeat(65));
        check(
            |name| common_name("name", name),
            &["app", "Mesh CA", &full],
            &[
                ("", "is empty, or has space around it"),
                (" a", "is empty, or has space around it"),
                ("a\nb", "holds a control character"),
                (&long, "has more than the 64 characters of a common name"),
            ],
        );
    }
}
