//! One publication: the files of one moment, sorted by revision, before anyone has parsed them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::name::{FileName, RevisionId};
use crate::problem::Problem;
use crate::secret::Secret;

/// All files of one moment.
#[derive(Debug, Default)]
pub(crate) struct Publication {
    /// The `publication` id of `.rotation.json`.
    pub(crate) id: Option<String>,
    /// Read in the flat layout.
    pub(crate) flat: bool,
    /// In natural order.
    pub(crate) revisions: Vec<(RevisionId, Files)>,
    /// What is wrong with names and files, whatever the use.
    pub(crate) problems: Vec<Problem>,
}

/// What lies in the directory under one id.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) marked: bool,
    pub(crate) revoked: bool,
    /// By name; one that is given with the mark and without stands there twice.
    pub(crate) parts: Vec<(Arc<str>, Content)>,
}

impl Files {
    pub(crate) fn has(&self, part: &str) -> bool {
        self.parts.iter().any(|(name, _)| **name == *part)
    }
}

#[derive(Debug)]
pub(crate) enum Content {
    Bytes(Secret),
    /// A regular file that no use asked for.
    Unread,
    Fault(Fault),
}

/// Why an entry gave no content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A FIFO, device, socket or directory; says which.
    NotRegular(&'static str),
    /// A link that leaves the directory, loops, or leads nowhere; says which.
    Link(&'static str),
    TooLarge {
        size: u64,
        limit: u64,
    },
    Unreadable(String),
}

impl Fault {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NotRegular(_) => "not-regular",
            Self::Link(_) => "link",
            Self::TooLarge { .. } => "too-large",
            Self::Unreadable(_) => "unreadable-file",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRegular(what) => write!(f, "it is a {what}, not a regular file"),
            Self::Link(what) => write!(f, "it is a link that {what}"),
            Self::TooLarge { size, limit } => {
                write!(f, "it has {size} bytes, more than the limit of {limit}")
            }
            Self::Unreadable(error) => write!(f, "it cannot be read: {error}"),
        }
    }
}

impl Content {
    pub(crate) fn is_regular(&self) -> bool {
        !matches!(self, Self::Fault(Fault::NotRegular(_) | Fault::Link(_)))
    }
}

/// What a reader of a directory does with each entry, in any source: a file system or memory.
pub(crate) struct Builder<'a> {
    publication: Publication,
    revisions: HashMap<RevisionId, Files>,
    known: &'a dyn Fn(&str) -> bool,
}

/// The one file whose name begins with a dot and that a reader looks into.
pub(crate) const ROTATION: &str = ".rotation.json";

impl<'a> Builder<'a> {
    /// `known` says of a part whether a use of the reader has it.
    pub(crate) fn new(flat: bool, known: &'a dyn Fn(&str) -> bool) -> Self {
        Self {
            publication: Publication {
                flat,
                ..Publication::default()
            },
            revisions: HashMap::new(),
            known,
        }
    }

    /// Adds an entry. `content` is asked for only if the entry counts, with the part's name (or `None` for a marker,
    /// of which only the name matters, so that it is never asked).
    pub(crate) fn add<E>(&mut self, name: &[u8], content: impl FnOnce(&str) -> Result<Content, E>) -> Result<(), E> {
        let shown = || String::from_utf8_lossy(name).into_owned();
        let parsed = if self.publication.flat {
            FileName::parse_flat(name)
        } else {
            FileName::parse(name)
        };
        match parsed {
            FileName::Hidden => {}
            FileName::Stray { revokes } => {
                let (code, message) = if revokes {
                    ("stray-marker", "this name revokes nothing")
                } else {
                    ("stray", "this is no name of the convention, so it is not read")
                };
                self.problem(Problem::new(code, shown(), message));
            }
            FileName::Marker { id } => self.revisions.entry(id).or_default().revoked = true,
            FileName::File { id, part, primary } => {
                let content = content(&part)?;
                if let Content::Fault(fault) = &content {
                    self.problem(Problem::new(fault.code(), shown(), fault.to_string()));
                }
                if !(self.known)(&part) {
                    let message = "no use of this reader has such a part";
                    self.problem(Problem::new("unknown-part", shown(), message));
                }
                let files = self.revisions.entry(id).or_default();
                files.marked |= primary && content.is_regular();
                files.parts.push((part, content));
            }
        }
        Ok(())
    }

    pub(crate) fn problem(&mut self, problem: Problem) {
        self.publication.problems.push(problem);
    }

    /// Takes the `publication` id out of `.rotation.json`; what does not parse is no id.
    pub(crate) fn rotation(&mut self, json: &[u8]) {
        let json: Option<serde_json::Value> = serde_json::from_slice(json).ok();
        let id = json.as_ref().and_then(|json| json.get("publication")?.as_str());
        self.publication.id = id.map(str::to_owned);
    }

    pub(crate) fn finish(self) -> Publication {
        let mut publication = self.publication;
        publication.revisions = self.revisions.into_iter().collect();
        // Sorted once, here: to compare ids costs more than anything else that is done with them.
        publication.revisions.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        for (_, files) in &mut publication.revisions {
            files.parts.sort_by(|(a, _), (b, _)| a.cmp(b));
        }
        let ids = publication.revisions.iter().map(|(id, _)| id);
        publication.problems.extend(case_clashes(ids));
        publication.problems.sort();
        publication
    }
}

fn case_clashes<'a>(ids: impl Iterator<Item = &'a RevisionId> + Clone) -> Vec<Problem> {
    // Two ids can differ in case only if one of them has a capital, which is rare.
    let has_capitals = |id: &RevisionId| id.as_str().bytes().any(|b| b.is_ascii_uppercase());
    if !ids.clone().any(has_capitals) {
        return Vec::new();
    }
    let mut by_case: HashMap<String, Vec<&RevisionId>> = HashMap::new();
    for id in ids {
        by_case.entry(id.as_str().to_ascii_lowercase()).or_default().push(id);
    }
    let clashes = by_case.into_values().filter(|ids| ids.len() > 1).flatten();
    clashes
        .map(|id| Problem::new("case-clash", id.as_str(), "another id differs from it only in case"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_says_what_it_is() {
        for (fault, expected) in [
            (Fault::NotRegular("FIFO"), "it is a FIFO, not a regular file"),
            (Fault::Link("loops"), "it is a link that loops"),
            (
                Fault::TooLarge { size: 3, limit: 2 },
                "it has 3 bytes, more than the limit of 2",
            ),
            (
                Fault::Unreadable("no permission".into()),
                "it cannot be read: no permission",
            ),
        ] {
            assert_eq!(fault.to_string(), expected);
        }
    }

    #[test]
    fn what_the_source_finds_wrong_stands_among_the_problems() {
        let mut builder = Builder::new(false, &|_| true);
        builder.problem(Problem::new("limit", "(all)", "too much"));
        let added: Result<(), ()> = builder.add(b"r1.key.tmp", |_| Err(()));
        assert_eq!(added, Ok(()), "a stray is not read");
        let publication = builder.finish();
        let codes: Vec<_> = publication.problems.iter().map(|problem| problem.code).collect();
        assert_eq!(codes, ["stray", "limit"]);
    }
}
