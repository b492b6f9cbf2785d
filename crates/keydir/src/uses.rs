//! The uses of the convention (section 5), as far as names and rules go. Adapters read them with views of their own.

use crate::view::Usage;

/// A symmetric key: JWT HS*, AEAD. A revoked primary stops signing and sealing.
pub const SYMMETRIC: Usage = Usage::new("symmetric")
    .naming(&[&["key"]])
    .private(&["key"])
    .excluded(&["crt", "pem", "private", "public"])
    .presents()
    .accepts()
    .stops_when_revoked();

/// A private key that signs, PEM. Its verifiers accept by id; see [`VERIFYING`].
pub const SIGNING: Usage = Usage::new("signing")
    .naming(&[&["private"]])
    .other(&["public"])
    .private(&["private"])
    .presents()
    .accepts()
    .stops_when_revoked();

/// A public key that verifies, PEM; or the private key that it belongs to.
pub const VERIFYING: Usage = Usage::new("verifying")
    .naming(&[&["public", "private"]])
    .private(&["private"])
    .accepts();

/// A certificate with its chain, and its key, PEM: what a TLS end shows.
pub const TLS_IDENTITY: Usage = Usage::new("tls-identity")
    .naming(&[&["crt"], &["key"]])
    .private(&["key"])
    .presents();

/// CA certificates that are trusted, PEM.
pub const ANCHORS: Usage = Usage::new("anchors")
    .naming(&[&["crt", "pem"]])
    .other(&["crl"])
    .excluded(&["key", "private"])
    .accepts();

/// One certificate that is accepted by itself, byte for byte, PEM.
pub const PINNED: Usage = Usage::new("pinned").naming(&[&["crt", "pem"]]).accepts();

/// A password to log in with; the id is the user name unless there is a `username`.
pub const PASSWORD_LOGIN: Usage = Usage::new("password-login")
    .naming(&[&["password"]])
    .other(&["username"])
    .text(&["password", "username"])
    .private(&["password"])
    .presents();

/// Passwords that are accepted, as PHC hashes.
pub const PASSWORD_CHECK: Usage = Usage::new("password-check")
    .naming(&[&["password-hash"]])
    .other(&["username"])
    .text(&["password-hash", "username"])
    .private(&["password-hash"])
    .accepts();

/// A certificate and its key to log in with.
pub const CERTIFICATE_LOGIN: Usage = Usage::new("certificate-login")
    .naming(&[&["crt"], &["key"]])
    .other(&["username"])
    .text(&["username"])
    .private(&["key"])
    .presents();

/// A token that is sent in a header.
pub const TOKEN: Usage = Usage::new("token")
    .naming(&[&["token"]])
    .text(&["token"])
    .private(&["token"])
    .presents();

/// Tokens that are accepted: their SHA-256, or themselves.
pub const TOKEN_CHECK: Usage = Usage::new("token-check")
    .naming(&[&["token-sha256", "token"]])
    .text(&["token-sha256", "token"])
    .private(&["token"])
    .accepts();

/// All of them.
pub const ALL: [Usage; 11] = [
    SYMMETRIC,
    SIGNING,
    VERIFYING,
    TLS_IDENTITY,
    ANCHORS,
    PINNED,
    PASSWORD_LOGIN,
    PASSWORD_CHECK,
    CERTIFICATE_LOGIN,
    TOKEN,
    TOKEN_CHECK,
];
