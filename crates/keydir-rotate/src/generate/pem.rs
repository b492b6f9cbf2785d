//! PEM, written and read; what may be secret is erased.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::Error;

/// Bytes of DER in a line of 64 characters (RFC 7468).
const LINE: usize = 48;

/// One block.
pub(crate) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    // Of the right capacity from the start: a string that grows leaves copies behind.
    let lines = der.len().div_ceil(LINE);
    let mut pem = Zeroizing::new(String::with_capacity(lines * 65 + 2 * (label.len() + 20)));
    pem.push_str("-----BEGIN ");
    pem.push_str(label);
    pem.push_str("-----\n");
    for line in der.chunks(LINE) {
        STANDARD.encode_string(line, &mut pem);
        pem.push('\n');
    }
    pem.push_str("-----END ");
    pem.push_str(label);
    pem.push_str("-----\n");
    pem
}

/// What stands between the two lines of a label, decoded.
pub(crate) struct Block<'a> {
    pub(crate) label: &'a str,
    pub(crate) der: Zeroizing<Vec<u8>>,
}

/// Each block. Text outside of blocks is passed over (convention, section 5).
pub(crate) fn decode(pem: &[u8]) -> Result<Vec<Block<'_>>, Error> {
    let pem = std::str::from_utf8(pem).map_err(|_| Error::Pem("it is no text"))?;
    let mut blocks = Vec::new();
    let mut open: Option<(&str, Zeroizing<String>)> = None;
    for line in pem.lines().map(str::trim_end) {
        if let Some(label) = boundary(line, "-----BEGIN ") {
            if open.is_some() {
                return Err(Error::Pem("a block begins inside of another"));
            }
            open = Some((label, Zeroizing::new(String::with_capacity(pem.len()))));
        } else if let Some(label) = boundary(line, "-----END ") {
            let body = open.take().filter(|(begun, _)| *begun == label);
            let (label, body) = body.ok_or(Error::Pem("a block ends that was not begun"))?;
            let mut der = Zeroizing::new(vec![0; body.len() / 4 * 3 + 3]);
            let length = STANDARD.decode_slice(body.as_bytes(), &mut der);
            der.truncate(length.map_err(|_| Error::Pem("a block is not base64"))?);
            blocks.push(Block { label, der });
        } else if line.starts_with("-----BEGIN") || line.starts_with("-----END") {
            return Err(Error::Pem(
                "a line looks like the begin or the end of a block and is none",
            ));
        } else if let Some((_, body)) = &mut open {
            body.push_str(line);
        }
    }
    match open {
        Some(_) => Err(Error::Pem("a block has no end")),
        None => Ok(blocks),
    }
}

fn boundary<'a>(line: &'a str, prefix: &str) -> Option<&'a str> {
    let label = line.strip_prefix(prefix)?.strip_suffix("-----")?;
    (!label.is_empty() && !label.contains('-')).then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..4)) {
            let text: String = blocks.iter().map(|der| format!("text\n{}", *encode("A KEY", der))).collect();
            for text in [text.clone(), text.replace('\n', "\r\n")] {
                let read = decode(text.as_bytes()).unwrap();
                let read: Vec<_> = read.iter().map(|block| (block.label, block.der.to_vec())).collect();
                let written: Vec<_> = blocks.iter().map(|der| ("A KEY", der.clone())).collect();
                prop_assert_eq!(read, written);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn damage_is_refused() {
        let whole = encode("KEY", &[7; 100]);
        for (damaged, reason) in [
            (whole.replace("-----END KEY-----\n", ""), "a block has no end"),
            (
                whole.replace("-----BEGIN KEY-----\n", ""),
                "a block ends that was not begun",
            ),
            (whole.replace("END KEY", "END CRT"), "a block ends that was not begun"),
            (whole.replace("BwcH", "B*cH"), "a block is not base64"),
            (
                whole.replace("-----END", "-----BEGIN KEY-----\n-----END"),
                "a block begins inside of another",
            ),
            (
                whole.trim_end().to_owned() + &whole,
                "a line looks like the begin or the end of a block and is none",
            ),
        ] {
            assert_eq!(decode(damaged.as_bytes()).err(), Some(Error::Pem(reason)), "{damaged}");
        }
    }
}
