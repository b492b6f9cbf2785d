//! One PHC string: what is accepted of it, and a password tried against it.

use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Params, Version};
use keydir::Unusable;
use subtle::ConstantTimeEq;

/// KiB of memory that one attempt may take: libsodium's "moderate", and four times the second choice of RFC 9106.
const MOST_MEMORY: u32 = 256 * 1024;

/// KiB that one attempt may fill in all, memory times passes: roughly a second of one core.
const MOST_WORK: u64 = 1024 * 1024;

/// A password's hash, and how to make another like it.
pub(super) struct Hash {
    argon2: Argon2<'static>,
    salt: Salt,
    output: Output,
}

impl Hash {
    /// Reads a PHC string. The reasons repeat nothing of it but its costs: it may be a password by mistake.
    pub(super) fn parse(text: &str) -> Result<Self, Unusable> {
        let bad = |reason: &str| Unusable::new("bad-hash", reason);
        let phc = PasswordHash::new(text)
            .map_err(|_| bad("it is no PHC string of Argon2: $argon2id$v=..$m=..,t=..,p=..$salt$hash"))?;
        let algorithm = Algorithm::new(phc.algorithm).map_err(|_| {
            let reason = "its algorithm is none of argon2id, argon2i, argon2d: hash the password with argon2id";
            Unusable::new("unsupported-hash", reason)
        })?;
        // As the reference implementation reads strings from before there was a second version.
        let version = Version::try_from(phc.version.unwrap_or(0x10))
            .map_err(|_| bad("its version is neither 16 nor 19, the two that Argon2 has"))?;
        if ["m", "t", "p"].iter().any(|name| phc.params.get(*name).is_none()) {
            return Err(bad("it lacks one of the parameters m, t, p"));
        }
        let (Some(salt), Some(output)) = (phc.salt, phc.hash) else {
            return Err(bad("it has no salt, or no hash"));
        };
        let params = Params::try_from(&phc).map_err(|_| bad("its parameters are not those of Argon2"))?;
        affordable(&params)?;
        Ok(Self {
            argon2: Argon2::new(algorithm, version, params),
            salt,
            output,
        })
    }

    /// Whether it is this password's. Takes as long and as much memory as the parameters say.
    ///
    /// # Errors
    /// If that memory cannot be had.
    pub(super) fn matches(&self, password: &[u8]) -> Result<bool, argon2::Error> {
        let expected = self.output.as_bytes();
        let mut made = vec![0; expected.len()];
        self.argon2.hash_password_into(password, &self.salt, &mut made)?;
        Ok(made.ct_eq(expected).into())
    }
}

/// Whoever may send a request may have this computed.
fn affordable(params: &Params) -> Result<(), Unusable> {
    let (memory, passes) = (params.m_cost(), params.t_cost());
    let too_costly = |reason| Err(Unusable::new("too-costly", reason));
    if memory > MOST_MEMORY {
        return too_costly(format!(
            "each attempt to log in would take {memory} KiB of memory (m); hash the password again with at most {MOST_MEMORY}"
        ));
    }
    if u64::from(memory) * u64::from(passes) > MOST_WORK {
        return too_costly(format!(
            "each attempt to log in would fill {memory} KiB {passes} times (m, t); hash the password again so that m times t \
             is at most {MOST_WORK}"
        ));
    }
    Ok(())
}
