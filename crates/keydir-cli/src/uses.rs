//! Which uses a directory serves: as it was said, or guessed from the names in it.

use std::collections::BTreeSet;

use keydir::{Usage, uses};

use crate::listing::{Listed, Listing};

/// The use with this name, for the command line.
pub(crate) fn named(name: &str) -> Result<Usage, String> {
    let found = uses::ALL.into_iter().find(|usage| usage.name() == name);
    found.ok_or_else(|| {
        let names: Vec<_> = uses::ALL.iter().map(Usage::name).collect();
        format!("the uses are {}", names.join(", "))
    })
}

/// The uses that the parts of some revision suggest, in the order of the convention.
///
/// Names cannot tell a pinned certificate from an anchor, nor the two ends of a token apart; README.md has the rules.
pub(crate) fn detect(listing: &Listing) -> Vec<Usage> {
    let mut found = BTreeSet::new();
    for listed in listing.revisions.values() {
        found.extend(suggested(listed));
    }
    uses::ALL
        .into_iter()
        .filter(|usage| found.contains(usage.name()))
        .collect()
}

fn suggested(listed: &Listed) -> Vec<&'static str> {
    let has = |part: &str| listed.parts.contains(part);
    let mut found = Vec::new();
    match (has("crt"), has("key")) {
        (true, true) if has("username") => found.push(uses::CERTIFICATE_LOGIN.name()),
        (true, true) => found.push(uses::TLS_IDENTITY.name()),
        (false, true) if !has("pem") && !has("private") && !has("public") => found.push(uses::SYMMETRIC.name()),
        _ => {}
    }
    if (has("crt") || has("pem")) && !has("key") && !has("private") {
        found.push(uses::ANCHORS.name());
    }
    if has("private") {
        found.push(uses::SIGNING.name());
    } else if has("public") {
        found.push(uses::VERIFYING.name());
    }
    if has("password") {
        found.push(uses::PASSWORD_LOGIN.name());
    }
    if has("password-hash") {
        found.push(uses::PASSWORD_CHECK.name());
    }
    if has("token-sha256") {
        found.push(uses::TOKEN_CHECK.name());
    } else if has("token") {
        found.push(uses::TOKEN.name());
    }
    found
}

/// Whether names alone make a revision a candidate of a use.
pub(crate) fn is_candidate(usage: &Usage, listed: &Listed) -> bool {
    !listed.revoked && usage.is_candidate(|part| listed.parts.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detected(names: &str) -> String {
        let uses = detect(&Listing::of_names(names.split(' ')));
        uses.iter().map(Usage::name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn names_suggest_uses() {
        for (names, expected) in [
            ("", ""),
            ("r1.config notes", ""),
            ("tls.crt tls.key ca.crt", "tls-identity anchors"),
            ("r1.crt.primary r1.key r1.username", "certificate-login"),
            ("c1.pem c2.crt c2.crl", "anchors"),
            ("r1.key r2.key.primary", "symmetric"),
            ("r1.private r1.public", "signing"),
            ("r1.public r2.public", "verifying"),
            (
                "r1.password r1.username r2.password-hash",
                "password-login password-check",
            ),
            ("r1.token r2.token-sha256", "token token-check"),
            ("r1.revoked", ""),
        ] {
            assert_eq!(detected(names), expected, "{names}");
        }
    }
}
