//! Serial numbers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::generate::Error;
use crate::generate::random::random;

/// The serial number of a certificate. As text and in serde: hex digits, two for each byte.
///
/// Ours have 159 random bits, so that no two are equal and nobody can foresee one; RFC 5280 allows 20 bytes, positive.
///
/// ```
/// let serial: keydir_rotate::generate::Serial = "00C0FFEE".parse()?;
/// assert_eq!(serial.to_string(), "c0ffee");
/// # Ok::<(), keydir_rotate::generate::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(Vec<u8>);

impl Serial {
    pub(crate) fn random() -> Result<Self, Error> {
        let mut bytes = random(20)?.to_vec();
        if let Some(first) = bytes.first_mut() {
            *first &= 0x7f;
        }
        Ok(Self::new(&bytes))
    }

    /// From a big-endian number; leading zeros do not count.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        // Zero is not allowed, and has been in use.
        let zeros = zeros.min(bytes.len().saturating_sub(1));
        Self(bytes.iter().skip(zeros).copied().collect())
    }

    pub(crate) fn to_rcgen(&self) -> rcgen::SerialNumber {
        rcgen::SerialNumber::from_slice(&self.0)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Serial {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let error = || Error::impossible("serial", format!("{text:?} is not 1 to 20 bytes in hex"));
        let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16)?.try_into().ok()).collect();
        let digits = digits.filter(|digits| digits.len() % 2 == 0).ok_or_else(error)?;
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
            .collect();
        let serial = Self::new(&bytes);
        if (1..=20).contains(&serial.0.len()) {
            Ok(serial)
        } else {
            Err(error())
        }
    }
}

impl Serialize for Serial {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Serial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_positive_and_as_long_as_they_may_be() {
        let bytes: Vec<Vec<u8>> = (0..500).map(|_| Serial::random().unwrap().0).collect();
        assert!(bytes.iter().all(|bytes| bytes.len() <= 20));
        let full: Vec<_> = bytes.iter().filter(|bytes| bytes.len() == 20).collect();
        assert!(full.iter().all(|bytes| bytes[0] < 0x80));
        // The first seven bits are zero in one of 128.
        assert!(full.len() > 450, "{}", full.len());
    }

    #[test]
    fn only_hex_of_a_legal_length_is_a_serial() {
        for text in ["", "0", "abc", "0x01", "g0", &"01".repeat(21)] {
            assert!(text.parse::<Serial>().is_err(), "{text}");
        }
        assert_eq!("0000".parse(), Ok(Serial(vec![0])));
        let serial: Serial = serde_json::from_str("\"0aFF\"").unwrap();
        assert_eq!(serde_json::to_string(&serial).unwrap(), "\"0aff\"");
    }
}
