//! P6: the system calls of a poll that finds nothing new, by strace.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use keydir::{Broken, Candidates, Dir, Parsed, Revision, Unusable, Usage, View, uses};

use crate::Work;
use crate::kubelet::{Files, Kubelet};
use crate::table::Table;

const POLL: Duration = Duration::from_millis(100);
const POLLS: usize = 100;
/// A link that was younger than a second when it was read could have been replaced within one tick of its clock.
const YOUNG: Duration = Duration::from_secs(1);

struct Tokens;

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

#[derive(Default)]
struct Calls {
    on_files: usize,
    /// Of the threads that sleep and wake each other.
    others: usize,
}

fn files(count: usize, token: &str) -> Files {
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
    let mut child = Command::new("strace")
        .args(["-f", "-qq", "-o"])
        .arg(&log)
        .arg(std::env::current_exe().unwrap())
        .args(["inside", "poll"])
        .arg(kubelet.path())
        .args([dirs, polls].map(|number| number.to_string()))
        .args(fresh.then_some(&opened))
        .spawn()
        .expect("strace is needed; on Debian: apt-get install strace");
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
    read(&fs::read_to_string(log).unwrap())
}

/// What happened between the two marks, in all threads but the one that made them.
fn read(log: &str) -> Calls {
    let mut calls = Calls::default();
    let main = log.split(' ').next().unwrap_or_default();
    let mut inside = false;
    for line in log.lines() {
        let Some((thread, call)) = line.split_once(' ') else {
            continue;
        };
        let call = call.trim_start();
        if call.contains(BEGIN) || call.contains(END) {
            inside = call.contains(BEGIN);
        } else if inside && thread != main && !call.starts_with(['<', '+', '-']) {
            match call.split('(').next() {
                Some("futex" | "clock_nanosleep" | "epoll_wait" | "restart_syscall" | "sched_yield") => {
                    calls.others += 1;
                }
                _ => calls.on_files += 1,
            }
        }
    }
    calls
}

const BEGIN: &str = "/keydir-bench-begins";
const END: &str = "/keydir-bench-ends";

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
    let mark = |path: &str| assert!(fs::metadata(path).is_err());
    mark(BEGIN);
    // Half a poll less, so that no more than these fall into it.
    thread::sleep(POLL * polls - POLL / 2);
    mark(END);
    drop(lives);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read() {
        let log = "10 execve(\"x\") = 0\n11 futex(1) = 0\n10 statx(\"/keydir-bench-begins\") = -1\n\
                   11 futex(1 <unfinished ...>\n12 newfstatat(\"a\") = 0\n11 <... futex resumed>) = 0\n\
                   10 clock_nanosleep() = 0\n10 statx(\"/keydir-bench-ends\") = -1\n12 read(3) = 0\n";
        let calls = read(log);
        assert_eq!((calls.on_files, calls.others), (1, 1));
    }
}
