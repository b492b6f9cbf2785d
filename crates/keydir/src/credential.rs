//! What HTTP can carry of a token, a user's name or a password, and which hash of a password may be computed for whoever
//! asks: for all who read these parts, written once. Reasons repeat nothing of a part but numbers.

use crate::view::{Revision, Unusable};

/// So many bytes of a header a credential may take. Many servers take 16 KiB of headers in an HTTP/2 request, all of them
/// together (SETTINGS_MAX_HEADER_LIST_SIZE: RFC 9113, 6.5.2); the rest is for the others.
pub const LONGEST_CREDENTIAL: usize = 15 * 1024;

/// KiB of memory that one attempt to log in may take: libsodium's "moderate", and four times the second choice of RFC 9106.
const MOST_MEMORY: u64 = 256 * 1024;

/// KiB that one attempt may fill in all, memory times passes: roughly a second of one core.
const MOST_WORK: u64 = 1024 * 1024;

impl<'a> Revision<'a> {
    /// The part `token`, if a header field can carry it (RFC 9110, 5.5): no control character, no blank at its ends, and
    /// at most [`LONGEST_CREDENTIAL`] bytes.
    pub fn token(&self) -> Result<&'a [u8], Unusable> {
        let token = self.need("token")?;
        carried(token).map_err(|unusable| unusable.part("token"))?;
        Ok(token)
    }

    /// The part `token`, if it can be a bearer token too (RFC 6750, 2.1).
    pub fn bearer_token(&self) -> Result<&'a [u8], Unusable> {
        if !is_bearer(self.need("token")?) {
            let reason = "it has a character that no bearer token may have (RFC 6750, 2.1: letters, digits, -._~+/, and \
                          = at the end): publish the token alone, without a scheme, a name or a comment; a service whose keys do look so \
                          reads them as any text";
            return Err(Unusable::new("no-bearer", reason).part("token"));
        }
        self.token()
    }

    /// The part `token-sha256`, decoded (convention, section 5), if it is not the digest of nothing.
    pub fn token_sha256(&self) -> Result<[u8; 32], Unusable> {
        let bad = |reason| Unusable::new("bad-digest", reason).part("token-sha256");
        let mut sha256 = [0; 32];
        let (pairs, rest) = self.need("token-sha256")?.as_chunks::<2>();
        if pairs.len() != sha256.len() || !rest.is_empty() {
            return Err(bad("it is not 64 hex digits"));
        }
        for (byte, [high, low]) in sha256.iter_mut().zip(pairs) {
            let byte_of = |high, low| Some(nibble(high)? << 4 | nibble(low)?);
            *byte = byte_of(*high, *low).ok_or_else(|| bad("it is not 64 hex digits"))?;
        }
        match sha256 == OF_NOTHING {
            true => Err(bad("it is the SHA-256 of nothing at all: take that of the token")),
            false => Ok(sha256),
        }
    }

    /// [`user_name`](Self::user_name), if HTTP's Basic scheme can send it (RFC 7617, 2): without a colon or a control
    /// character.
    pub fn basic_user_name(&self) -> Result<&'a str, Unusable> {
        let name = self.user_name()?;
        if name.contains(|c: char| c == ':' || c.is_control()) {
            let reason = "it has a colon or a control character, which HTTP's Basic scheme cannot send (RFC 7617, 2)";
            return Err(Unusable::new("bad-user-name", reason).part("username"));
        }
        Ok(name)
    }

    /// The user's name and the part `password`, if HTTP's Basic scheme can send them, in at most [`LONGEST_CREDENTIAL`]
    /// bytes.
    pub fn basic_login(&self) -> Result<(&'a str, &'a str), Unusable> {
        let user = self.basic_user_name()?;
        let password = self.text("password")?;
        if password.contains(char::is_control) {
            let reason = "it has a control character, which HTTP's Basic scheme cannot send (RFC 7617, 2): publish \
                          another";
            return Err(Unusable::new("bad-password", reason).part("password"));
        }
        let in_base64 = (user.len() + 1 + password.len()).div_ceil(3) * 4;
        not_too_long(in_base64).map_err(|unusable| unusable.part("password"))?;
        Ok((user, password))
    }

    /// The part `password-hash`, if it is a [PHC string] of Argon2 (RFC 9106) that may be computed for anybody who asks:
    /// with at most 256 MiB of memory, and roughly a second of one core (`m` times `t` is at most 1 GiB).
    ///
    /// # Errors
    /// `bad-hash` if it is no PHC string, or of Argon2 and broken; `unsupported-hash` for other algorithms; `too-costly`.
    ///
    /// [PHC string]: https://github.com/P-H-C/phc-string-format/blob/master/phc-sf-spec.md
    pub fn argon2_hash(&self) -> Result<&'a str, Unusable> {
        let text = self.text("password-hash")?;
        argon2(text).map_err(|unusable| unusable.part("password-hash"))?;
        Ok(text)
    }
}

fn carried(token: &[u8]) -> Result<(), Unusable> {
    not_too_long(token.len())?;
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let reason = if is_blank(token.first()) || is_blank(token.last()) {
        "it begins or ends with a space or a tab, which a header field loses (RFC 9110, 5.5): publish it again without"
    } else if token.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        "it has a control character, which no header field may have (RFC 9110, 5.5): publish it again without"
    } else {
        return Ok(());
    };
    Err(Unusable::new("bad-token", reason))
}

fn not_too_long(bytes: usize) -> Result<(), Unusable> {
    if bytes > LONGEST_CREDENTIAL {
        let reason = format!(
            "it takes {bytes} bytes of a header; more than {LONGEST_CREDENTIAL} are refused, since a request by HTTP/2 may \
             have 16 KiB of headers in all: have a shorter one issued"
        );
        return Err(Unusable::new("too-long", reason));
    }
    Ok(())
}

/// `b64token`.
fn is_bearer(token: &[u8]) -> bool {
    let end = token.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    let (text, _) = token.split_at_checked(end).unwrap_or((token, &[]));
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    !text.is_empty() && text.iter().all(allowed)
}

/// What `sha256sum` says of an empty file.
const OF_NOTHING: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|nibble| u8::try_from(nibble).ok())
}

/// The fields of `$id[$v=version][$params][$salt[$hash]]`.
#[derive(Default)]
struct Phc<'a> {
    algorithm: &'a str,
    version: Option<&'a str>,
    params: &'a str,
    salt: &'a str,
    hash: &'a str,
}

impl<'a> Phc<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let mut fields = text.strip_prefix('$')?.split('$').peekable();
        let algorithm = fields.next()?;
        let version = fields.next_if(|field| field.starts_with("v=") && !field.contains(','));
        let params = fields.next_if(|field| field.contains('=')).unwrap_or_default();
        let [salt, hash] = [(); 2].map(|()| fields.next().unwrap_or_default());
        let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let in_salt = |c: char| c.is_ascii_alphanumeric() || "/+.-".contains(c);
        let in_hash = |c: char| c.is_ascii_alphanumeric() || "/+".contains(c);
        let is_whole = fields.next().is_none()
            && (1..=32).contains(&algorithm.len())
            && algorithm.chars().all(lower)
            && params.chars().all(|c| in_salt(c) || "=,".contains(c))
            && salt.chars().all(in_salt)
            && hash.chars().all(in_hash)
            // Nothing stands between two dollars.
            && !text.contains("$$")
            && !text.ends_with('$');
        is_whole.then_some(Self {
            algorithm,
            version: version.and_then(|field| field.strip_prefix("v=")),
            params,
            salt,
            hash,
        })
    }

    fn number(&self, name: &str) -> Option<u32> {
        let mut params = self.params.split(',').filter_map(|param| param.split_once('='));
        params.find(|(given, _)| *given == name)?.1.parse().ok()
    }
}

fn argon2(text: &str) -> Result<(), Unusable> {
    let bad = |reason: &str| Err(Unusable::new("bad-hash", reason));
    let Some(phc) = Phc::of(text) else {
        return bad("it is no PHC string: $algorithm$v=version$parameters$salt$hash");
    };
    if phc.salt.is_empty() || phc.hash.is_empty() {
        return bad("it has no salt, or no hash: it is no PHC string of a password's hash");
    }
    if !matches!(phc.algorithm, "argon2id" | "argon2i" | "argon2d") {
        let reason = "its algorithm is none of argon2id, argon2i, argon2d: hash the password with argon2id";
        return Err(Unusable::new("unsupported-hash", reason));
    }
    if !matches!(phc.version, None | Some("16" | "19")) {
        return bad("its version is neither 16 nor 19, the two that Argon2 has");
    }
    let [Some(memory), Some(passes), Some(lanes)] = ["m", "t", "p"].map(|name| phc.number(name)) else {
        return bad("it lacks one of the parameters m, t, p");
    };
    let [memory, passes, lanes] = [memory, passes, lanes].map(u64::from);
    if passes < 1 || !(1..1 << 24).contains(&lanes) || memory < 8 * lanes {
        return bad(
            "its parameters are not those of Argon2 (RFC 9106, 3.1): t and p are at least 1, and m at least 8 times p",
        );
    }
    // In base64 without padding, of which four letters are three bytes.
    if phc.salt.len() * 3 / 4 < 8 || phc.hash.len() * 3 / 4 < 10 {
        return bad("its salt has fewer than 8 bytes, or its hash fewer than 10");
    }
    affordable(memory, passes)
}

/// Whoever may send a request may have this computed.
fn affordable(memory: u64, passes: u64) -> Result<(), Unusable> {
    let too_costly = |reason| Err(Unusable::new("too-costly", reason));
    if memory > MOST_MEMORY {
        return too_costly(format!(
            "each attempt to log in would take {memory} KiB of memory (m); hash the password again with at most {MOST_MEMORY}"
        ));
    }
    if memory * passes > MOST_WORK {
        return too_costly(format!(
            "each attempt to log in would fill {memory} KiB {passes} times (m, t); hash the password again so that m times t \
             is at most {MOST_WORK}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(text: &str) -> Option<&'static str> {
        argon2(text).err().map(|unusable| unusable.code())
    }

    #[test]
    fn strings_of_argon2_are_told_from_others() {
        let of = |params: &str| format!("$argon2id$v=19${params}$c29tZXNhbHQ$4B4RlHx0aXnFJDxLGN0Zsw");
        for (text, expected) in [
            (of("m=19456,t=2,p=1"), None),
            (of("p=1,t=2,m=19456,keyid=x"), None),
            (
                "$argon2i$m=32,t=2,p=4$c29tZXNhbHQ$4B4RlHx0aXnFJDxLGN0Zsw".to_owned(),
                None,
            ),
            (of("m=32,t=2"), Some("bad-hash")),
            (of("m=-1,t=2,p=1"), Some("bad-hash")),
            (of("m=31,t=2,p=4"), Some("bad-hash")),
            (of("m=262145,t=1,p=1"), Some("too-costly")),
            (of("m=4294967295,t=4294967295,p=1"), Some("too-costly")),
            (of("m=4294967296,t=1,p=1"), Some("bad-hash")),
            ("$scrypt$ln=16,r=8,p=1$aM15$QAjB".to_owned(), Some("unsupported-hash")),
            ("$scrypt$ln=16".to_owned(), Some("bad-hash")),
            ("plain".to_owned(), Some("bad-hash")),
            ("$pläin$x$y".to_owned(), Some("bad-hash")),
            (of("m=32,t=2,p=1") + "$", Some("bad-hash")),
            (of("m=32,t=2,p=1").replace("$v", "$$v"), Some("bad-hash")),
            (of("m=32,t=2,p=1").replace("c29tZXNhbHQ", "c29t"), Some("bad-hash")),
            (of("m=32,t=2,p=1").replace("v=19", "v=18"), Some("bad-hash")),
        ] {
            assert_eq!(code(&text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged(text in "\\PC{0,60}|[$a-z0-9=,+/-]{0,60}|\\$argon2id\\$[mtpv=0-9,$a]{0,60}") {
            let _ = argon2(&text);
        }
    }
}
