//! One PHC string, and a password tried against it.

use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Params, Version};
use keydir::Unusable;
use subtle::ConstantTimeEq;

/// A password's hash, and how to make another like it.
pub(super) struct Hash {
    argon2: Argon2<'static>,
    salt: Salt,
    output: Output,
}

impl Hash {
    /// Reads a PHC string that the core takes. The reasons repeat nothing of it: it may be a password by mistake.
    pub(super) fn parse(text: &str) -> Result<Self, Unusable> {
        let bad = || {
            Unusable::new(
                "bad-hash",
                "it is no PHC string of Argon2: $argon2id$v=..$m=..,t=..,p=..$salt$hash",
            )
        };
        let phc = PasswordHash::new(text).map_err(|_| bad())?;
        let algorithm = Algorithm::new(phc.algorithm).map_err(|_| bad())?;
        // As the reference implementation reads strings from before there was a second version.
        let version = Version::try_from(phc.version.unwrap_or(0x10)).map_err(|_| bad())?;
        let params = Params::try_from(&phc).map_err(|_| bad())?;
        Ok(Self {
            argon2: Argon2::new(algorithm, version, params),
            salt: phc.salt.ok_or_else(bad)?,
            output: phc.hash.ok_or_else(bad)?,
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
