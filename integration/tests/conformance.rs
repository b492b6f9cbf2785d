//! The convention's rules as data, run on the real reader: real directories, real files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keydir::{Dir, FileName, Fingerprint, Hold, Live, NoPrimary, OpenErrorKind, RevisionId, StartError};
use keydir_integration::views::AnyUse;
use keydir_integration::{Entry, ManualClock, Tree, without_events, without_read_override};
use serde_json::{Map, Value, json};

/// 2030-01-01T00:00:00Z.
const START: u64 = 1_893_456_000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance")
}

fn cases(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    json["cases"].as_array().unwrap().clone()
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|c| *c != b'=').map(digit).collect();
    let mut bytes = Vec::new();
    for chunk in digits.chunks(4) {
        let bits = chunk.iter().fold(0_u32, |bits, digit| bits << 6 | u32::from(*digit)) << (6 * (4 - chunk.len()));
        bytes.extend(&bits.to_be_bytes()[1..chunk.len()]);
    }
    bytes
}

fn content(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Array(parts) => parts
            .iter()
            .map(content)
            .collect::<Option<Vec<_>>>()
            .map(|parts| parts.concat()),
        Value::Object(object) => {
            if let Some(text) = object.get("base64") {
                Some(base64(text.as_str()?))
            } else if let Some(text) = object.get("repeat") {
                Some(
                    text.as_str()?
                        .repeat(usize::try_from(object["times"].as_u64()?).ok()?)
                        .into_bytes(),
                )
            } else {
                let name = object.get("fixture")?.as_str()?;
                Some(fs::read(folder().join("fixtures").join(name)).unwrap())
            }
        }
        _ => None,
    }
}

fn entry(value: &Value) -> Entry {
    if let Some(bytes) = content(value) {
        return Entry::File(bytes);
    }
    let object = value.as_object().unwrap();
    let (kind, value) = object.iter().next().unwrap();
    match kind.as_str() {
        "link" => Entry::Link(value.as_str().unwrap().to_owned()),
        "dir" => Entry::Dir(entries(value)),
        "directory" => Entry::Dir(BTreeMap::new()),
        "fifo" => Entry::Fifo,
        "socket" => Entry::Socket,
        "unreadable-file" => Entry::Unreadable,
        other => panic!("no entry is a {other}"),
    }
}

fn entries(value: &Value) -> BTreeMap<String, Entry> {
    let mut entries = BTreeMap::new();
    for (name, value) in value.as_object().unwrap() {
        if let Some(many) = value["many"].as_u64() {
            entries.extend((1..=many).map(|n| (format!("{name}{n}"), Entry::from(""))));
        } else {
            entries.insert(name.clone(), entry(value));
        }
    }
    entries
}

/// One use of a case, over its steps.
struct Observed {
    name: String,
    live: Option<Live<AnyUse>>,
    error: Value,
    /// Why it did not start.
    failure: Option<keydir::OpenError>,
    before: Vec<(RevisionId, Vec<keydir::Piece>)>,
}

fn ids<'a>(ids: impl IntoIterator<Item = &'a RevisionId>) -> Value {
    ids.into_iter().map(RevisionId::as_str).collect()
}

impl Observed {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            live: None,
            error: Value::Null,
            failure: None,
            before: Vec::new(),
        }
    }

    fn start(&mut self, dir: &Result<Dir, keydir::OpenError>) {
        if self.live.is_some() {
            return;
        }
        let opened = match dir {
            Ok(dir) => dir.view(AnyUse::named(&self.name)),
            Err(error) => Err(error.clone()),
        };
        self.error = match opened {
            Ok(live) => {
                self.live = Some(live);
                Value::Null
            }
            Err(error) => {
                let code = match &error.kind {
                    OpenErrorKind::Start {
                        error: StartError::NothingToPresent(..),
                        ..
                    } => "nothing-to-present",
                    OpenErrorKind::Start {
                        error: StartError::NothingToAccept(..),
                        ..
                    } => "nothing-to-accept",
                    _ => "unreadable",
                };
                self.failure = Some(error);
                json!(code)
            }
        };
    }

    fn seen(
        &mut self,
        dir: Option<&Dir>,
        alone: bool,
        now: u64,
        keys: &[String],
        fixtures: &BTreeMap<Fingerprint, String>,
    ) -> Map<String, Value> {
        let mut seen = Map::new();
        seen.insert("error".into(), self.error.clone());
        let Some(live) = &self.live else {
            self.seen_at_failure(dir, &mut seen);
            return seen;
        };
        let set = live.snapshot();
        let usage = *keydir::View::usage(live.view());
        let codes = |code: &str| -> Value {
            set.problems()
                .iter()
                .filter(|problem| problem.code == code)
                .map(|problem| problem.subject.as_str())
                .collect()
        };
        let now = std::time::UNIX_EPOCH + std::time::Duration::from_secs(now);
        let of_anchors = |keys: &mut dyn Iterator<Item = &keydir::Piece>| -> Value {
            keys.map(|piece| fixtures.get(&piece.fingerprint).map_or("?", String::as_str))
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect()
        };
        let presents = set.no_primary() != Some(&NoPrimary::AcceptOnly);
        for key in keys {
            let value = match key.as_str() {
                "present" => set.primary().map_or(Value::Null, |key| json!(key.id().as_str())),
                "kept" => json!(set.primary().is_ok_and(|key| set.state(key).is_none())),
                "no-primary" => match set.no_primary() {
                    Some(NoPrimary::AcceptOnly) | None => Value::Null,
                    Some(reason) => json!(reason.code()),
                },
                "accept" => ids(set
                    .iter()
                    .filter(|key| presents && !usage.accepts_any() || valid(&set, key))
                    .map(|key| key.id())),
                "content" => set.iter().map(|key| (key.id().to_string(), json!(&***key))).collect(),
                "anchors" => {
                    let mut pieces = set
                        .iter()
                        .flat_map(|key| key.pieces())
                        .filter(|piece| piece.is_valid_at(now));
                    of_anchors(&mut pieces)
                }
                "held" => set
                    .iter()
                    .filter_map(|key| Some((key.id().to_string(), json!(rule(set.state(key)?.held.as_ref()?)))))
                    .collect(),
                "revoked" => {
                    let gone = self.before.iter().filter(|(id, _)| set.get(id.as_str()).is_none());
                    let gone: BTreeSet<&str> = gone.map(|(id, _)| id.as_str()).collect();
                    gone.into_iter().collect()
                }
                "returned" => codes("returned"),
                "reused" => codes("reused-id"),
                "revoked-anchors" => {
                    let mut now_in_force = set.iter().flat_map(|key| key.pieces());
                    let now_in_force = of_anchors(&mut now_in_force);
                    let gone = |piece: &&keydir::Piece| {
                        let name = fixtures.get(&piece.fingerprint).map_or("?", String::as_str);
                        piece.is_valid_at(now) && !now_in_force.as_array().unwrap().contains(&json!(name))
                    };
                    of_anchors(&mut self.before.iter().flat_map(|(_, pieces)| pieces).filter(gone))
                }
                "superseded" => {
                    if presents {
                        codes("reused-id")
                    } else {
                        json!([])
                    }
                }
                "publication" => set.publication().map_or(Value::Null, |id| json!(id)),
                "adopted" => json!(set.is_adopted()),
                "findings" => {
                    let problems = if alone { live.dir().problems() } else { Vec::new() };
                    let all = problems.iter().chain(set.problems());
                    let all: BTreeSet<_> = all.map(|problem| (problem.code, problem.subject.as_str())).collect();
                    all.into_iter().map(|(code, subject)| json!([code, subject])).collect()
                }
                _ => continue,
            };
            seen.insert(key.clone(), value);
        }
        self.before = set
            .iter()
            .map(|key| (key.id().clone(), key.pieces().to_vec()))
            .collect();
        seen
    }

    /// Nothing is served: what the error says is all there is.
    fn seen_at_failure(&self, dir: Option<&Dir>, seen: &mut Map<String, Value>) {
        for (key, value) in [
            ("present", Value::Null),
            ("kept", json!(false)),
            ("no-primary", Value::Null),
            ("accept", json!([])),
            ("content", json!({})),
            ("anchors", json!([])),
            ("held", json!({})),
            ("revoked", json!([])),
            ("adopted", json!(false)),
            ("publication", Value::Null),
            ("returned", json!([])),
            ("reused", json!([])),
            ("superseded", json!([])),
            ("revoked-anchors", json!([])),
        ] {
            seen.insert(key.to_owned(), value);
        }
        let mut problems = dir.map(Dir::problems).unwrap_or_default();
        if let Some(OpenErrorKind::Start { error, .. }) = self.failure.as_ref().map(|failure| &failure.kind) {
            match error {
                StartError::NothingToPresent(reason, of_use) => {
                    seen.insert("no-primary".to_owned(), json!(reason.code()));
                    problems.extend(of_use.iter().cloned());
                }
                StartError::NothingToAccept(of_use) => problems.extend(of_use.iter().cloned()),
                _ => {}
            }
        }
        let all: BTreeSet<_> = problems
            .iter()
            .map(|problem| (problem.code, problem.subject.as_str()))
            .collect();
        let all = all.into_iter().map(|(code, subject)| json!([code, subject])).collect();
        seen.insert("findings".to_owned(), all);
    }
}

fn valid(set: &keydir::KeySet<AnyUse>, key: &keydir::Key<Vec<u8>>) -> bool {
    set.state(key).is_some_and(|state| !state.pending && !state.expired)
}

fn rule(hold: &Hold) -> &'static str {
    match hold {
        Hold::Unreadable => "a",
        Hold::Unusable(_) => "b",
        Hold::Gone => "c",
        _ => "replacement",
    }
}

/// `content` is given as it lies in files.
fn expected(key: &str, value: &Value) -> Value {
    match (key, value) {
        ("content", Value::Object(object)) => object
            .iter()
            .map(|(id, value)| (id.clone(), json!(content(value).unwrap())))
            .collect(),
        ("findings", Value::Array(rows)) => {
            let rows: BTreeSet<String> = rows.iter().map(Value::to_string).collect();
            rows.iter()
                .map(|row| serde_json::from_str::<Value>(row).unwrap())
                .collect()
        }
        _ => value.clone(),
    }
}

/// Fixtures that are single certificates, by the fingerprint of their DER.
fn fixtures() -> BTreeMap<Fingerprint, String> {
    let mut fixtures = BTreeMap::new();
    for entry in fs::read_dir(folder().join("fixtures")).unwrap() {
        let path = entry.unwrap().path();
        let Ok(pem) = fs::read(&path) else { continue };
        if path.extension().is_some_and(|extension| extension == "crt") {
            let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            fixtures.entry(Fingerprint::of(&pem.contents)).or_insert(name);
        }
    }
    fixtures
}

fn run(case: &Value, fixtures: &BTreeMap<Fingerprint, String>) -> Vec<String> {
    let mut failures = Vec::new();
    let several = case["uses"].as_array();
    let names: Vec<&str> = match several {
        Some(names) => names.iter().map(|name| name.as_str().unwrap()).collect(),
        None => vec![case["use"].as_str().unwrap()],
    };
    let clock = ManualClock::at(START);
    let mut tree = Tree::new();
    let path = tree.path().join(case["path"].as_str().unwrap_or("."));
    let mut builder = Dir::builder(&path)
        .clock(Arc::new(clock.clone()))
        .poll(std::time::Duration::from_secs(3600));
    if case["flat"].as_bool() == Some(true) {
        builder = builder.flat();
    }
    let mut dir = None;
    let mut observed: Vec<Observed> = names.iter().map(|name| Observed::new(name)).collect();
    for (number, step) in case["steps"].as_array().unwrap().iter().enumerate() {
        let now = START + step["at"].as_u64().unwrap_or_default();
        clock.set(now);
        if step["unreadable"].as_bool() == Some(true) {
            tree.break_link();
        } else if let Some(files) = step.get("files") {
            tree.publish(&entries(files));
        } else if let Some(files) = step.get("tree") {
            tree.replace(&entries(files));
        }
        if let Some(dir) = &dir {
            let _ = Dir::reload(dir);
        } else {
            dir = builder.clone().open().ok();
        }
        let opened = dir.clone().map_or_else(|| builder.clone().open(), Ok);
        for observed in &mut observed {
            observed.start(&opened);
        }
        failures.extend(directory_findings(step, &opened));
        for observed in &mut observed {
            let expect = if several.is_some() {
                &step["expect"][&observed.name]
            } else {
                &step["expect"]
            };
            let nothing = Map::new();
            let expect = expect.as_object().unwrap_or(&nothing);
            let keys: Vec<String> = expect.keys().cloned().chain(["revoked".to_owned()]).collect();
            let seen = observed.seen(opened.as_ref().ok(), several.is_none(), now, &keys, fixtures);
            let again = step.get("files").is_none();
            for (key, value) in expect {
                if again && matches!(key.as_str(), "returned" | "reused" | "superseded") {
                    continue;
                }
                let (seen, value) = (seen.get(key), expected(key, value));
                let seen = seen.map(|seen| narrow(key, again, seen, &value));
                if seen.as_ref() != Some(&value) {
                    failures.push(format!(
                        "step {number}, {}: {key} is {seen:?}, not {value}",
                        observed.name
                    ));
                }
            }
        }
    }
    failures
}

/// What a directory's own problems are expected to be, in a case of several uses.
fn directory_findings(step: &Value, dir: &Result<Dir, keydir::OpenError>) -> Option<String> {
    let expected = expected("findings", step["expect"]["directory"].get("findings")?);
    let problems = dir.as_ref().map(Dir::problems).unwrap_or_default();
    let seen: BTreeSet<_> = problems
        .iter()
        .map(|problem| (problem.code, problem.subject.as_str()))
        .collect();
    let seen: Value = seen.into_iter().map(|(code, subject)| json!([code, subject])).collect();
    (seen != expected).then(|| format!("directory: findings are {seen}, not {expected}"))
}

/// Of `content`, only the ids that the case names are compared; what a step without a new publication may say again is
/// not.
fn narrow(key: &str, again: bool, seen: &Value, expected: &Value) -> Value {
    match (key, seen, expected) {
        ("findings", Value::Array(rows), Value::Array(expected)) if again => {
            let said_again = |row: &&Value| row[0] == "returned" || row[0] == "reused-id";
            let compared = rows.iter().filter(|row| !said_again(row) || expected.contains(row));
            compared.cloned().collect()
        }
        ("content", Value::Object(seen), Value::Object(expected)) => seen
            .iter()
            .filter(|(id, _)| expected.contains_key(*id))
            .map(|(id, value)| (id.clone(), value.clone()))
            .collect(),
        _ => seen.clone(),
    }
}

/// Cases in which this implementation does otherwise on purpose, with the reason. One that passes all the same fails
/// the test, so that the list stays true.
const DIVERGES: [(&str, &str); 1] = [(
    "pinned: any certificate, also of a CA",
    "rustls-webpki reads no certificates of version 1",
)];

fn run_file(file: &Path) -> (usize, Vec<String>) {
    let fixtures = fixtures();
    let cases = cases(file);
    let count = cases.len();
    let failures = std::thread::scope(|scope| {
        let threads: Vec<_> = cases
            .chunks(count.div_ceil(16).max(1))
            .map(|cases| {
                let fixtures = &fixtures;
                scope.spawn(move || {
                    let mut all = Vec::new();
                    for case in cases {
                        let mut failures = run(case, fixtures);
                        if let Some((_, reason)) = DIVERGES.iter().find(|(name, _)| case["name"] == *name) {
                            failures = match failures.is_empty() {
                                true => vec![format!("passes, though: {reason}")],
                                false => Vec::new(),
                            };
                        }
                        if !failures.is_empty() {
                            all.push(format!(
                                "{} ({}):\n    {}",
                                case["name"],
                                case["section"],
                                failures.join("\n    ")
                            ));
                        }
                    }
                    all
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    (count, failures)
}

#[test]
fn names() {
    for case in cases(&folder().join("names.json")) {
        let name = match &case["name"] {
            Value::String(name) => name.as_bytes().to_vec(),
            other => content(other).unwrap(),
        };
        let seen = match FileName::parse(&name) {
            FileName::File { id, part, primary } => {
                json!({"kind": "file", "id": id.as_str(), "part": &*part, "primary": primary})
            }
            FileName::Marker { id } => json!({"kind": "marker", "id": id.as_str()}),
            FileName::Hidden => json!({"kind": "hidden"}),
            FileName::Stray { revokes: false } => json!({"kind": "stray"}),
            FileName::Stray { revokes: true } => json!({"kind": "stray-marker"}),
        };
        assert_eq!(seen, case["expect"], "{}", case["name"]);
    }
}

#[test]
fn order() {
    for case in cases(&folder().join("order.json")) {
        let sorted: Vec<RevisionId> = case["sorted"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_str().unwrap().parse().unwrap())
            .collect();
        for shift in 0..sorted.len() {
            let mut ids = sorted.clone();
            ids.rotate_left(shift);
            ids.reverse();
            ids.sort();
            assert_eq!(ids, sorted);
        }
    }
}

#[test]
fn sequences_and_layouts() {
    without_read_override();
    // Each step is one look: an event between the step's new time and its new files would be another.
    let _no_events = without_events();
    let mut files: Vec<PathBuf> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|file| {
        let name = file.file_name().unwrap().to_string_lossy();
        name.ends_with(".json") && (name.starts_with("sequences-") || name == "layouts.json")
    });
    files.sort();
    let (mut count, mut failures) = (0, Vec::new());
    for file in &files {
        let (cases, failed) = run_file(file);
        count += cases;
        failures.extend(
            failed
                .into_iter()
                .map(|failure| format!("{}: {failure}", file.file_name().unwrap().to_string_lossy())),
        );
    }
    a_wrong_expectation_is_noticed();
    assert!(count > 500, "only {count} cases were found");
    assert!(
        failures.is_empty(),
        "{} of {count} cases fail:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// The runner must be able to fail.
fn a_wrong_expectation_is_noticed() {
    let case = json!({"name": "control", "section": "2", "use": "token", "steps": [
        {"at": 0, "files": {"r1.token.primary": "one"}, "expect": {"present": "r2", "accept": ["r1"]}}]});
    let failures = run(&case, &fixtures());
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(failures[0].contains("present"), "{failures:?}");
}
