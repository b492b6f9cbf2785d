//! A directory that is open with a view for each of its uses, and the names that belong to the same publication.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use keydir::{Dir, DirReport, KeySet, Live, Usage, uses as known};

use crate::args::Source;
use crate::failure::Failure;
use crate::listing::Listing;
use crate::uses;
use crate::view::AnyView;

/// How often names and contents are read anew until they belong together.
const TRIES: usize = 5;

pub(crate) type Set = Arc<KeySet<AnyView>>;

/// What the commands look at.
pub(crate) struct Opened {
    pub(crate) dir: Dir,
    pub(crate) listing: Listing,
    pub(crate) views: Vec<Live<AnyView>>,
    /// The uses were guessed.
    pub(crate) assumed: bool,
    pub(crate) flat: bool,
}

impl Opened {
    pub(crate) fn open(source: &Source) -> Result<Self, Failure> {
        let mut opened = Self::try_open(source)?;
        for _ in 1..TRIES {
            let now = list(&source.dir, source.flat)?;
            if now == opened.listing {
                break;
            }
            opened = Self::try_open(source)?;
        }
        Ok(opened)
    }

    fn try_open(source: &Source) -> Result<Self, Failure> {
        let builder = Dir::builder(&source.dir).allow_empty();
        let builder = if source.flat { builder.flat() } else { builder };
        let unreadable = |error: keydir::OpenError| Failure::Unreadable(error.to_string());
        let dir = builder.open().map_err(unreadable)?;
        must_be_readable(&dir.report())?;
        let listing = list(&source.dir, source.flat)?;
        let assumed = source.uses.is_empty();
        let wanted = if assumed {
            uses::detect(&listing)
        } else {
            distinct(&source.uses)
        };
        let mut views = open_views(&dir, &wanted)?;
        must_be_readable(&dir.report())?;
        if assumed {
            drop_wrong_guess(&mut views);
        }
        Ok(Self {
            dir,
            listing,
            views,
            assumed,
            flat: source.flat,
        })
    }

    /// The sets of this moment, one for each use.
    pub(crate) fn sets(&self) -> Vec<(Usage, Set)> {
        self.views.iter().map(|live| (usage(live), live.snapshot())).collect()
    }

    pub(crate) fn uses(&self) -> Vec<&'static str> {
        self.views.iter().map(|live| usage(live).name()).collect()
    }

    /// The publication's id, if its writer gave one.
    pub(crate) fn publication(&self) -> Option<String> {
        let sets = self.sets();
        sets.iter().find_map(|(_, set)| set.publication().map(str::to_owned))
    }
}

pub(crate) fn usage(live: &Live<AnyView>) -> Usage {
    use keydir::View;
    *live.view().usage()
}

/// Opens all views at once, so that they share the looks at the directory: each costs a plain one 100 ms.
pub(crate) fn open_views(dir: &Dir, wanted: &[Usage]) -> Result<Vec<Live<AnyView>>, Failure> {
    let results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = wanted
            .iter()
            .map(|usage| scope.spawn(|| dir.view(AnyView::new(*usage))))
            .collect();
        threads.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let broken = || Failure::Unreadable(format!("key directory {}: a view of it panicked", dir.path()));
    results
        .into_iter()
        .map(|result| match result {
            Ok(Ok(live)) => Ok(live),
            Ok(Err(error)) => Err(Failure::Unreadable(error.to_string())),
            Err(_) => Err(broken()),
        })
        .collect()
}

fn must_be_readable(report: &DirReport) -> Result<(), Failure> {
    let reason = match (&report.fault, report.checked) {
        (Some(fault), _) => fault.as_str(),
        (None, None) => "it is being written to all the time: publish atomically, in the kubelet's layout",
        (None, Some(_)) => return Ok(()),
    };
    Err(Failure::Unreadable(format!("key directory {}: {reason}", report.path)))
}

fn list(path: &Path, flat: bool) -> Result<Listing, Failure> {
    Listing::read(path, flat)
        .map_err(|error| Failure::Unreadable(format!("key directory {}: cannot list it: {error}", path.display())))
}

fn distinct(given: &[Usage]) -> Vec<Usage> {
    known::ALL.into_iter().filter(|usage| given.contains(usage)).collect()
}

/// A `crt` without a key beside identities is an anchor as often as an identity that has lost its key: what is in it
/// decides, which names cannot.
fn drop_wrong_guess(views: &mut Vec<Live<AnyView>>) {
    let has_identities = views.iter().any(|live| {
        let name = usage(live).name();
        (name == "tls-identity" || name == "certificate-login") && !live.load().is_empty()
    });
    if has_identities {
        views.retain(|live| usage(live).name() != "anchors" || !live.load().is_empty());
    }
}
