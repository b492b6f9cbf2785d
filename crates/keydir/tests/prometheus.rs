//! The report as Prometheus text: read back by a strict parser of its own, compared with what is the case.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use keydir::{
    Broken, Candidates, Clock, Dir, Files, Fingerprint, Live, Parsed, Piece, Publisher, Revision, Unusable, Usage, View,
};

/// Tokens `<text> <end of validity>`, the end optional.
struct Tokens(Usage);

const LOGIN: Usage = Usage::new("login").naming(&[&["token"]]).text(&["token"]).presents();
const ACCEPT: Usage = Usage::new("accept").naming(&[&["token"]]).text(&["token"]).accepts();

impl View for Tokens {
    type Item = ();
    type Whole = ();

    fn usage(&self) -> &Usage {
        &self.0
    }

    fn parse(&self, revision: &Revision<'_>) -> Result<Parsed<()>, Unusable> {
        let text = revision.text("token")?;
        if text.starts_with("bad") {
            return Err(Unusable::new("bad", "it is bad"));
        }
        let parsed = Parsed::new(());
        Ok(match text.split_once(' ') {
            None => parsed,
            Some((_, end)) => parsed.piece(Piece {
                fingerprint: Fingerprint::of(text.as_bytes()),
                not_before: SystemTime::UNIX_EPOCH,
                not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(end.parse().unwrap()),
            }),
        })
    }

    fn combine(&self, _: &Candidates<'_, ()>) -> Result<(), Broken> {
        Ok(())
    }
}

struct Fixed(u64);

impl Clock for Fixed {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0)
    }
}

/// Of these directories only, in a process that has others open.
fn text(dirs: &[&Dir]) -> String {
    let mut report = keydir::report();
    report.directories = dirs.iter().map(|dir| dir.report()).collect();
    report.prometheus()
}

fn dir(files: &[(&str, &str)]) -> (Dir, Live<Tokens>) {
    let dir = Dir::in_memory_at(files.iter().copied(), Fixed(1000));
    let live = dir.view(Tokens(LOGIN)).unwrap();
    (dir, live)
}

type Labels = BTreeMap<String, String>;
type Samples = BTreeMap<(String, Labels), u64>;

/// The text format, version 0.0.4, as far as integers without timestamps go, and what Prometheus demands beside it:
/// families in one piece, no series twice.
fn parse(text: &str) -> Samples {
    assert!(text.ends_with('\n'));
    let mut samples = Samples::new();
    let mut families = HashSet::new();
    let mut current = None;
    let mut lines = text.split_terminator('\n');
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(!help.is_empty() && !help.contains('\\'), "{line}");
            assert!(families.insert(name), "{name} in two pieces");
            let (typed, kind) = lines
                .next()
                .and_then(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
                .unwrap();
            assert_eq!(typed, name);
            assert!(kind == "gauge" || kind == "counter", "{kind}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
            current = Some(name);
            continue;
        }
        let (name, rest) = line.split_once('{').unwrap();
        assert_eq!(Some(name), current, "outside its family: {line}");
        assert!(is_name(name) && name.starts_with("keydir_"), "{name}");
        let (labels, value) = labels(rest);
        let value = value.strip_prefix(' ').unwrap();
        assert!(value.bytes().all(|byte| byte.is_ascii_digit()), "{line}");
        let old = samples.insert((name.to_owned(), labels), value.parse().unwrap());
        assert!(old.is_none(), "twice: {line}");
    }
    samples
}

fn is_name(name: &str) -> bool {
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
    starts && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

fn labels(mut rest: &str) -> (Labels, &str) {
    let mut labels = Labels::new();
    loop {
        let (name, value) = rest.split_once("=\"").unwrap();
        assert!(is_name(name), "{name}");
        let mut chars = value.char_indices();
        let mut content = String::new();
        let end = loop {
            match chars.next().unwrap() {
                (at, '"') => break at + 1,
                (_, '\\') => content.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    c => panic!("no such escape: {c}"),
                }),
                (_, c) => content.push(c),
            }
        };
        assert!(labels.insert(name.to_owned(), content).is_none(), "twice: {name}");
        match value[end..].strip_prefix(',') {
            Some(next) => rest = next,
            None => return (labels, value[end..].strip_prefix('}').unwrap()),
        }
    }
}

/// The value of the one series with this name and these labels among others.
fn value(samples: &Samples, name: &str, wanted: &[(&str, &str)]) -> Option<u64> {
    let has = |labels: &Labels| {
        let mut wanted = wanted.iter();
        wanted.all(|(name, value)| labels.get(*name).is_some_and(|found| found == value))
    };
    let mut found = samples
        .iter()
        .filter(|((found, labels), _)| found == name && has(labels));
    let first = found.next().map(|(_, value)| *value);
    assert!(found.next().is_none(), "{name} {wanted:?} is more than one");
    first
}

#[test]
fn the_text_says_all_that_the_report_does() {
    let (dir, live) = dir(&[("r1.token.primary", "one 2000")]);
    dir.publish([
        (".rotation.json", r#"{"publication": "p \"2\""}"#),
        ("r1.token", "one 2000"),
        ("r2.token.primary", "two 3000"),
        ("r3.token", "bad"),
    ])
    .unwrap();
    let use_of_it = live.primary().unwrap().hold();
    let expected = r#"# HELP keydir_adopted Whether the publication is loaded with nothing held and nothing set aside.
# TYPE keydir_adopted gauge
keydir_adopted{directory="(memory)",use="login"} 0
# HELP keydir_directory_checked_timestamp_seconds When the directory was last seen as it is.
# TYPE keydir_directory_checked_timestamp_seconds gauge
keydir_directory_checked_timestamp_seconds{directory="(memory)"} 1000
# HELP keydir_directory_fault Whether the directory cannot be read now.
# TYPE keydir_directory_fault gauge
keydir_directory_fault{directory="(memory)"} 0
# HELP keydir_directory_loaded_timestamp_seconds When a publication was last loaded.
# TYPE keydir_directory_loaded_timestamp_seconds gauge
keydir_directory_loaded_timestamp_seconds{directory="(memory)"} 1000
# HELP keydir_generation The publication that is loaded, counted since the directory was opened.
# TYPE keydir_generation gauge
keydir_generation{directory="(memory)",use="login"} 2
# HELP keydir_loads_total Looks at the directory, by outcome: ok (a publication was loaded), unchanged, fault.
# TYPE keydir_loads_total counter
keydir_loads_total{directory="(memory)",outcome="fault"} 0
keydir_loads_total{directory="(memory)",outcome="ok"} 2
keydir_loads_total{directory="(memory)",outcome="unchanged"} 0
# HELP keydir_problems Problems of a use, or without a use those of names and files, by severity.
# TYPE keydir_problems gauge
keydir_problems{directory="(memory)",severity="error"} 0
keydir_problems{directory="(memory)",severity="warning"} 0
keydir_problems{directory="(memory)",use="login",severity="error"} 1
keydir_problems{directory="(memory)",use="login",severity="warning"} 0
# HELP keydir_publication_info The id of the publication that is loaded, if its writer gave one; always 1.
# TYPE keydir_publication_info gauge
keydir_publication_info{directory="(memory)",use="login",publication="p \"2\""} 1
# HELP keydir_revision_held Whether the revision is held: its last good content goes on after a fault.
# TYPE keydir_revision_held gauge
keydir_revision_held{directory="(memory)",use="login",revision="r1"} 0
keydir_revision_held{directory="(memory)",use="login",revision="r2"} 0
# HELP keydir_revision_in_force Whether the revision is in force; if not, something still rests on it, or it is presented all the same.
# TYPE keydir_revision_in_force gauge
keydir_revision_in_force{directory="(memory)",use="login",revision="r1"} 1
keydir_revision_in_force{directory="(memory)",use="login",revision="r2"} 1
# HELP keydir_revision_not_after_timestamp_seconds The first end of a validity in the revision.
# TYPE keydir_revision_not_after_timestamp_seconds gauge
keydir_revision_not_after_timestamp_seconds{directory="(memory)",use="login",revision="r1",primary="false"} 2000
keydir_revision_not_after_timestamp_seconds{directory="(memory)",use="login",revision="r2",primary="true"} 3000
# HELP keydir_revision_pending Whether the revision's validity has not begun.
# TYPE keydir_revision_pending gauge
keydir_revision_pending{directory="(memory)",use="login",revision="r1"} 0
keydir_revision_pending{directory="(memory)",use="login",revision="r2"} 0
# HELP keydir_revision_primary Whether the revision is presented.
# TYPE keydir_revision_primary gauge
keydir_revision_primary{directory="(memory)",use="login",revision="r1"} 0
keydir_revision_primary{directory="(memory)",use="login",revision="r2"} 1
# HELP keydir_revision_uses What rests on the revision now, such as connections.
# TYPE keydir_revision_uses gauge
keydir_revision_uses{directory="(memory)",use="login",revision="r1"} 0
keydir_revision_uses{directory="(memory)",use="login",revision="r2"} 1
# HELP keydir_revocations_total Revisions that were revoked since the set was opened.
# TYPE keydir_revocations_total counter
keydir_revocations_total{directory="(memory)",use="login"} 0
"#;
    let text = text(&[&dir]);
    parse(&text);
    assert_eq!(text, expected);
    drop(use_of_it);
}

#[test]
fn a_revoked_primary_that_goes_on_being_presented_is_said() {
    let (dir, live) = dir(&[("r1.token.primary", "one 2000")]);
    live.primary().unwrap().touch();
    dir.publish([
        ("r1.revoked", ""),
        ("r1.token.primary", "one 2000"),
        ("r2.token", "two"),
    ])
    .unwrap();
    let samples = parse(&text(&[&dir]));
    let of = |name, revision| value(&samples, name, &[("revision", revision)]);
    assert_eq!(of("keydir_revision_in_force", "r1"), Some(0));
    assert_eq!(of("keydir_revision_primary", "r1"), Some(1));
    assert_eq!(of("keydir_revision_not_after_timestamp_seconds", "r1"), Some(2000));
    assert_eq!(of("keydir_revision_primary", "r2"), Some(0));
    assert_eq!(value(&samples, "keydir_revocations_total", &[]), Some(1));
    assert_eq!(
        value(&samples, "keydir_primary_problem", &[("reason", "unmarked")]),
        Some(1)
    );
    assert_eq!(live.primary().unwrap().id().as_str(), "r1");

    dir.publish([("r2.token.primary", "two")]).unwrap();
    let samples = parse(&text(&[&dir]));
    assert_eq!(value(&samples, "keydir_revision_primary", &[("revision", "r1")]), None);
    assert_eq!(value(&samples, "keydir_primary_problem", &[]), None);
}

#[test]
fn directories_that_share_a_path_share_their_series() {
    let (first, live) = dir(&[("r1.token.primary", "one 2000")]);
    let again = first.view(Tokens(LOGIN)).unwrap();
    let (second, other) = dir(&[("r1.token.primary", "one 1500"), ("stray", "")]);
    let uses = [&live, &again, &other].map(|live| live.primary().unwrap().hold());
    let samples = parse(&text(&[&first, &second]));
    assert_eq!(value(&samples, "keydir_revision_uses", &[]), Some(3));
    assert_eq!(
        value(&samples, "keydir_revision_not_after_timestamp_seconds", &[]),
        Some(1500)
    );
    let loads = |outcome| value(&samples, "keydir_loads_total", &[("outcome", outcome)]);
    assert_eq!(loads("ok"), Some(3), "each view reads a directory in memory anew");
    drop(uses);
}

fn open(path: &Path) -> (Dir, Live<Tokens>) {
    let dir = Dir::open(path).unwrap();
    let live = dir.view(Tokens(ACCEPT)).unwrap();
    (dir, live)
}

fn publish(path: &Path, files: &[(&str, &str)]) {
    let files: Files = files
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).into()))
        .collect();
    Publisher::open(path).unwrap().publish(&files).unwrap();
}

#[test]
fn hostile_paths_are_labels_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let names: [&[u8]; 4] = [
        b"a\"} 1\nkeydir_adopted{directory=\"",
        b"\\n\\\"\\",
        b"\xff\xfe{},=#\r\t \x07",
        "# HELP \u{2028}".as_bytes(),
    ];
    let open: Vec<_> = names
        .iter()
        .map(|name| {
            let path = folder.path().join(OsStr::from_bytes(name));
            publish(&path, &[("r1.token", "one")]);
            open(&path)
        })
        .collect();
    let dirs: Vec<_> = open.iter().map(|(dir, _)| dir).collect();
    let samples = parse(&text(&dirs));
    for name in names {
        let path = folder.path().join(OsStr::from_bytes(name));
        let path = path.to_string_lossy();
        assert_eq!(
            value(&samples, "keydir_adopted", &[("directory", &path)]),
            Some(1),
            "{path:?}"
        );
    }
    let directories: HashSet<_> = samples.keys().map(|(_, labels)| &labels["directory"]).collect();
    assert_eq!(directories.len(), names.len());
}

#[test]
fn counters_only_grow_through_publications_and_faults() {
    let folder = tempfile::tempdir().unwrap();
    let (path, away) = (folder.path().join("keys"), folder.path().join("away"));
    publish(&path, &[("r1.token", "one")]);
    let (dir, _live) = open(&path);
    let mut last = BTreeMap::new();
    let mut grown = |expected: &str, changes: &str| {
        let samples = parse(&text(&[&dir]));
        let counters = samples.into_iter().filter(|((name, _), _)| name.ends_with("_total"));
        let counters: BTreeMap<_, _> = counters.collect();
        for (series, value) in &last {
            assert!(counters[series] >= *value, "{series:?} fell");
        }
        let now = |name: &str, outcome: &[(&str, &str)]| value(&counters, name, outcome).unwrap();
        let before = value(&last, "keydir_loads_total", &[("outcome", expected)]).unwrap_or(0);
        assert!(
            now("keydir_loads_total", &[("outcome", expected)]) > before,
            "{changes}"
        );
        let revocations = now("keydir_revocations_total", &[]);
        last = counters;
        revocations
    };
    grown("ok", "opened");
    dir.reload().unwrap();
    grown("unchanged", "nothing happened");
    publish(&path, &[("r2.token", "two")]);
    dir.reload().unwrap();
    assert_eq!(grown("ok", "r1 was replaced by r2"), 1);
    fs::rename(&path, &away).unwrap();
    dir.reload().unwrap_err();
    grown("fault", "it went away");
    dir.reload().unwrap_err();
    assert_eq!(grown("fault", "it is still away"), 1);
    let samples = parse(&text(&[&dir]));
    assert_eq!(value(&samples, "keydir_directory_fault", &[]), Some(1));
    assert_eq!(value(&samples, "keydir_revision_held", &[("revision", "r2")]), Some(1));
    fs::rename(&away, &path).unwrap();
    publish(&path, &[("r2.token", "bad"), ("r3.token", "three")]);
    dir.reload().unwrap();
    assert_eq!(grown("ok", "it came back"), 1);
    let samples = parse(&text(&[&dir]));
    assert_eq!(value(&samples, "keydir_directory_fault", &[]), Some(0));
    assert_eq!(value(&samples, "keydir_adopted", &[]), Some(0));
    assert_eq!(value(&samples, "keydir_revision_held", &[("revision", "r2")]), Some(1));
}
