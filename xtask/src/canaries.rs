//! The search for secrets in what the tests printed.
//!
//! Tests that handle keys write them, one a line, to `target/canaries`. None of these may be found
//! in the log: as it is, as hex, as base64 at any offset (both alphabets), or as the list of
//! decimal numbers that `Debug` makes of bytes.

use std::collections::HashMap;

use crate::{Outcome, files};

const CANARIES: &str = "target/canaries";
/// Shorter ones would be found by chance.
const SHORTEST: usize = 12;

/// Forgets the secrets of earlier runs.
pub(crate) fn forget() -> Outcome {
    files::write(CANARIES, "")
}

pub(crate) fn search(log: &str) -> Outcome {
    let canaries = files::read_text(CANARIES)?;
    let mut needles = Needles::default();
    for (index, canary) in canaries.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        if canary.len() < SHORTEST {
            let number = index + 1;
            return Err(format!("{CANARIES}:{number}: fewer than {SHORTEST} bytes"));
        }
        needles.add(index + 1, canary.as_bytes());
    }
    if needles.secrets == 0 {
        return Err(format!("{CANARIES} is empty"));
    }
    let log_bytes = files::read(log)?;
    match needles.find_in(&log_bytes) {
        Some((number, form)) => Err(format!(
            "{log} holds the secret of {CANARIES}:{number}, in the form {form}"
        )),
        None => {
            println!("none of {} secrets in {} bytes", needles.secrets, log_bytes.len());
            Ok(())
        }
    }
}

/// Where a needle begins: enough bytes to be rare, fewer than the shortest needle has.
const START: usize = 8;

/// All forms of all secrets, by how they begin, so that one pass over a text finds any of them.
#[derive(Default)]
struct Needles {
    secrets: usize,
    raw: HashMap<Vec<u8>, Vec<Needle>>,
    /// Searched for where white space is left out: encoded text is often broken into lines.
    joined: HashMap<Vec<u8>, Vec<Needle>>,
    /// Searched for in lower case and without colons.
    hex: HashMap<Vec<u8>, Vec<Needle>>,
}

struct Needle {
    number: usize,
    form: &'static str,
    bytes: Vec<u8>,
}

impl Needles {
    fn add(&mut self, number: usize, secret: &[u8]) {
        self.secrets += 1;
        let add = |to: &mut HashMap<_, Vec<_>>, form, bytes: Vec<u8>| {
            let start = bytes.iter().copied().take(START).collect();
            to.entry(start).or_default().push(Needle { number, form, bytes });
        };
        add(&mut self.raw, "raw", secret.to_vec());
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        add(&mut self.hex, "hex", hex.into_bytes());
        let decimal: Vec<String> = secret.iter().map(u8::to_string).collect();
        add(&mut self.joined, "decimal", decimal.join(",").into_bytes());
        for phase in 0..3 {
            let standard = base64_inside(secret, phase);
            let url = standard.replace('+', "-").replace('/', "_");
            add(&mut self.joined, "base64", standard.into_bytes());
            add(&mut self.joined, "base64", url.into_bytes());
        }
    }

    /// The first secret found, as its line in the list, and the form that it has there.
    fn find_in(&self, text: &[u8]) -> Option<(usize, &'static str)> {
        let joined: Vec<u8> = text
            .iter()
            .copied()
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect();
        let folded: Vec<u8> = joined
            .iter()
            .filter(|&&byte| byte != b':')
            .map(u8::to_ascii_lowercase)
            .collect();
        find(&self.raw, text)
            .or_else(|| find(&self.joined, &joined))
            .or_else(|| find(&self.hex, &folded))
            .map(|needle| (needle.number, needle.form))
    }
}

fn find<'a>(needles: &'a HashMap<Vec<u8>, Vec<Needle>>, text: &[u8]) -> Option<&'a Needle> {
    text.windows(START).enumerate().find_map(|(at, start)| {
        let rest = text.get(at..)?;
        needles
            .get(start)?
            .iter()
            .find(|needle| rest.starts_with(&needle.bytes))
    })
}

/// The characters that base64 makes of `secret` alone, if `phase` bytes (modulo 3) stand before it:
/// those that also hold bits of a neighbour are left out.
fn base64_inside(secret: &[u8], phase: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bit = |at: usize| secret.get(at / 8).map(|byte| usize::from(byte >> (7 - at % 8) & 1));
    // A character boundary falls on each sixth bit of the whole text.
    let start = (6 - phase * 8 % 6) % 6;
    (start..secret.len() * 8)
        .step_by(6)
        .filter_map(|at| (at..at + 6).try_fold(0, |value, at| Some(value << 1 | bit(at)?)))
        .filter_map(|value| ALPHABET.get(value))
        .map(|&character| char::from(character))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"canary-2d7f?>~ 41";

    fn find(text: &str) -> Option<&'static str> {
        let mut needles = Needles::default();
        needles.add(1, b"another-one-entirely");
        needles.add(2, SECRET);
        let (number, form) = needles.find_in(text.as_bytes())?;
        assert_eq!(number, 2);
        Some(form)
    }

    #[test]
    fn nothing_is_found_in_harmless_text() {
        for text in [
            "",
            "c",
            "canary",
            "canary-2d7f?>~ 4",
            "ok. 3 passed; 0 failed",
            "[99, 97, 110, 97, 114, 121]",
        ] {
            assert_eq!(find(text), None, "{text}");
        }
    }

    /// The negative control: each form that must be found, made by other programs than ours.
    #[test]
    fn each_form_is_found() {
        let cases = [
            ("log: canary-2d7f?>~ 41 end", "raw"),
            ("cccanary-2d7f?>~ 41", "raw"),
            ("x 63616e6172792d326437663f3e7e203431 y", "hex"),
            ("63:61:6E:61:72:79:2D:32:64:37:66:3F:3E:7E:20:34:31", "hex"),
            ("63616e6172792d32\n6437663f3e7e203431", "hex"),
            (
                "Bytes([99, 97, 110, 97, 114, 121, 45, 50, 100, 55, 102, 63, 62, 126, 32, 52, 49])",
                "decimal",
            ),
            // base64 of the secret after "", "a" and "ab", each followed by "z".
            ("Y2FuYXJ5LTJkN2Y/Pn4gNDF6", "base64"),
            ("YWNhbmFyeS0yZDdmPz5+IDQxeg==", "base64"),
            ("YWJjYW5hcnktMmQ3Zj8+fiA0MXo=", "base64"),
            ("Y2FuYXJ5LTJkN2Y_Pn4gNDE=", "base64"),
            ("Y2FuYXJ5L\nTJkN2Y/Pn4gNDF6", "base64"),
        ];
        for (text, form) in cases {
            assert_eq!(find(text), Some(form), "{text}");
        }
    }
}
