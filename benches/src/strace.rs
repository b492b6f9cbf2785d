//! The system calls of keydir's threads, by strace.

use std::fs;
use std::path::Path;
use std::process::Command;

#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) on_files: usize,
    /// Of the threads that sleep and wake each other.
    pub(crate) others: usize,
}

/// This program again, inside strace.
pub(crate) fn command(log: &Path) -> Command {
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-o"])
        .arg(log)
        .arg(std::env::current_exe().unwrap())
        .arg("inside");
    command
}

pub(crate) const MISSING: &str = "strace is needed; on Debian: apt-get install strace";

const BEGIN: &str = "/keydir-bench-begins";
const END: &str = "/keydir-bench-ends";

/// From here on calls are counted. To be called, as `end` is, by the thread that began the program.
pub(crate) fn begin() {
    assert!(fs::metadata(BEGIN).is_err());
}

pub(crate) fn end() {
    assert!(fs::metadata(END).is_err());
}

/// What happened between the two marks, in all threads but the one that made them.
pub(crate) fn read(log: &str) -> Calls {
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
