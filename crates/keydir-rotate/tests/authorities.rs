//! A CA, its anchors and its leaves, in directories of their own, looked after as a whole.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails shall panic"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use keydir::{FileName, Files, Publisher};
use keydir_rotate::generate::Certificate;
use keydir_rotate::{Event, Keeper, Now, Rotator, Settings, State, Step};
use tempfile::TempDir;

struct Mesh {
    folder: TempDir,
    settings: Settings,
    keeper: Keeper,
}

impl Mesh {
    /// Two services, each with a leaf of its own and the anchors of both.
    fn new(lengths: &str) -> Self {
        let memory = Path::new("/dev/shm");
        let folder = match memory.is_dir() {
            true => tempfile::tempdir_in(memory).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let at = |name: &str| folder.path().join(name).display().to_string();
        let leaf = |name: &str| {
            format!(
                "[[directory]]\npath = '{}'\nca = '{}'\n{lengths}\n[directory.make.leaf]\ndns = ['{name}.mesh']\n\
                 usage = ['server', 'client']\nlife = '1 day'\n",
                at(name),
                at("ca")
            )
        };
        let text = format!(
            "[[directory]]\npath = '{}'\n{lengths}\n[directory.make.ca]\nname = 'mesh'\nlife = '1 year'\n\
             [[directory]]\npath = '{}'\nca = '{}'\nmake = 'anchors'\n{lengths}\n{}{}",
            at("ca"),
            at("trust"),
            at("ca"),
            leaf("api"),
            leaf("db")
        );
        let settings = Settings::parse(&text, "policy.toml").unwrap();
        Self {
            folder,
            keeper: Keeper::new(&settings),
            settings,
        }
    }

    fn begun(mut self) -> Self {
        self.tick();
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Does all that may be done; after each step the whole has to hold together.
    fn tick(&mut self) -> Vec<String> {
        let mut done = Vec::new();
        let folder = self.folder.path();
        self.keeper.tick(|event| match event {
            Event::Done(path, step) => {
                check(folder);
                done.push(format!("{} {}", path.file_name().unwrap().display(), show(&step)));
            }
            other => panic!("{other:?}"),
        });
        done
    }

    fn change(&mut self, name: &str, change: impl FnMut(&mut keydir_rotate::Set)) {
        let directory = self.settings.of(&self.path(name)).unwrap();
        Rotator::of(directory).change(now(), change).unwrap();
        // Whoever published by hand does not want to wait for the next look.
        self.keeper = Keeper::new(&self.settings);
    }

    fn state(&self, name: &str) -> State {
        State::of_files(&read(&self.path(name))).unwrap().unwrap()
    }
}

fn now() -> Now {
    Now {
        wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(),
        since_jump: None,
    }
}

fn show(step: &Step) -> String {
    match step {
        Step::Adopt => "adopt".to_owned(),
        Step::Begin => "begin".to_owned(),
        Step::Stage => "stage".to_owned(),
        Step::Promote(id) => format!("promote {id}"),
        Step::Retire(id) => format!("retire {id}"),
        Step::Trust(id) => format!("trust {id}"),
        Step::Revoke(id) => format!("revoke {id}"),
        other => panic!("{other:?}"),
    }
}

fn read(path: &Path) -> Files {
    Publisher::read(path).unwrap_or_default()
}

/// Every certificate in a directory, by revision, and whether it is refused.
fn certificates(path: &Path) -> BTreeMap<String, (Certificate, bool)> {
    let files = read(path);
    let certificates = files
        .iter()
        .filter_map(|(name, content)| match FileName::parse(name.as_bytes()) {
            FileName::File { id, part, .. } if *part == *"crt" => {
                let all = Certificate::all_from_pem(content.expose()).unwrap();
                let refused = files.contains_key(&format!("{id}.revoked"));
                Some((id.to_string(), (all.into_iter().next().unwrap(), refused)))
            }
            _ => None,
        });
    certificates.collect()
}

/// Every leaf that lies in a directory, presented or not, is of an anchor that is trusted; and no key of the CA is among
/// the anchors.
fn check(folder: &Path) {
    let trust = folder.join("trust");
    let anchors = certificates(&trust);
    for name in ["api", "db"] {
        for (id, (leaf, _)) in certificates(&folder.join(name)) {
            let mut trusted = anchors.values().filter(|(_, refused)| !refused);
            assert!(
                trusted.any(|(ca, _)| ca.is_issuer_of(&leaf)),
                "{name}: nobody trusts {id}"
            );
        }
    }
    assert!(read(&trust).keys().all(|name| !name.contains("key")));
}

#[test]
fn a_ca_begins_with_all_that_belongs_to_it() {
    let mut mesh = Mesh::new("propagation = '0s'\noverlap = '0s'");
    assert_eq!(mesh.tick(), ["ca begin", "trust trust r1", "api begin", "db begin"]);
    assert_eq!(mesh.tick(), Vec::<String>::new());
    assert_eq!(certificates(&mesh.path("api")).len(), 1);
}

#[test]
fn a_ca_rotates_with_all_that_belongs_to_it() {
    let mut mesh = Mesh::new("propagation = '0s'\noverlap = '0s'");
    mesh.tick();
    mesh.change("ca", keydir_rotate::Set::request);
    let steps = mesh.tick();
    let expected = [
        "ca stage",
        "trust trust r2",
        "ca promote r2",
        "api stage",
        "api promote r2",
        "api retire r1",
        "db stage",
        "db promote r2",
        "db retire r1",
        "trust retire r1",
        "ca retire r1",
    ];
    let position = |step: &str| {
        let found = steps.iter().position(|done| done == step);
        found.unwrap_or_else(|| panic!("{step} is not among {steps:?}"))
    };
    assert_eq!(steps.len(), expected.len(), "{steps:?}");
    // New trust before the first new leaf, and old trust after the last old one.
    assert!(position("trust trust r2") < position("ca promote r2"));
    for leaf in ["api", "db"] {
        assert!(position("ca promote r2") < position(&format!("{leaf} stage")));
        assert!(position(&format!("{leaf} retire r1")) < position("trust retire r1"));
    }
    assert!(position("trust retire r1") < position("ca retire r1"));
    assert_eq!(mesh.tick(), Vec::<String>::new());
    for name in ["ca", "trust", "api", "db"] {
        assert_eq!(
            certificates(&mesh.path(name)).into_keys().collect::<Vec<_>>(),
            ["r2"],
            "{name}"
        );
    }
}

#[test]
fn an_old_ca_is_trusted_until_the_last_leaf_that_was_given_away_has_expired() {
    let mut mesh = Mesh::new("propagation = '0s'\noverlap = '0s'");
    mesh.tick();
    let until = now().wall + 3600;
    mesh.change("ca", |set| {
        set.issued(&"r1".parse().unwrap(), until);
        set.request();
    });
    let steps = mesh.tick();
    assert!(steps.contains(&"db retire r1".to_owned()), "{steps:?}");
    assert!(!steps.contains(&"trust retire r1".to_owned()), "{steps:?}");
    assert!(certificates(&mesh.path("trust")).contains_key("r1"));
}

#[test]
fn a_compromised_ca_is_distrusted_when_no_leaf_of_it_is_left() {
    let mut mesh = Mesh::new("propagation = '0s'\noverlap = '0s'");
    mesh.tick();
    let by = now().wall + 3600;
    mesh.change("ca", |set| set.compromise(&"r1".parse().unwrap(), by));
    let steps = mesh.tick();
    let position = |step: &str| {
        let found = steps.iter().position(|done| done == step);
        found.unwrap_or_else(|| panic!("{step} is not among {steps:?}"))
    };
    assert!(position("db retire r1") < position("trust retire r1"));
    assert!(position("trust retire r1") < position("ca revoke r1"));
    assert_eq!(
        certificates(&mesh.path("trust")).into_keys().collect::<Vec<_>>(),
        ["r2"]
    );
    assert_eq!(mesh.state("ca").revisions.len(), 1);
}

/// Its time has come, and leaves of it are still there.
#[test]
fn a_compromised_ca_is_distrusted_at_its_time_whatever_is_left() {
    let mut mesh = Mesh::new("propagation = '1h'\noverlap = '1h'");
    mesh.tick();
    mesh.change("ca", |set| set.compromise(&"r1".parse().unwrap(), 0));
    let mut done = Vec::new();
    mesh.keeper.tick(|event| match event {
        Event::Done(path, step) => done.push(format!("{} {}", path.file_name().unwrap().display(), show(&step))),
        Event::Overdue(..) => {}
        other => panic!("{other:?}"),
    });
    let position = |step: &str| {
        let found = done.iter().position(|done| done == step);
        found.unwrap_or_else(|| panic!("{step} is not among {done:?}"))
    };
    assert!(position("ca promote r2") < position("ca revoke r1"));
    assert!(position("ca revoke r1") < position("trust revoke r1"));
    let anchors = certificates(&mesh.path("trust"));
    assert!(anchors["r1"].1 && !anchors["r2"].1);
}

#[test]
fn nothing_is_issued_before_all_trust_it() {
    let mut mesh = Mesh::new("propagation = '1h'\noverlap = '0s'");
    let steps = mesh.tick();
    // The first CA: nobody uses anything yet, but whoever comes has to have loaded the anchors.
    assert_eq!(steps, ["ca begin", "trust trust r1", "api begin", "db begin"]);
    mesh.change("ca", keydir_rotate::Set::request);
    assert_eq!(mesh.tick(), ["ca stage", "trust trust r2"]);
    assert_eq!(certificates(&mesh.path("api")).len(), 1);
    // A leaf that has to be renewed meanwhile is of the old one.
    mesh.change("api", keydir_rotate::Set::request);
    assert_eq!(mesh.tick(), ["api stage"]);
    let ca = certificates(&mesh.path("ca"));
    let leaves = certificates(&mesh.path("api"));
    assert!(ca["r1"].0.is_issuer_of(&leaves["r2"].0));
}

/// Somebody else's anchor bears the name that the next CA would have.
#[test]
fn a_foreign_anchor_by_the_name_of_the_next_ca_is_no_trust_in_it() {
    let mut mesh = Mesh::new("propagation = '0s'\noverlap = '0s'");
    mesh.tick();
    let other = Mesh::new("propagation = '0s'\noverlap = '0s'").begun();
    let foreign = read(&other.path("trust"));
    let mut publisher = Publisher::open(mesh.path("trust")).unwrap();
    let mut files = publisher.current().unwrap();
    files.insert("r2.crt".to_owned(), foreign["r1.crt"].clone());
    files.insert("partner.crt".to_owned(), foreign["r1.crt"].clone());
    publisher.publish(&files).unwrap();
    drop(publisher);
    mesh.change("ca", keydir_rotate::Set::request);
    assert_eq!(mesh.tick(), ["ca stage", "trust adopt"]);
    let blocked: Vec<String> = mesh
        .keeper
        .status()
        .into_iter()
        .flat_map(|status| status.look.unwrap().decision.blocked)
        .map(|reason| reason.to_string())
        .collect();
    assert!(
        blocked[0].contains("r2 in ") && blocked[0].contains("is not of the CA"),
        "{blocked:?}"
    );
    // By another name it stays, and the rotation goes on.
    let mut publisher = Publisher::open(mesh.path("trust")).unwrap();
    files = publisher.current().unwrap();
    files.remove("r2.crt");
    publisher.publish(&files).unwrap();
    drop(publisher);
    mesh.keeper = Keeper::new(&mesh.settings);
    assert!(mesh.tick().contains(&"ca retire r1".to_owned()));
    let left: Vec<String> = certificates(&mesh.path("trust")).into_keys().collect();
    assert_eq!(left, ["partner", "r2"]);
}

/// The CA may not go yet, and so is asked about again and again.
#[test]
fn what_was_retired_from_the_anchors_does_not_come_back() {
    let mut mesh = Mesh::new("propagation = '0s'\noverlap = '0s'");
    mesh.tick();
    mesh.change("ca", keydir_rotate::Set::request);
    let mut ca = mesh.settings.directories[0].clone();
    let never = "Mon 00:00-00:01".parse().unwrap();
    let soon = "Tue 00:00-00:01".parse().unwrap();
    let monday = now().wall % (7 * 86_400) / 86_400 == 4;
    ca.policy.windows = if monday { soon } else { never };
    mesh.settings.directories[0] = ca;
    mesh.keeper.follow(&mesh.settings);
    // By hand, since no window is open.
    mesh.tick();
    let staged = "r2".parse().unwrap();
    mesh.change("ca", |set| set.promote(&staged));
    let steps = mesh.tick();
    assert_eq!(steps.last().map(String::as_str), Some("trust retire r1"), "{steps:?}");
    assert!(certificates(&mesh.path("ca")).contains_key("r1"));
}
