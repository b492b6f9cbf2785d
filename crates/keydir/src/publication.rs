//! One publication: the files of one moment, sorted by revision, before anyone has parsed them.

use std::collections::BTreeMap;
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
    pub(crate) revisions: BTreeMap<RevisionId, Files>,
    /// What is wrong with names and files, whatever the use.
    pub(crate) problems: Vec<Problem>,
}

/// What lies in the directory under one id.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) marked: bool,
    pub(crate) revoked: bool,
    pub(crate) parts: BTreeMap<Arc<str>, Vec<File>>,
}

#[derive(Debug)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) content: Content,
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
pub(crate) struct Builder {
    publication: Publication,
}

/// The one file whose name begins with a dot and that a reader looks into.
pub(crate) const ROTATION: &str = ".rotation.json";

impl Builder {
    pub(crate) fn new(flat: bool) -> Self {
        Self {
            publication: Publication {
                flat,
                ..Publication::default()
            },
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
                self.publication.problems.push(Problem::new(code, shown(), message));
            }
            FileName::Marker { id } => {
                self.publication.revisions.entry(id).or_default().revoked = true;
            }
            FileName::File { id, part, primary } => {
                let content = content(&part)?;
                if let Content::Fault(fault) = &content {
                    self.publication
                        .problems
                        .push(Problem::new(fault.code(), shown(), fault.to_string()));
                }
                let files = self.publication.revisions.entry(id).or_default();
                files.marked |= primary && content.is_regular();
                files
                    .parts
                    .entry(part)
                    .or_default()
                    .push(File { name: shown(), content });
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

    /// `known` are the parts of all uses of the reader.
    pub(crate) fn finish(mut self, known: &dyn Fn(&str) -> bool) -> Publication {
        let publication = &mut self.publication;
        let mut by_case: BTreeMap<String, Vec<&RevisionId>> = BTreeMap::new();
        for (id, files) in &publication.revisions {
            by_case.entry(id.as_str().to_ascii_lowercase()).or_default().push(id);
            for (part, entries) in &files.parts {
                if !known(part) {
                    publication.problems.extend(
                        entries.iter().map(|file| {
                            Problem::new("unknown-part", &file.name, "no use of this reader has such a part")
                        }),
                    );
                }
            }
        }
        for ids in by_case.into_values().filter(|ids| ids.len() > 1) {
            publication.problems.extend(
                ids.iter()
                    .map(|id| Problem::new("case-clash", id.as_str(), "another id differs from it only in case")),
            );
        }
        publication.problems.sort();
        self.publication
    }
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
        let mut builder = Builder::new(false);
        builder.problem(Problem::new("limit", "(all)", "too much"));
        let added: Result<(), ()> = builder.add(b"r1.key.tmp", |_| Err(()));
        assert_eq!(added, Ok(()), "a stray is not read");
        let publication = builder.finish(&|_| true);
        let codes: Vec<_> = publication.problems.iter().map(|problem| problem.code).collect();
        assert_eq!(codes, ["stray", "limit"]);
    }
}
