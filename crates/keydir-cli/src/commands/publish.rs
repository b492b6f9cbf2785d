//! `keydir publish`: one atomic step from the current set to the next, after a look at what readers will make of it.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use keydir::{Files, PublishError, Publisher, Secret};
use serde::Serialize;

use crate::args::{self, Addition};
use crate::events::Event;
use crate::failure::{ERRORS, FINE, Failure};
use crate::judge::{UseReport, judge};
use crate::listing::{Listing, ROTATION};
use crate::out::{Out, Style, clean};
use crate::plan::{Plan, Request, plan};

/// One more than readers take, so that what is too large is seen to be.
const MOST: u64 = (1 << 20) + 1;

#[derive(Serialize)]
struct Report {
    version: u32,
    directory: String,
    /// Only shown, not published.
    planned: bool,
    published: bool,
    publication: Option<String>,
    files: Changes,
    /// The uses were guessed.
    assumed: bool,
    uses: Vec<UseReport>,
    warnings: Vec<String>,
    /// Why nothing was published.
    refused: Vec<String>,
}

#[derive(Default, Serialize)]
struct Changes {
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<String>,
}

impl Changes {
    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

pub(crate) fn run(args: &args::Publish, out: &mut Out) -> Result<u8, Failure> {
    let request = Request {
        add: read_additions(&args.files)?,
        remove: &args.remove,
        revoke: &args.revoke,
        promote: args.promote.as_deref(),
        replace: args.replace,
        force: args.force,
    };
    let nothing_asked = request.add.is_empty() && args.remove.is_empty() && args.revoke.is_empty();
    if nothing_asked && args.promote.is_none() && !args.convert {
        let hint = "nothing to publish: give NAME=FILE, --remove, --revoke or --promote; see keydir publish --help";
        return Err(Failure::Usage(hint.to_owned()));
    }
    if args.replace && !args.remove.is_empty() {
        let hint = "--replace takes everything away that is not given, so --remove says nothing beside it";
        return Err(Failure::Usage(hint.to_owned()));
    }
    let exists = args.dir.symlink_metadata().is_ok();
    let mut report = Report {
        version: 1,
        directory: args.dir.display().to_string(),
        planned: args.plan,
        published: false,
        publication: None,
        files: Changes::default(),
        assumed: args.uses.is_empty(),
        uses: Vec::new(),
        warnings: Vec::new(),
        refused: Vec::new(),
    };
    if !exists {
        // What is refused anyway, and what is only planned, makes no directory.
        let planned = prepare(args, &request, &Files::new(), &mut report);
        if args.plan || planned.is_none() {
            return finish(args, &report, out);
        }
    }
    if let Err(error) = publish(args, &request, &mut report) {
        report.refused.push(error.to_string());
    }
    finish(args, &report, out)
}

fn publish(args: &args::Publish, request: &Request<'_>, report: &mut Report) -> Result<(), PublishError> {
    let mut publisher = Publisher::open(&args.dir)?;
    if args.group_readable || is_group_readable(&args.dir) {
        publisher = publisher.group_readable();
    }
    if args.convert {
        publisher = publisher.convert();
    }
    let current = match publisher.current() {
        Ok(current) => current,
        // What cannot be read any more can still be replaced.
        Err(_) if args.replace => Files::new(),
        Err(error) => return Err(error),
    };
    let Some(mut files) = prepare(args, request, &current, report) else {
        return Ok(());
    };
    let same = without_rotation(&files) == without_rotation(&current) && !request.add.contains_key(ROTATION);
    if same && !args.convert {
        report
            .warnings
            .push("the set is the same as before: nothing was published".to_owned());
        return Ok(());
    }
    if args.plan {
        return Ok(());
    }
    if !request.add.contains_key(ROTATION) {
        renew_publication(&mut files, report);
    }
    report.publication = publication_id(&files);
    match publisher.publish(&files) {
        Ok(()) => {}
        Err(error) if error.published() => report.warnings.push(error.to_string()),
        Err(error) => {
            report.publication = None;
            return Err(error);
        }
    }
    report.published = true;
    Ok(())
}

/// The next set, if nothing speaks against it; what it means stands in the report.
fn prepare(args: &args::Publish, request: &Request<'_>, current: &Files, report: &mut Report) -> Option<Files> {
    (report.uses, report.warnings, report.refused) = Default::default();
    let layout = Layout::of(&args.dir);
    if let (Layout::Plain(name), false) = (&layout, args.convert) {
        report.refused.push(format!(
            "{} is a plain directory (it holds {name} and no ..data), and publishing would hide what lies in it: \
             --convert turns it into one of the kubelet's layout, with what lies in it",
            args.dir.display()
        ));
    }
    let strays = match layout {
        Layout::Kubelet => Listing::read(&args.dir, false)
            .map(|listing| listing.strays)
            .unwrap_or_default(),
        // There they stay where they are.
        _ => Vec::new(),
    };
    let Plan {
        files,
        warnings,
        refused,
    } = plan(current, &strays, request);
    report.warnings.extend(warnings);
    report.refused.extend(refused);
    report.files = changes(current, &files);
    if report.refused.is_empty() {
        let verdict = judge(&args.uses, current, &files, args.force);
        report.uses = verdict.uses;
        report.warnings.extend(verdict.warnings);
        report.refused = verdict.refused;
    }
    report.refused.is_empty().then_some(files)
}

/// Whether the current set was published for a group: the next one is, too, or its readers would lose it.
fn is_group_readable(dir: &Path) -> bool {
    let files = std::fs::read_dir(dir.join("..data")).into_iter().flatten().flatten();
    let mut modes = files.filter_map(|file| Some(file.metadata().ok()?.permissions().mode()));
    modes.any(|mode| mode & 0o040 != 0)
}

enum Layout {
    Kubelet,
    /// With something in it.
    Plain(String),
    Empty,
}

impl Layout {
    fn of(path: &Path) -> Self {
        if path.join("..data").symlink_metadata().is_ok() {
            return Self::Kubelet;
        }
        let names = std::fs::read_dir(path).into_iter().flatten().flatten();
        let mut names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        match names.find(|name| !name.starts_with("..")) {
            Some(name) => Self::Plain(name),
            None => Self::Empty,
        }
    }
}

fn read_additions(additions: &[Addition]) -> Result<Files, Failure> {
    let mut files = Files::new();
    let mut stdin_taken = false;
    for Addition { name, file } in additions {
        let content = match file {
            Some(path) => read_file(path)
                .map_err(|error| Failure::Unreadable(format!("{}, for {name}: {error}", path.display())))?,
            None if std::mem::replace(&mut stdin_taken, true) => {
                return Err(Failure::Usage("standard input can be only one of the files".to_owned()));
            }
            None => read(io::stdin().lock())
                .map_err(|error| Failure::Unreadable(format!("standard input, for {name}: {error}")))?,
        };
        if files.insert(name.clone(), content).is_some() {
            return Err(Failure::Usage(format!("{name} is given twice")));
        }
    }
    Ok(files)
}

fn read_file(path: &Path) -> io::Result<Secret> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::IsADirectory,
            "it is a directory, not a file",
        ));
    }
    read(file)
}

/// Into one buffer that never grows, so that no copy of a secret is left behind.
fn read(from: impl Read) -> io::Result<Secret> {
    let mut bytes = Vec::with_capacity(usize::try_from(MOST).unwrap_or_default() + 64);
    let result = from.take(MOST).read_to_end(&mut bytes);
    let secret = Secret::new(bytes);
    result.map(|_| secret)
}

fn without_rotation(files: &Files) -> Vec<(&String, &Secret)> {
    files.iter().filter(|(name, _)| *name != ROTATION).collect()
}

/// A publication has an id of its own, so that consumers can say which one they have; what else stands in the file
/// belongs to a rotator, and stays.
fn renew_publication(files: &mut Files, report: &mut Report) {
    let old = files.get(ROTATION).map(|json| serde_json::from_slice(json.expose()));
    let mut json = match old {
        Some(Ok(serde_json::Value::Object(object))) => object,
        None => serde_json::Map::new(),
        Some(_) => {
            report
                .warnings
                .push(format!("{ROTATION} was no JSON object, and was written anew"));
            serde_json::Map::new()
        }
    };
    // Each state is seeded by the operating system.
    let random = || RandomState::new().hash_one(std::process::id());
    json.insert(
        "publication".to_owned(),
        format!("{:016x}{:016x}", random(), random()).into(),
    );
    let text = serde_json::Value::Object(json).to_string();
    files.insert(ROTATION.to_owned(), Secret::from(text));
}

fn publication_id(files: &Files) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(files.get(ROTATION)?.expose()).ok()?;
    json.get("publication")?.as_str().map(str::to_owned)
}

fn changes(old: &Files, new: &Files) -> Changes {
    let not_in = |of: &Files, other: &Files| of.keys().filter(|name| !other.contains_key(*name)).cloned().collect();
    let differs = |(name, content): &(&String, &Secret)| old.get(*name).is_some_and(|old| old != *content);
    Changes {
        added: not_in(new, old),
        removed: not_in(old, new),
        changed: new.iter().filter(differs).map(|(name, _)| name.clone()).collect(),
    }
}

fn finish(args: &args::Publish, report: &Report, out: &mut Out) -> Result<u8, Failure> {
    if args.json {
        out.json(report)?;
    } else {
        print(report, out)?;
        for reason in &report.refused {
            // With standard error gone there is nobody left to tell.
            let _ = writeln!(io::stderr(), "keydir: not published: {}", clean(reason));
        }
    }
    Ok(if report.refused.is_empty() { FINE } else { ERRORS })
}

fn print(report: &Report, out: &mut Out) -> io::Result<()> {
    if report.refused.is_empty() {
        let head = match (report.published, report.files.is_empty()) {
            (true, _) => "published",
            (false, false) => "would publish",
            (false, true) => "unchanged",
        };
        let publication = report.publication.as_deref();
        let publication = publication.map(|id| format!(" (publication {id})")).unwrap_or_default();
        out.styled_line(Style::Bold, head, &format!(" {}{publication}", report.directory), 2)?;
        let Changes {
            added,
            removed,
            changed,
        } = &report.files;
        for (sign, names) in [("+", added), ("-", removed), ("~", changed)] {
            for name in names {
                out.line(&format!("  {sign} {name}"), 4)?;
            }
        }
        for UseReport { usage, events } in &report.uses {
            let texts: Vec<_> = events.iter().map(Event::text).collect();
            let texts = if texts.is_empty() {
                "nothing changes".to_owned()
            } else {
                texts.join("; ")
            };
            let guessed = if report.assumed { " (guessed)" } else { "" };
            out.line(&format!("  as {usage}{guessed}: {texts}"), 4)?;
        }
    }
    report
        .warnings
        .iter()
        .try_for_each(|warning| out.styled_line(Style::Bold, "warning", &format!(": {warning}"), 2))
}
