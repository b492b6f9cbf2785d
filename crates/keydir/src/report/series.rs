//! The report as series, for monitors: which there are, what each means, and what one is where several directories
//! are open on the same path.

use std::collections::BTreeMap;

use super::{DirReport, RevisionReport, SetReport};
use crate::problem::{Problem, Severity};

/// All series of one name.
pub(crate) struct Family<'a> {
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
    pub(crate) samples: BTreeMap<Labels<'a>, u64>,
}

/// By name.
pub(crate) type Families<'a> = BTreeMap<&'static str, Family<'a>>;

pub(crate) type Labels<'a> = Vec<(&'static str, &'a str)>;

/// What the values of a family are: how two of one series are made into one, and what is left of one that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows.
    Counter,
    /// How much there is: the sum; 0 if it is gone.
    Amount,
    /// 1 for yes, where one yes decides, or a number of which the largest counts; 0 if it is gone.
    Any,
    /// The one that is furthest behind; none if it is gone.
    Least,
    /// The newest; none if it is gone.
    Latest,
}

impl Kind {
    fn merge(self, a: u64, b: u64) -> u64 {
        match self {
            Self::Counter | Self::Amount => a.saturating_add(b),
            Self::Any | Self::Latest => a.max(b),
            Self::Least => a.min(b),
        }
    }
}

struct Meaning {
    name: &'static str,
    kind: Kind,
    help: &'static str,
}

const fn meaning(name: &'static str, kind: Kind, help: &'static str) -> Meaning {
    Meaning { name, kind, help }
}

const FAULT: Meaning = meaning(
    "keydir_directory_fault",
    Kind::Any,
    "Whether the directory cannot be read now.",
);
const CHECKED: Meaning = meaning(
    "keydir_directory_checked_timestamp_seconds",
    Kind::Least,
    "When the directory was last seen as it is.",
);
const LOADED: Meaning = meaning(
    "keydir_directory_loaded_timestamp_seconds",
    Kind::Least,
    "When a publication was last loaded.",
);
const LOADS: Meaning = meaning(
    "keydir_loads_total",
    Kind::Counter,
    "Looks at the directory, by outcome: ok (a publication was loaded), unchanged, fault.",
);
const PROBLEMS: Meaning = meaning(
    "keydir_problems",
    Kind::Any,
    "Problems of a use, or without a use those of names and files, by severity.",
);
const GENERATION: Meaning = meaning(
    "keydir_generation",
    Kind::Least,
    "The publication that is loaded, counted since the directory was opened.",
);
const PUBLICATION: Meaning = meaning(
    "keydir_publication_info",
    Kind::Any,
    "The id of the publication that is loaded, if its writer gave one; always 1.",
);
const ADOPTED: Meaning = meaning(
    "keydir_adopted",
    Kind::Least,
    "Whether the publication is loaded with nothing held and nothing set aside.",
);
const NO_PRIMARY: Meaning = meaning(
    "keydir_primary_problem",
    Kind::Any,
    "Why what the marks designate is not simply presented; always 1, and absent if it is.",
);
const REVOCATIONS: Meaning = meaning(
    "keydir_revocations_total",
    Kind::Counter,
    "Revisions that were revoked since the set was opened.",
);
const IN_FORCE: Meaning = meaning(
    "keydir_revision_in_force",
    Kind::Any,
    "Whether the revision is in force; if not, something still rests on it, or it is presented all the same.",
);
const PRIMARY: Meaning = meaning(
    "keydir_revision_primary",
    Kind::Any,
    "Whether the revision is presented.",
);
const HELD: Meaning = meaning(
    "keydir_revision_held",
    Kind::Any,
    "Whether the revision is held: its last good content goes on after a fault.",
);
const PENDING: Meaning = meaning(
    "keydir_revision_pending",
    Kind::Any,
    "Whether the revision's validity has not begun.",
);
const NOT_AFTER: Meaning = meaning(
    "keydir_revision_not_after_timestamp_seconds",
    Kind::Least,
    "The first end of a validity in the revision.",
);
const USES: Meaning = meaning(
    "keydir_revision_uses",
    Kind::Amount,
    "What rests on the revision now, such as connections.",
);
const LAST_USE: Meaning = meaning(
    "keydir_revision_last_use_timestamp_seconds",
    Kind::Latest,
    "When the revision was last used, to about 10 seconds.",
);

/// The series of some directories.
pub(crate) fn families<'a>(directories: impl IntoIterator<Item = &'a DirReport>) -> Families<'a> {
    let mut series = Series::default();
    for directory in directories {
        series.directory(directory);
    }
    series.0
}

#[derive(Default)]
struct Series<'a>(Families<'a>);

impl<'a> Series<'a> {
    fn add(&mut self, meaning: &Meaning, labels: Labels<'a>, value: u64) {
        let family = self.0.entry(meaning.name).or_insert_with(|| Family {
            kind: meaning.kind,
            help: meaning.help,
            samples: BTreeMap::new(),
        });
        let merge = |known: &mut u64| *known = meaning.kind.merge(*known, value);
        family.samples.entry(labels).and_modify(merge).or_insert(value);
    }

    fn directory(&mut self, report: &'a DirReport) {
        let labels = vec![("directory", report.path.as_str())];
        self.add(&FAULT, labels.clone(), report.fault.is_some().into());
        for (meaning, time) in [(&CHECKED, report.checked), (&LOADED, report.loaded)] {
            if let Some(time) = time {
                self.add(meaning, labels.clone(), time);
            }
        }
        let loads = &report.loads;
        for (outcome, count) in [("ok", loads.ok), ("unchanged", loads.unchanged), ("fault", loads.fault)] {
            self.add(&LOADS, with(&labels, "outcome", outcome), count);
        }
        self.problems(&labels, &report.problems);
        for set in &report.sets {
            self.set(&with(&labels, "use", set.usage), set);
        }
    }

    fn set(&mut self, labels: &Labels<'a>, set: &'a SetReport) {
        self.add(&GENERATION, labels.clone(), set.generation);
        self.add(&ADOPTED, labels.clone(), set.adopted.into());
        self.add(&REVOCATIONS, labels.clone(), set.revocations);
        if let Some(id) = &set.publication {
            self.add(&PUBLICATION, with(labels, "publication", id), 1);
        }
        if let Some(reason) = &set.no_primary {
            self.add(&NO_PRIMARY, with(labels, "reason", reason.code()), 1);
        }
        self.problems(labels, &set.problems);
        for (id, revision) in &set.revisions {
            self.revision(&with(labels, "revision", id.as_str()), revision);
        }
    }

    fn revision(&mut self, labels: &Labels<'a>, revision: &RevisionReport) {
        for (meaning, value) in [
            (&IN_FORCE, revision.in_force),
            (&PRIMARY, revision.primary),
            (&HELD, revision.held.is_some()),
            (&PENDING, revision.pending),
        ] {
            self.add(meaning, labels.clone(), value.into());
        }
        if let Some(time) = revision.not_after {
            let primary = if revision.primary { "true" } else { "false" };
            self.add(&NOT_AFTER, with(labels, "primary", primary), time);
        }
        self.add(&USES, labels.clone(), u64::try_from(revision.uses).unwrap_or(u64::MAX));
        if let Some(time) = revision.last_use {
            self.add(&LAST_USE, labels.clone(), time);
        }
    }

    fn problems(&mut self, labels: &Labels<'a>, problems: &[Problem]) {
        for (severity, label) in [(Severity::Error, "error"), (Severity::Warning, "warning")] {
            let count = problems.iter().filter(|problem| problem.severity == severity).count();
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            self.add(&PROBLEMS, with(labels, "severity", label), count);
        }
    }
}

fn with<'a>(labels: &Labels<'a>, name: &'static str, value: &'a str) -> Labels<'a> {
    labels.iter().copied().chain([(name, value)]).collect()
}
