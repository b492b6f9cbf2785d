//! `keydir watch`: a sequence of publications, faults, and the ways it ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{BINARY, Tree, assert_no_secret, keydir, secret};

const PATIENCE: Duration = Duration::from_secs(20);

/// A running `keydir watch`, killed if the test ends before it does.
struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Watch {
    fn start(args: &[&str]) -> Self {
        let mut command = Command::new(BINARY);
        let mut child = command.arg("watch").args(args).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines() {
                if sender.send(line.unwrap()).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    fn line(&self) -> String {
        let line = self.lines.recv_timeout(PATIENCE).expect("no line was printed");
        println!("{line}");
        assert_no_secret(&line);
        line
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn publish(dir: &str, args: &[&str]) {
    let all: Vec<_> = ["publish", dir].iter().chain(args).copied().collect();
    assert_eq!(keydir(&all).code, 0);
}

/// A directory with `r1` published, and files with two more tokens.
fn published() -> (Tree, String, [String; 2]) {
    let tree = Tree::new(&[("1", &secret("1")), ("2", &secret("2")), ("3", &secret("3"))]);
    let dir = tree.join("keys");
    publish(&dir, &[&format!("r1.token.primary={}", tree.join("1"))]);
    let files = [
        format!("r2.token={}", tree.join("2")),
        format!("r3.token={}", tree.join("3")),
    ];
    (tree, dir, files)
}

#[test]
fn a_line_for_each_publication() {
    let (_tree, dir, [two, three]) = published();
    let watch = Watch::start(&[&dir]);
    let expect = |expected: &str| {
        let line = watch.line();
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!(rest, expected);
        assert!(
            time.len() == 20 && time.ends_with('Z') && time.as_bytes()[10] == b'T',
            "{time}"
        );
    };
    expect("token: loaded r1; primary r1");
    for (args, expected) in [
        (&[two.as_str()][..], "token: staged r2"),
        (&["--promote", "r2"], "token: promoted r2; r1 is retiring"),
        (&["--remove", "r1"], "token: retired r1"),
        (&[&three], "token: staged r3"),
        (
            &["--revoke", "r2", "--promote", "r3"],
            "token: revoked r2 (by its marker); promoted r3",
        ),
    ] {
        publish(&dir, args);
        expect(expected);
    }
}

#[test]
fn json_lines_and_faults() {
    let (tree, dir, [two, _]) = published();
    let watch = Watch::start(&["--json", "--use", "token", &dir]);
    let first = watch.json();
    let fields: Vec<_> = first.as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        fields.join(" "),
        "adopted directory events generation primary publication revisions time use"
    );
    assert_eq!(
        (&first["events"][0]["event"], &first["primary"]),
        (&"loaded".into(), &"r1".into())
    );
    publish(&dir, &[&two]);
    let staged = watch.json();
    assert_eq!(
        staged["events"],
        serde_json::json!([{"event": "staged", "id": "r2", "reason": null}])
    );
    assert_eq!(
        (&staged["adopted"], &staged["revisions"]),
        (&true.into(), &serde_json::json!(["r1", "r2"]))
    );

    // One revision broken in place: held.
    publish(
        &dir,
        &["--force", &format!("r2.token={}", tree.write("bad", "a\nb").display())],
    );
    let held = watch.json();
    assert_eq!(
        (&held["events"][0]["event"], &held["events"][0]["id"]),
        (&"held".into(), &"r2".into())
    );
    assert_eq!(held["adopted"], false);
    publish(&dir, &["--force", &two]);
    assert_eq!(watch.json()["events"][0]["event"], "released");

    // The whole directory gone, and back.
    let away = tree.join("away");
    fs::rename(&dir, &away).unwrap();
    let mut seen = Vec::new();
    while !(seen.contains(&"held".to_owned()) && seen.contains(&"unreadable".to_owned())) {
        seen.push(watch.json()["events"][0]["event"].as_str().unwrap().to_owned());
    }
    fs::rename(&away, &dir).unwrap();
    while !(seen.contains(&"readable".to_owned()) && seen.iter().any(|event| event == "released")) {
        seen.push(watch.json()["events"][0]["event"].as_str().unwrap().to_owned());
    }
}

#[test]
fn publications_of_other_files_and_strays_are_told_too() {
    let (_tree, dir, _) = published();
    let watch = Watch::start(&["--use", "token", &dir]);
    watch.line();
    publish(&dir, &["r9.revoked=/dev/null"]);
    assert!(watch.line().ends_with("directory: published: nothing changed"));
    let target = fs::read_link(format!("{dir}/..data")).unwrap();
    let next = format!("{dir}/..next");
    fs::create_dir(&next).unwrap();
    for name in ["r1.token.primary", "notes.txt~"] {
        let from = format!("{dir}/{}/{name}", target.display());
        let _ = fs::copy(from, format!("{next}/{name}"));
        let _ = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(format!("{next}/{name}"));
    }
    std::os::unix::fs::symlink("..next", format!("{dir}/..tmp")).unwrap();
    fs::rename(format!("{dir}/..tmp"), format!("{dir}/..data")).unwrap();
    assert!(watch.line().contains("directory: warning: notes.txt~: "));
}

#[test]
fn signals_end_it_with_0() {
    let (_tree, dir, _) = published();
    for signal in [Signal::INT, Signal::TERM] {
        let mut watch = Watch::start(&[&dir]);
        watch.line();
        watch.signal(signal);
        assert_eq!(watch.child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn nobody_reading_ends_it_quietly() {
    let (_tree, dir, _) = published();
    // Without another publication: it does not wait for its next line to notice.
    let mut command = Command::new(BINARY);
    let command = command
        .args(["watch", &dir])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn a_closed_pipe_is_quiet_for_the_others_too() {
    let (_tree, dir, _) = published();
    for command in ["check", "ls"] {
        let mut command = Command::new(BINARY)
            .arg(command)
            .arg(&dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(command.stdout.take());
        let output = command.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    }
}
