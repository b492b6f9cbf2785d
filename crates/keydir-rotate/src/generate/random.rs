//! Symmetric keys, passwords and tokens.

use keydir::Secret;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Error;

/// Letters and digits: no shell, URL, header or connection string gives one of them a meaning.
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// How many bytes stand for each of them alike; those above are drawn again.
const FAIR: u8 = 248;

/// A symmetric key of this many bytes: 32 for HS256 and for AES-256-GCM.
///
/// # Errors
/// Fewer than 16 bytes or more than 1024, and [`Error::Randomness`].
///
/// ```
/// assert_eq!(keydir_rotate::generate::symmetric(32)?.expose().len(), 32);
/// assert!(keydir_rotate::generate::symmetric(5).is_err());
/// # Ok::<(), keydir_rotate::generate::Error>(())
/// ```
pub fn symmetric(bytes: usize) -> Result<Secret, Error> {
    if !(16..=1024).contains(&bytes) {
        return Err(Error::impossible(
            "bytes",
            format!("a symmetric key has 16 to 1024 bytes, not {bytes}"),
        ));
    }
    let mut key = Secret::new(random(bytes)?.to_vec());
    // One key in some tens of millions looks like a DER structure, and readers refuse it as a key of another kind
    // (convention, section 5). Those all begin with the same byte.
    while key.expose().starts_with(&[0x30]) {
        key = Secret::new(random(bytes)?.to_vec());
    }
    Ok(key)
}

/// A token of 43 letters and digits: 256 bits.
///
/// # Errors
/// [`Error::Randomness`].
///
/// ```
/// use keydir_rotate::generate::{token, token_sha256};
///
/// let token = token()?;
/// let check = token_sha256(&token); // the part `token-sha256` of those who check it
/// assert_eq!(check.len(), 64);
/// # Ok::<(), keydir_rotate::generate::Error>(())
/// ```
pub fn token() -> Result<Secret, Error> {
    letters_and_digits(43)
}

/// A password of 32 letters and digits: 190 bits.
///
/// # Errors
/// [`Error::Randomness`].
///
/// ```
/// assert!(keydir_rotate::generate::password()?.expose().is_ascii());
/// # Ok::<(), keydir_rotate::generate::Error>(())
/// ```
pub fn password() -> Result<Secret, Error> {
    letters_and_digits(32)
}

/// The SHA-256 of a token in hex, as the part `token-sha256` holds it. One line end after the token does not count.
pub fn token_sha256(token: &Secret) -> String {
    let token = token.expose();
    let line = token
        .strip_suffix(b"\n")
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let digest = Sha256::digest(line.unwrap_or(token));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Random bytes, erased when they go.
pub(crate) fn random(bytes: usize) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut random = Zeroizing::new(vec![0; bytes]);
    getrandom::fill(&mut random).map_err(|_| Error::Randomness)?;
    Ok(random)
}

fn letters_and_digits(count: usize) -> Result<Secret, Error> {
    // Of the right capacity from the start: a vector that grows leaves copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(count));
    while text.len() < count {
        let missing = count - text.len();
        let drawn = random(missing)?;
        let fair = drawn.iter().filter(|byte| **byte < FAIR);
        text.extend(fair.filter_map(|byte| ALPHABET.get(usize::from(byte % 62))));
    }
    Ok(Secret::new(std::mem::take(&mut *text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_and_digit_comes_equally_often() {
        let mut counts = [0_u32; 128];
        for _ in 0..2_000 {
            for byte in token().unwrap().expose() {
                counts[usize::from(*byte)] += 1;
            }
        }
        // 86,000 draws: 1387 each, with a standard deviation of 37.
        for letter in 0..128_u8 {
            let expected = if ALPHABET.contains(&letter) { 1_120..1_660 } else { 0..1 };
            let count = counts[usize::from(letter)];
            assert!(expected.contains(&count), "{:?}: {count}", char::from(letter));
        }
    }

    #[test]
    fn lengths_hold_the_bits_that_are_promised() {
        let bits = |secret: Secret| f64::from(u8::try_from(secret.expose().len()).unwrap()) * 62_f64.log2();
        assert!(bits(token().unwrap()) >= 256.0);
        assert!(bits(password().unwrap()) >= 190.0);
    }

    #[test]
    fn no_symmetric_key_begins_as_der_does() {
        for _ in 0..5_000 {
            let key = symmetric(16).unwrap();
            assert_eq!(key.expose().len(), 16);
            assert_ne!(key.expose()[0], 0x30);
        }
    }

    #[test]
    fn sizes_that_are_no_key_are_refused() {
        for bytes in [0, 15, 1025] {
            let error = symmetric(bytes).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("bytes: a symmetric key has 16 to 1024 bytes, not {bytes}")
            );
        }
    }

    #[test]
    fn a_digest_is_that_of_the_token_without_its_line_end() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for token in ["abc", "abc\n", "abc\r\n"] {
            assert_eq!(token_sha256(&Secret::from(token)), abc);
        }
        assert_ne!(token_sha256(&Secret::from("abc\n\n")), abc);
    }
}
