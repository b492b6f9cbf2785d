//! P6: the system calls of a poll that finds nothing new, by strace.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use keydir::{Broken, Candidates, Dir, Parsed, Revision, Unusable, Usage, View, uses};

use crate::Work;
use crate::kubelet::{Files, Kubelet};
use crate::strace::{self, Calls};
use crate::table::Table;

const POLL: Duration = Duration::from_millis(100);
const POLLS: usize = 100;
/// A link that was younger than a second when it was read could have been replaced within one tick of its clock.
pub(crate) const YOUNG: Duration = Duration::from_secs(1);

/// A view that keeps nothing.
pub(crate) struct Tokens;

impl View for Tokens {
    type Item = ();
    type Whole = ();

    fn usage(&self) -> &Usage {
        const USAGE: Usage = uses::TOKEN;
        &USAGE
    }

    fn parse(&self, _: &Revision<'_>) -> Result<Parsed<()>, Unusable> {
        Ok(Parsed::new(()))
    }

    fn combine(&self, _: &Candidates<'_, ()>) -> Result<(), Broken> {
        Ok(())
    }
}

pub(crate) fn bench(work: Work) {
    let polls = work.of(POLLS);
    let mut table = Table::new();
    for (dirs, files, fresh) in [
        (1, 1, false),
        (1, 1, true),
        (1, 100, true),
        (1, work.of(10_000), true),
        (100, 1, false),
    ] {
        let calls = count(dirs, files, fresh, polls);
        let each = |count: usize| count as f64 / (polls * dirs) as f64;
        let when = if fresh { "published while open" } else { "opened later" };
        let measure = format!("directories: {dirs}, files: {files}, {when}");
        table.count(
            &format!("{measure}: calls on files"),
            each(calls.on_files),
            None,
            Some(1.0),
        );
        table.count(
            &format!("{measure}: waiting and waking"),
            each(calls.others),
            None,
            None,
        );
    }
    table.print();
}

pub(crate) fn files(count: usize, token: &str) -> Files {
    let mark = |n| if n == 0 { ".primary" } else { "" };
    (0..count)
        .map(|n| (format!("r{n}.token{}", mark(n)), token.to_owned()))
        .collect()
}

/// `fresh`: the publication that is polled came while the directory was open, so that it was read at once.
fn count(dirs: usize, count: usize, fresh: bool, polls: usize) -> Calls {
    let folder = tempfile::tempdir().unwrap();
    let (log, opened) = (folder.path().join("strace.log"), folder.path().join("opened"));
    let mut kubelet = Kubelet::with(&files(count, "one"));
    thread::sleep(2 * YOUNG);
    let mut child = strace::command(&log)
        .arg("poll")
        .arg(kubelet.path())
        .args([dirs, polls].map(|number| number.to_string()))
        .args(fresh.then_some(&opened))
        .spawn()
        .expect(strace::MISSING);
    if fresh {
        while !opened.exists() {
            thread::sleep(Duration::from_millis(10));
        }
        let two = files(count, "two");
        kubelet.publish(&two);
        kubelet.tidy(&two);
        // The child goes on when this has gone and it has seen the second publication.
        fs::remove_file(&opened).unwrap();
    }
    assert!(child.wait().unwrap().success());
    strace::read(&fs::read_to_string(log).unwrap())
}

/// Opens the directory, says so by a file, waits until that has gone and there was another publication, and then only
/// polls.
pub(crate) fn inside(arguments: &[&str]) {
    let [path, dirs, polls, opened @ ..] = arguments else {
        panic!("path, directories, polls");
    };
    let polls: u32 = polls.parse().unwrap();
    // To keydir they are different ones, though it is always the same.
    let open = |_| Dir::builder(path).poll(POLL).open().unwrap().view(Tokens).unwrap();
    let lives: Vec<_> = (0..dirs.parse::<usize>().unwrap()).map(open).collect();
    if let [opened] = opened {
        let first = lives[0].load().generation();
        fs::write(opened, "").unwrap();
        while lives[0].load().generation() == first || Path::new(opened).exists() {
            thread::sleep(Duration::from_millis(10));
        }
    }
    // Until nothing happens any more but polls.
    thread::sleep(3 * YOUNG);
    strace::begin();
    // Half a poll less, so that no more than these fall into it.
    thread::sleep(POLL * polls - POLL / 2);
    strace::end();
    drop(lives);
}
