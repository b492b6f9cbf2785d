//! `keydir run`, `status`, and the orders.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{BINARY, Run, keydir};

/// What takes longer does not happen.
const PATIENCE: Duration = Duration::from_secs(60);

struct Place {
    folder: TempDir,
    policy: PathBuf,
    dir: PathBuf,
}

impl Place {
    fn new(lengths: &str) -> Self {
        let memory = Path::new("/dev/shm");
        let folder = match memory.is_dir() {
            true => tempfile::tempdir_in(memory).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let place = Self {
            policy: folder.path().join("keydir.toml"),
            dir: folder.path().join("token"),
            folder,
        };
        place.write(&format!(
            "[[directory]]\npath = '{}'\nmake = 'token'\n{lengths}\n",
            place.dir.display()
        ));
        place
    }

    fn write(&self, policy: &str) {
        // In one step, as editors do.
        let next = self.folder.path().join("next");
        fs::write(&next, policy).unwrap();
        fs::rename(next, &self.policy).unwrap();
    }

    #[track_caller]
    fn keydir(&self, words: &[&str]) -> Run {
        let policy = self.policy.display().to_string();
        keydir(&[words, &["--policy", &policy]].concat())
    }

    /// An order about the directory.
    #[track_caller]
    fn order(&self, words: &[&str]) -> Run {
        let dir = self.dir.display().to_string();
        let (order, more) = words.split_first().unwrap();
        self.keydir(&[&[order, &*dir], more].concat())
    }

    fn names(&self) -> String {
        let entries = fs::read_dir(self.dir.join("..data")).unwrap();
        let names: BTreeSet<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.into_iter().collect::<Vec<_>>().join(" ")
    }

    fn run(&self) -> Running {
        let child = Command::new(BINARY)
            .args(["run", "--policy"])
            .arg(&self.policy)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Running { child: Some(child) }
    }

    #[track_caller]
    fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < end, "it never came to this: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A running `keydir run`, killed if the test ends before it does.
struct Running {
    child: Option<Child>,
}

impl Running {
    #[track_caller]
    fn end(mut self, signal: Signal) -> Run {
        let child = self.child.take().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        crate::support::finish(child.wait_with_output().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_directory_is_rotated_by_hand() {
    let place = Place::new("propagation = '1h'\noverlap = '1h'\nrotate_every = '30 days'");
    place.order(&["promote"]).says(1, &["not done: no revision is staged"]);
    place.keydir(&["run", "--once"]).says(0, &["begin"]);
    assert_eq!(place.names(), "r1.token.primary");
    place.keydir(&["status"]).says(
        0,
        &["r1  primary since", "next: stage, but", "when the next rotation is due"],
    );

    place
        .order(&["rotate", "--plan"])
        .says(0, &["would change", "next: stage"]);
    assert_eq!(place.names(), "r1.token.primary");
    place
        .order(&["rotate"])
        .says(0, &["done", "stage", "next: promote r2", "when all have had the time"]);
    assert_eq!(place.names(), "r1.token.primary r2.token");
    place.order(&["rotate"]).says(1, &["a rotation is under way"]);

    // Not before its time, unless somebody insists.
    place.order(&["promote"]).says(1, &["not done: not before"]);
    assert_eq!(place.names(), "r1.token.primary r2.token");
    place
        .order(&["promote", "--force", "--plan"])
        .says(0, &["+ r1.token", "- r1.token.primary", "+ r2.token.primary"]);
    place.order(&["promote", "--force"]).says(0, &["next: retire r1"]);
    assert_eq!(place.names(), "r1.token r2.token.primary");
    place
        .order(&["retire"])
        .says(1, &["when what was made with the old one is over"]);

    place.order(&["rollback"]).says(0, &["+ r1.token.primary"]);
    assert_eq!(place.names(), "r1.token.primary r2.token");
    place.order(&["retire", "--force"]).says(0, &["- r2.token"]);
    assert_eq!(place.names(), "r1.token.primary");
    place.order(&["rollback"]).says(1, &["no revision is retiring"]);

    place.order(&["pause", "release 4.2"]).says(0, &["done"]);
    place.keydir(&["status"]).says(0, &["it is paused: release 4.2"]);
    place.order(&["resume"]).says(0, &["done"]);
    let status = place.keydir(&["status", "--json"]).json();
    let directory = &status["directories"][0];
    assert_eq!(directory["revisions"][0]["phase"], "primary");
    assert_eq!(directory["paused"], serde_json::Value::Null);
}

#[test]
fn a_compromised_revision_is_replaced() {
    let place = Place::new("propagation = '1h'\noverlap = '1h'");
    place.keydir(&["run", "--once"]);
    place
        .order(&["compromise", "r7", "--now"])
        .says(1, &["there is no revision r7"]);
    place
        .order(&["compromise", "r1", "--within", "2h"])
        .says(0, &["stage", "next: promote r2"]);
    place.keydir(&["status"]).says(0, &["compromised: refused at"]);
    place
        .order(&["compromise", "r1", "--now"])
        .says(0, &["promote r2", "revoke r1", "next: retire r1"]);
    assert_eq!(place.names(), "r1.revoked r1.token r2.token.primary");
}

#[test]
fn anchors_are_told_nothing_that_they_would_not_do() {
    let place = Place::new("");
    let ca = place.folder.path().join("ca");
    place.write(&format!(
        "[[directory]]\npath = '{0}'\nmake = {{ ca = {{ name = 'mesh', life = '1 year' }} }}\n\
         [[directory]]\npath = '{1}'\nca = '{0}'\nmake = 'anchors'\n",
        ca.display(),
        place.dir.display()
    ));
    place.keydir(&["run", "--once"]).says(0, &["trust r1"]);
    for order in [&["rotate"][..], &["promote", "--force"], &["compromise", "r1", "--now"]] {
        place.order(order).says(2, &["and follows it: order it there"]);
    }
    assert_eq!(place.names(), "r1.crt");
    place.order(&["pause", "x"]).says(0, &["done"]);
}

#[test]
fn a_policy_that_cannot_work_is_refused_with_its_line() {
    let place = Place::new("rotate_every = '5 min'");
    for (policy, said) in [
        (None, "line 4: rotate_every is 5m, and a rotation takes"),
        (
            Some("[[directory]]\npath = 'relative'\nmake = 'token'"),
            "line 2: path must be absolute",
        ),
        (
            Some("[[directory]]\npath = '/a'\nmake = 'tokens'"),
            "line 3: unknown variant",
        ),
        (
            Some("[[directory]]\npath = '/a'\nmake = 'token'\nwindow = 'x'"),
            "line 4: unknown field `window`",
        ),
        (
            Some("[[directory]]\npath = '/a'\nmake = 'token'\nwindows = ['Sunday 02:00']"),
            "line 4: \"Sunday 02:00\" is no window",
        ),
        (
            Some("[[directory]]\npath = '/a'\nmake = 'token'\n[[directory]]\npath = '/a'\nmake = 'token'"),
            "line 5: the directory is there twice",
        ),
        (
            Some("[[directory]]\npath = '/a'\nmake = { symmetric = 3 }"),
            "16 to 1024 bytes",
        ),
        (Some("[[directory]]\npath = '/a'\nmake = 'anchors'"), "ca is missing"),
        (Some(""), "it has no [[directory]]"),
    ] {
        if let Some(policy) = policy {
            place.write(policy);
        }
        place.keydir(&["run", "--once"]).says(2, &[said]);
        place.keydir(&["status"]).says(2, &[said]);
    }
    let place = Place::new("");
    let elsewhere = keydir(&["rotate", "/elsewhere", "--policy", &place.policy.display().to_string()]);
    elsewhere.says(2, &["/elsewhere is not in the policy, which has"]);
    keydir(&["status", "--policy", "/nonexistent.toml"]).says(2, &["the policy cannot be read"]);
}

#[test]
fn it_runs_by_itself_and_follows_its_policy() {
    let place = Place::new("propagation = '0s'\noverlap = '0s'");
    let running = place.run();
    place.until("the first revision is there", |place| {
        place.dir.join("..data").exists() && place.names() == "r1.token.primary"
    });
    // An order by somebody else is seen.
    place.order(&["rotate"]).says(0, &["stage"]);
    place.until("it has rotated", |place| place.names() == "r2.token.primary");
    // A policy that is wrong is told, and the last good one goes on.
    place.write("[[directory]]\npath = 1");
    place.until("it is told", |_| true);
    let second = place.folder.path().join("second");
    std::thread::sleep(Duration::from_millis(1500));
    place.write(&format!(
        "[[directory]]\npath = '{}'\nmake = 'password'\n",
        second.display()
    ));
    place.until("the new policy is followed", |_| second.join("..data").exists());
    running
        .end(Signal::TERM)
        .says(0, &["begin", "the last good policy goes on", "second: begin"]);
}

/// Killed at any moment, again and again: the directory is always whole, and in the end the rotation is done.
#[test]
fn killed_at_any_moment_it_ends_the_same() {
    let place = Place::new("propagation = '0s'\noverlap = '0s'");
    place.keydir(&["run", "--once"]);
    for round in 0..30_u64 {
        let _ = place.order(&["rotate", "--force"]);
        let mut running = place.run();
        std::thread::sleep(Duration::from_micros(round * 700));
        let mut child = running.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let names = place.names();
        assert_eq!(names.matches(".primary").count(), 1, "{names}");
        let check = keydir(&["check", "--use", "token", &place.dir.display().to_string()]);
        check.says(0, &[]);
    }
    place.keydir(&["run", "--once"]).says(0, &[]);
    assert_eq!(place.names().split(' ').count(), 1, "{}", place.names());
}
