//! The demo, as anyone runs it first: piped, on a terminal, and with arguments that it cannot take.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use keydir_integration::{End, Program, example};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

const LAST: [&str; 2] = ["failed: 0", "removed CA: refused (full), refused (resumed)"];

fn last_two(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(2)..].to_vec()
}

#[test]
fn three_cas_are_rotated_out_and_nothing_fails() {
    let folder = tempfile::tempdir().unwrap();
    let End { code, stdout, stderr } = Program::run(
        example("demo")
            .args(["--seconds", "3", "--rotations", "3", "--clients", "3"])
            .env("TMPDIR", folder.path()),
    );
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert_eq!(last_two(&stdout), LAST, "{stdout}");
    assert_eq!(stderr, "");
    assert!(!stdout.contains('\x1b'), "a pipe got control characters: {stdout:?}");
    for removed in ["c1", "c2", "c3"] {
        assert!(stdout.contains(&format!("drop {removed}\n")), "{stdout}");
    }
    assert!(stdout.contains("server presents r4, trusts c4; clients present r4, trust c4"));
    // The four ways to resume; the control beside them did resume.
    let refused = |line: &&str| {
        line.split_whitespace()
            .rev()
            .take(3)
            .eq(["resumed", "refused", "refused"])
    };
    assert_eq!(stdout.lines().filter(refused).count(), 4, "{stdout}");
    // Steady load: some hundred requests a second of three clients, with new and resumed handshakes among them.
    let summary = stdout.lines().find(|line| line.contains(" of them resumed")).unwrap();
    let numbers: Vec<u64> = summary.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [requests, handshakes, resumed] = numbers[..] else {
        panic!("{summary}")
    };
    assert!(requests > 300 && handshakes > 30 && resumed > 10, "{summary}");
    assert!(resumed < handshakes, "{summary}");
    // Each client renews its kept connection when its server has a new leaf, and when it has one itself.
    assert!(
        stdout.contains("18 times a kept connection was renewed in time"),
        "{stdout}"
    );
    assert_eq!(
        folder.path().read_dir().unwrap().count(),
        0,
        "the folder is left behind"
    );
}

#[test]
fn on_a_terminal_it_redraws_a_few_lines_that_fit() {
    for (columns, colour) in [(80, true), (120, false)] {
        let (text, code) = on_terminal(columns, colour);
        assert_eq!(code, Some(0), "{text}");
        let text = text.replace('\r', "");
        assert_eq!(last_two(&text), LAST, "{text}");
        assert!(text.contains("\x1b[8A"), "nothing was redrawn: {text:?}");
        assert_eq!(text.contains("\x1b[32m"), colour, "{text:?}");
        for line in text.lines() {
            let visible = visible(line);
            assert!(visible.chars().count() < 80, "too wide: {visible}");
        }
        for shown in ["presents r1, trusts c1 c2", "presents r2, trusts c2", "requests/s"] {
            assert!(text.contains(shown), "{text}");
        }
    }
}

/// Without control sequences.
fn visible(line: &str) -> String {
    let mut parts = line.split('\x1b');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).unwrap();
        text.push_str(&part[end + 1..]);
    }
    text
}

fn on_terminal(columns: u16, colour: bool) -> (String, Option<i32>) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let size = Winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&master, size).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let terminal: OwnedFd = open(&*name, flags, Mode::empty()).unwrap();
    let mut command = example("demo");
    command
        .args(["--seconds", "2", "--clients", "2"])
        .env("TERM", "xterm")
        .env("NO_COLOR", if colour { "" } else { "1" })
        .stdin(Stdio::null())
        .stdout(terminal)
        .stderr(Stdio::null());
    let mut demo = command.spawn().unwrap();
    // The command has a copy of the terminal: only without it does reading come to an end.
    drop(command);
    let mut text = Vec::new();
    let mut bytes = [0; 4096];
    let mut master = File::from(master);
    // At the end of the last writer Linux reports an error, not an end.
    while let Ok(read @ 1..) = master.read(&mut bytes) {
        text.extend_from_slice(&bytes[..read]);
    }
    (String::from_utf8(text).unwrap(), demo.wait().unwrap().code())
}

#[test]
fn what_it_cannot_do_it_says() {
    for arguments in [
        &["--seconds", "0"][..],
        &["--seconds", "soon"],
        &["--clients", "0"],
        &["--clients", "101"],
        &["--rotations", "-1"],
        &["--nonsense"],
        &["extra"],
    ] {
        let end = Program::run(example("demo").args(arguments));
        assert_eq!(
            (end.code, end.stdout.as_str()),
            (Some(2), ""),
            "{arguments:?}: {}",
            end.stderr
        );
        assert!(end.stderr.starts_with("error: "), "{}", end.stderr);
    }
    let end = Program::run(example("demo").env("TMPDIR", "/no/such/folder"));
    assert_eq!(end.code, Some(1));
    assert!(
        end.stderr.starts_with("error: cannot make a temporary folder: "),
        "{}",
        end.stderr
    );
}

#[test]
fn stopped_early_it_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Program::start(example("demo").env("TMPDIR", folder.path()));
    while demo.line().is_some_and(|line| !line.contains("everyone holds it")) {}
    demo.signal(Signal::INT);
    let end = demo.end();
    assert_eq!(
        (end.code, end.stderr.as_str()),
        (Some(1), "error: stopped before its end\n")
    );
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}
