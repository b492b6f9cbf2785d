//! File names: `<revision>.<part>[.primary]`, markers, and the natural order of ids (convention, section 1).

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// The parts that the convention names itself. They can never be labels of an id.
const NAMED_PARTS: [&str; 11] = [
    "key",
    "crt",
    "pem",
    "crl",
    "private",
    "public",
    "username",
    "password",
    "password-hash",
    "token",
    "token-sha256",
];
const PRIMARY: &str = "primary";
const REVOKED: &str = "revoked";
/// `id "." part` must leave room for `.primary` in a Kubernetes Secret key of 253 bytes.
const MAX_UNMARKED: usize = 245;
const MAX_MARKER: usize = 253;
const MAX_PART: usize = 63;

/// The name of one revision of a secret, such as `2026.11.24` or `r2`.
///
/// Ids are not secret: they stand in logs and reports. They compare by the *natural order* of the convention:
/// runs of digits as numbers, all else by bytes (`r2 < r10`, `r01 < r1 < r1a`). It is an order, not an age.
///
/// ```
/// let mut ids: Vec<keydir::RevisionId> = ["r10", "r2", "r1a", "r1"].iter().map(|id| id.parse()).collect::<Result<_, _>>()?;
/// ids.sort();
/// assert_eq!(ids.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["r1", "r1a", "r2", "r10"]);
/// # Ok::<(), keydir::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RevisionId(Arc<str>);

impl RevisionId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For hash maps that are asked by text. Ordered maps cannot be: the text has another order.
    pub(crate) fn text(&self) -> &Arc<str> {
        &self.0
    }

    /// For ids that were checked already, and for the id `flat`.
    pub(crate) fn new_unchecked(id: &str) -> Self {
        Self(Arc::from(id))
    }
}

impl std::str::FromStr for RevisionId {
    type Err = NameError;

    fn from_str(id: &str) -> Result<Self, NameError> {
        if is_id(id) && id.len() + ".key".len() <= MAX_UNMARKED {
            Ok(Self::new_unchecked(id))
        } else {
            Err(NameError(id.chars().take(300).collect()))
        }
    }
}

impl fmt::Display for RevisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for RevisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl PartialEq<str> for RevisionId {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for RevisionId {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

impl PartialOrd for RevisionId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RevisionId {
    fn cmp(&self, other: &Self) -> Ordering {
        natural(self.0.as_bytes(), other.0.as_bytes()).then_with(|| self.0.cmp(&other.0))
    }
}

impl serde::Serialize for RevisionId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for RevisionId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A text that is no revision id: section 1 of the convention says what one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError(String);

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no revision id: labels of letters, digits, '-' and '_', joined by dots, none of them a part's name, at most 241 bytes",
            self.0
        )
    }
}

impl std::error::Error for NameError {}

/// What the name of a directory entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileName {
    /// `id.part` or `id.part.primary`.
    File {
        /// The revision that the file belongs to.
        id: RevisionId,
        /// The part, such as `key`.
        part: Arc<str>,
        /// Whether the name ends in `.primary`.
        primary: bool,
    },
    /// `id.revoked`, with or without `.primary`: the id is revoked.
    Marker {
        /// The revision that is revoked.
        id: RevisionId,
    },
    /// Starts with a dot: not part of the set.
    Hidden,
    /// Anything else: reported, never read.
    Stray {
        /// The name ends in `.revoked`, in any case, with or without `.primary`: somebody meant to revoke.
        revokes: bool,
    },
}

impl FileName {
    /// Reads a name as section 1 of the convention says: from the right.
    ///
    /// ```
    /// use keydir::FileName;
    /// let FileName::File { id, part, primary } = FileName::parse(b"2026.11.24.key.primary") else { unreachable!() };
    /// assert_eq!((id.as_str(), &*part, primary), ("2026.11.24", "key", true));
    /// assert_eq!(FileName::parse(b"r1.key.tmp"), FileName::Stray { revokes: false });
    /// ```
    pub fn parse(name: &[u8]) -> Self {
        if name.first() == Some(&b'.') {
            return Self::Hidden;
        }
        std::str::from_utf8(name)
            .ok()
            .and_then(Self::parse_well_formed)
            .unwrap_or_else(|| Self::Stray {
                revokes: ends_in_revoked(name),
            })
    }

    fn parse_well_formed(name: &str) -> Option<Self> {
        let (unmarked, primary) = match name.strip_suffix(".primary") {
            Some(unmarked) => (unmarked, true),
            None => (name, false),
        };
        let (id, part) = unmarked.rsplit_once('.')?;
        if !is_id(id) {
            return None;
        }
        if part == REVOKED {
            return (name.len() <= MAX_MARKER).then(|| Self::Marker {
                id: RevisionId::new_unchecked(id),
            });
        }
        (is_part(part) && unmarked.len() <= MAX_UNMARKED).then(|| Self::File {
            id: RevisionId::new_unchecked(id),
            part: Arc::from(part),
            primary,
        })
    }

    /// Reads a name in the flat layout: the whole name is the part of the id `flat`.
    pub fn parse_flat(name: &[u8]) -> Self {
        if name.first() == Some(&b'.') {
            return Self::Hidden;
        }
        match std::str::from_utf8(name) {
            Ok(part) if is_part(part) => Self::File {
                id: RevisionId::new_unchecked("flat"),
                part: Arc::from(part),
                primary: true,
            },
            _ => Self::Stray {
                revokes: ends_in_revoked(name),
            },
        }
    }
}

fn is_id(id: &str) -> bool {
    !id.is_empty() && id.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && !label.eq_ignore_ascii_case(PRIMARY)
        && !label.eq_ignore_ascii_case(REVOKED)
        && !NAMED_PARTS.iter().any(|part| label.eq_ignore_ascii_case(part))
}

pub(crate) fn is_part(part: &str) -> bool {
    (1..=MAX_PART).contains(&part.len())
        && part != PRIMARY
        && part != REVOKED
        && part
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

fn ends_in_revoked(name: &[u8]) -> bool {
    let lower = name.to_ascii_lowercase();
    let unmarked = lower.strip_suffix(b".primary").unwrap_or(&lower);
    unmarked.ends_with(b".revoked")
}

/// Compares run by run; bytes decide only between ids whose runs are all equal (`r01` and `r1`).
fn natural(mut a: &[u8], mut b: &[u8]) -> Ordering {
    loop {
        let ((run_a, rest_a), (run_b, rest_b)) = match (first_run(a), first_run(b)) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) => (a, b),
        };
        let order = if is_digits(run_a) && is_digits(run_b) {
            number(run_a).cmp(&number(run_b))
        } else {
            run_a.cmp(run_b)
        };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

fn first_run(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let digits = bytes.first()?.is_ascii_digit();
    let end = bytes
        .iter()
        .position(|b| b.is_ascii_digit() != digits)
        .unwrap_or(bytes.len());
    Some(bytes.split_at(end))
}

fn is_digits(run: &[u8]) -> bool {
    run.first().is_some_and(u8::is_ascii_digit)
}

/// A number of any length, as something that compares like it.
fn number(run: &[u8]) -> (usize, &[u8]) {
    let zeros = run.iter().take_while(|b| **b == b'0').count();
    let significant = run.split_at(zeros).1;
    (significant.len(), significant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(text: &str) -> RevisionId {
        text.parse().unwrap()
    }

    #[test]
    fn names_parse_from_the_right() {
        let long = "a".repeat(241);
        for (name, expected) in [
            ("r1.key", Some(("r1", "key", false))),
            ("r1.key.primary", Some(("r1", "key", true))),
            ("2026.11.24.key", Some(("2026.11.24", "key", false))),
            (&format!("{long}.key"), Some((long.as_str(), "key", false))),
            (&format!("{long}a.key"), None),
            ("r1.a-1_b", Some(("r1", "a-1_b", false))),
            ("r1.1", Some(("r1", "1", false))),
            ("r1.-", Some(("r1", "-", false))),
            ("r1._", Some(("r1", "_", false))),
            ("r1.key.tmp", None),
            ("key.key", None),
            ("r1.KEY", None),
            ("r1..key", None),
            ("r1", None),
        ] {
            let parsed = match FileName::parse(name.as_bytes()) {
                FileName::File { id, part, primary } => Some((id.to_string(), part.to_string(), primary)),
                _ => None,
            };
            let expected = expected.map(|(id, part, primary)| (id.to_owned(), part.to_owned(), primary));
            assert_eq!(parsed, expected, "{name}");
        }
    }

    #[test]
    fn ids_are_checked_where_they_come_as_text() {
        let long = "a".repeat(241);
        for good in ["r1", "2026.11.24", "A_b-3", &long] {
            let read = id(good);
            assert!(read == *good && read == good && read != *"other" && read != "other");
            assert_eq!(format!("{read} {read:?} {read:>250}").matches(good).count(), 3);
        }
        let longer = long + "a";
        for bad in [
            "",
            ".",
            "r1.",
            "r 1",
            "r1.key",
            "Primary",
            "x.REVOKED",
            "\u{e9}",
            &longer,
        ] {
            let error = bad.parse::<RevisionId>().unwrap_err();
            assert!(
                error.to_string().starts_with(&format!("{bad:?} is no revision id")),
                "{error}"
            );
        }
    }

    #[test]
    fn the_longest_names_are_those_that_can_still_be_marked() {
        for (id, end, expected) in [
            (241, ".key", true),
            (242, ".key", false),
            (182, format!(".{}", "p".repeat(63)).as_str(), false),
            (181, format!(".{}", "p".repeat(63)).as_str(), true),
            (100, format!(".{}", "p".repeat(64)).as_str(), false),
            (245, ".revoked", true),
            (246, ".revoked", false),
            (237, ".revoked.primary", true),
            (238, ".revoked.primary", false),
        ] {
            let name = "a".repeat(id) + end;
            let stray = matches!(FileName::parse(name.as_bytes()), FileName::Stray { .. });
            assert_eq!(!stray, expected, "{id} {end}");
        }
    }

    #[test]
    fn in_the_flat_layout_a_name_is_a_part() {
        for (name, expected) in [
            (
                "key",
                FileName::File {
                    id: id("flat"),
                    part: "key".into(),
                    primary: true,
                },
            ),
            (".key", FileName::Hidden),
            ("r1.key", FileName::Stray { revokes: false }),
            ("key.revoked", FileName::Stray { revokes: true }),
        ] {
            assert_eq!(FileName::parse_flat(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn a_stray_that_means_to_revoke_says_so() {
        for name in ["r1.REVOKED", "key.revoked", "r 1.Revoked.PRIMARY"] {
            assert_eq!(
                FileName::parse(name.as_bytes()),
                FileName::Stray { revokes: true },
                "{name}"
            );
        }
    }

    #[test]
    fn the_natural_order_is_that_of_the_convention() {
        let sorted = ["1", "2", "10", "r01", "r1", "r1a", "r2", "r10", "s"];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(id(a).cmp(&id(b)), i.cmp(&j), "{a} {b}");
                assert_eq!(id(a) < id(b), i < j, "{a} {b}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(name in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (FileName::parse(&name), FileName::parse_flat(&name));
        }

        #[test]
        fn the_order_is_total(a in "[a0-1.]{1,6}", b in "[a0-1.]{1,6}", c in "[a0-1.]{1,6}") {
            let [a, b, c] = [a, b, c].map(|s| RevisionId::new_unchecked(&s));
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
        }
    }
}
