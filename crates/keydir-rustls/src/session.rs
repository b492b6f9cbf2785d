//! What stands in a server session of rustls 0.23: as much as is needed to find the client's certificates.
//!
//! rustls gives a store and a ticketer the encoded session and no way to ask who the client was. The encoding
//! (`ServerSessionValue`) has been the same, byte for byte, from 0.23.0 to 0.23.46; `tests/sessions.rs` fails when
//! a version changes it. A session that is not understood to the last byte is not stored and not resumed, so a change
//! would cost speed and never admit anyone: what is found here must still be verified.
//! An accessor in rustls would let us remove this file.

/// Who the client of a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer<'a> {
    /// It showed no certificate.
    Anonymous,
    /// It showed these.
    Chain(Chain<'a>),
}

impl<'a> Peer<'a> {
    /// `None` for anything that is not exactly one encoded session.
    pub(crate) fn of(session: &'a [u8]) -> Option<Self> {
        let mut rest = Reader(session);
        if rest.flag()? {
            rest.vector::<1>()?; // the server name
        }
        let version = rest.number::<2>()?;
        if version != 0x0303 && version != 0x0304 {
            return None;
        }
        rest.number::<2>()?; // the cipher suite
        rest.vector::<1>()?; // the secret
        rest.flag()?; // whether the extended master secret was used
        let peer = if rest.flag()? {
            Self::Chain(Chain::of(rest.vector::<3>()?)?)
        } else {
            Self::Anonymous
        };
        if rest.flag()? {
            rest.vector::<1>()?; // the protocol of ALPN
        }
        rest.vector::<2>()?; // the application's data
        rest.take(8 + 4)?; // when it was made, and the obfuscation of its age
        rest.0.is_empty().then_some(peer)
    }
}

/// Certificates in the encoding of TLS 1.2, checked: at least one, none empty. Iterates over their DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain<'a>(&'a [u8]);

impl<'a> Chain<'a> {
    fn of(encoded: &'a [u8]) -> Option<Self> {
        let mut rest = Reader(encoded);
        loop {
            if rest.vector::<3>()?.is_empty() {
                return None;
            }
            if rest.0.is_empty() {
                return Some(Self(encoded));
            }
        }
    }
}

impl<'a> Iterator for Chain<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let mut rest = Reader(self.0);
        let certificate = rest.vector::<3>()?;
        self.0 = rest.0;
        Some(certificate)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number<const BYTES: usize>(&mut self) -> Option<usize> {
        let bytes = self.take(BYTES)?;
        Some(bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b)))
    }

    /// A length in so many bytes, then as many bytes as it says.
    fn vector<const BYTES: usize>(&mut self) -> Option<&'a [u8]> {
        let length = self.number::<BYTES>()?;
        self.take(length)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.number::<1>()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::option;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    struct Session {
        sni: Option<Vec<u8>>,
        version: u16,
        secret: Vec<u8>,
        ems: bool,
        chain: Option<Vec<Vec<u8>>>,
        alpn: Option<Vec<u8>>,
        data: Vec<u8>,
    }

    fn length(out: &mut Vec<u8>, bytes: usize, value: usize) {
        out.extend(&value.to_be_bytes()[8 - bytes..]);
    }

    fn vector(out: &mut Vec<u8>, bytes: usize, value: &[u8]) {
        length(out, bytes, value.len());
        out.extend(value);
    }

    fn optional(out: &mut Vec<u8>, bytes: usize, value: Option<&[u8]>) {
        out.push(value.is_some().into());
        if let Some(value) = value {
            vector(out, bytes, value);
        }
    }

    impl Session {
        fn encode(&self) -> Vec<u8> {
            let mut out = Vec::new();
            optional(&mut out, 1, self.sni.as_deref());
            out.extend(self.version.to_be_bytes());
            out.extend([0x13, 0x01]);
            vector(&mut out, 1, &self.secret);
            out.push(self.ems.into());
            let chain = self.chain.as_ref().map(|chain| {
                let mut out = Vec::new();
                chain.iter().for_each(|der| vector(&mut out, 3, der));
                out
            });
            optional(&mut out, 3, chain.as_deref());
            optional(&mut out, 1, self.alpn.as_deref());
            vector(&mut out, 2, &self.data);
            out.extend([7; 12]);
            out
        }
    }

    fn bytes(range: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), range)
    }

    fn session() -> impl Strategy<Value = Session> {
        (
            option::of(bytes(0..20)),
            prop_oneof![Just(0x0303), Just(0x0304)],
            bytes(0..60),
            any::<bool>(),
            option::of(proptest::collection::vec(bytes(1..300), 1..4)),
            option::of(bytes(0..10)),
            bytes(0..30),
        )
            .prop_map(|(sni, version, secret, ems, chain, alpn, data)| Session {
                sni,
                version,
                secret,
                ems,
                chain,
                alpn,
                data,
            })
    }

    proptest! {
        #[test]
        fn a_session_yields_its_chain_and_no_other_length_of_it_anything(session in session(), extra in any::<u8>()) {
            let mut encoded = session.encode();
            let read = match Peer::of(&encoded).unwrap() {
                Peer::Anonymous => None,
                Peer::Chain(chain) => Some(chain.map(<[u8]>::to_vec).collect::<Vec<_>>()),
            };
            prop_assert_eq!(read, session.chain);
            for length in 0..encoded.len() {
                prop_assert_eq!(Peer::of(&encoded[..length]), None, "cut at {}", length);
            }
            encoded.push(extra);
            prop_assert_eq!(Peer::of(&encoded), None);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in bytes(0..200)) {
            if let Some(Peer::Chain(chain)) = Peer::of(&bytes) {
                prop_assert!(chain.count() > 0 && chain.into_iter().all(|der| !der.is_empty()));
            }
        }

        #[test]
        fn a_changed_byte_does_no_harm(
            session in session(), at in any::<prop::sample::Index>(), bits in 1u8..
        ) {
            let mut encoded = session.encode();
            let at = at.index(encoded.len());
            encoded[at] ^= bits;
            let _ = Peer::of(&encoded);
        }
    }

    #[test]
    fn an_empty_chain_or_certificate_is_refused() {
        let session = Session {
            sni: None,
            version: 0x0304,
            secret: vec![1; 32],
            ems: false,
            chain: Some(vec![vec![1]]),
            alpn: None,
            data: Vec::new(),
        };
        for (chain, fine) in [
            (vec![vec![1]], true),
            (vec![], false),
            (vec![vec![]], false),
            (vec![vec![1], vec![]], false),
        ] {
            let encoded = Session {
                chain: Some(chain.clone()),
                ..session.clone()
            }
            .encode();
            assert_eq!(Peer::of(&encoded).is_some(), fine, "{chain:?}");
        }
        assert_eq!(
            Peer::of(
                &Session {
                    version: 0x0302,
                    ..session
                }
                .encode()
            ),
            None
        );
    }
}
