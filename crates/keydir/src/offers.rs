//! What one publication offers to one use: for each id, whether it is a candidate, and what was made of it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::SystemTime;

use crate::name::RevisionId;
use crate::publication::{Content, Files, Publication};
use crate::secret::Fingerprint;
use crate::view::{Parsed, Piece, Revision, Unusable, Usage, View};

pub(crate) type Offers<T> = BTreeMap<RevisionId, Offer<T>>;

/// What a publication says of one id, for one use.
#[derive(Debug)]
pub(crate) struct Offer<T> {
    pub(crate) marked: bool,
    /// There is a marker.
    pub(crate) revoked: bool,
    /// There is an entry, of whatever kind, with a naming part of the use.
    pub(crate) named: bool,
    /// Regular files with all naming parts are there, and no part that says that it is something else. A marker does
    /// not change this.
    pub(crate) candidate: bool,
    /// Says nothing unless it is a candidate.
    pub(crate) made: Result<Arc<Made<T>>, Unusable>,
    /// Of the content as it stands there, whether it parses or not.
    pub(crate) content: Option<Fingerprint>,
}

/// One revision's content, parsed.
#[derive(Debug)]
pub(crate) struct Made<T> {
    /// Of all parts of the use but `crl`: two contents are the same if this is.
    pub(crate) content: Fingerprint,
    /// Of all parts.
    pub(crate) whole: Fingerprint,
    pub(crate) item: Arc<T>,
    pub(crate) pieces: Vec<Piece>,
    /// When the view wants to combine again, whatever the pieces do.
    pub(crate) moments: Vec<SystemTime>,
}

impl<T> Made<T> {
    pub(crate) fn has_crl(&self) -> bool {
        self.whole != self.content
    }

    pub(crate) fn certificates(&self) -> impl Iterator<Item = Fingerprint> {
        self.pieces.iter().map(|piece| piece.fingerprint)
    }
}

#[cfg(test)]
impl<T> Made<T> {
    pub(crate) fn for_tests(content: Fingerprint, item: T, pieces: Vec<Piece>) -> Self {
        Self {
            content,
            whole: content,
            item: Arc::new(item),
            pieces,
            moments: Vec::new(),
        }
    }
}

pub(crate) fn offers<V: View>(view: &V, publication: &Publication, last: &Offers<V::Item>) -> Offers<V::Item> {
    let usage = view.usage();
    publication
        .revisions
        .iter()
        .map(|(id, files)| {
            let named = usage.naming_parts().any(|part| files.has(part));
            let candidate = is_candidate(usage, files);
            let (made, content) = if candidate {
                let known = last.get(id).and_then(|offer| offer.made.as_ref().ok());
                make(view, id, files, publication.flat, known)
            } else {
                (Err(why_no_candidate(usage, files)), None)
            };
            let offer = Offer {
                marked: files.marked,
                revoked: files.revoked,
                named,
                candidate,
                made,
                content,
            };
            (id.clone(), offer)
        })
        .collect()
}

/// Regular files count; of a part that excludes, any entry does.
fn is_candidate(usage: &Usage, files: &Files) -> bool {
    let is_regular = |part: &str| {
        let mut parts = files.parts.iter();
        parts.any(|(name, content)| **name == *part && content.is_regular())
    };
    usage.has_naming_parts(is_regular) && usage.excluding_part(|part| files.has(part)).is_none()
}

/// For an id that was in force before: why it no longer is what it was.
fn why_no_candidate(usage: &Usage, files: &Files) -> Unusable {
    match usage.excluding_part(|part| files.has(part)) {
        Some(part) => Unusable::new("excluded", format!("with a part {part:?} it is no {}", usage.name)).part(part),
        None => Unusable::new("incomplete", "one of its parts is gone"),
    }
}

/// What was made of a content, and its fingerprint if it could be read.
type Tried<T> = (Result<Arc<Made<T>>, Unusable>, Option<Fingerprint>);

fn make<V: View>(
    view: &V,
    id: &RevisionId,
    files: &Files,
    flat: bool,
    known: Option<&Arc<Made<V::Item>>>,
) -> Tried<V::Item> {
    let parts = match parts(view.usage(), files) {
        Ok(parts) => parts,
        Err(unusable) => return (Err(unusable), None),
    };
    let fingerprint = |without: Option<&str>| {
        Fingerprint::of_all(
            parts
                .iter()
                .filter(|(part, _)| Some(*part) != without)
                .flat_map(|(part, bytes)| [part.as_bytes(), bytes]),
        )
    };
    let content = fingerprint(Some("crl"));
    let whole = if parts.iter().any(|(part, _)| *part == "crl") {
        fingerprint(None)
    } else {
        content
    };
    if let Some(known) = known.filter(|known| known.whole == whole) {
        return (Ok(Arc::clone(known)), Some(content));
    }
    let revision = Revision::new(id, &parts, flat);
    let parsed = catch_unwind(AssertUnwindSafe(|| view.parse(&revision))).unwrap_or_else(|_| {
        Err(Unusable::new(
            "panic",
            "the parser of this use panicked on it; please report this",
        ))
    });
    let made = parsed.map(|parsed| {
        let Parsed { item, pieces, moments } = parsed;
        Arc::new(Made {
            content,
            whole,
            item: Arc::new(item),
            pieces,
            moments,
        })
    });
    (made, Some(content))
}

/// The parts of the use, after the newline rule; what the convention forbids of any part is refused here.
fn parts<'a>(usage: &Usage, files: &'a Files) -> Result<Vec<(&'a str, &'a [u8])>, Unusable> {
    let mut parts = Vec::new();
    for entries in files.parts.chunk_by(|(a, _), (b, _)| a == b) {
        let Some((part, content)) = entries
            .first()
            .filter(|(part, _)| usage.parts().any(|known| *known == **part))
        else {
            continue;
        };
        if entries.len() > 1 {
            return Err(Unusable::new("part-twice", "it is given twice, with the mark and without").part(part));
        }
        let bytes = match content {
            Content::Bytes(bytes) => bytes.expose(),
            Content::Fault(fault) => return Err(Unusable::new(fault.code(), fault.to_string()).part(part)),
            Content::Unread => return Err(Unusable::new("unread", "it was not read").part(part)),
        };
        let bytes = if usage.text.contains(&&**part) {
            text(bytes).ok_or_else(|| {
                Unusable::new("bad-text", "it holds a NUL or a line end that is not its last").part(part)
            })?
        } else {
            bytes
        };
        if bytes.is_empty() {
            return Err(Unusable::new("empty", "it is empty").part(part));
        }
        parts.push((&**part, bytes));
    }
    Ok(parts)
}

/// The newline rule: exactly one trailing LF or CRLF is lost; elsewhere there may be none.
fn text(bytes: &[u8]) -> Option<&[u8]> {
    let line = match bytes.strip_suffix(b"\n") {
        Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
        None => bytes,
    };
    (!line.iter().any(|b| matches!(b, 0 | b'\r' | b'\n'))).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_loses_exactly_one_line_end() {
        for (bytes, expected) in [
            ("a", Some("a")),
            ("a\n", Some("a")),
            ("a\r\n", Some("a")),
            ("\n", Some("")),
            ("a\n\n", None),
            ("a\r", None),
            ("a\nb", None),
            ("a\0", None),
        ] {
            assert_eq!(text(bytes.as_bytes()), expected.map(str::as_bytes), "{bytes:?}");
        }
    }
}
