//! P7: what many directories cost in which nothing happens: time computed and wake-ups, seen from outside, and system
//! calls, in a run of its own under strace.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use keydir::Dir;

use crate::Work;
use crate::kubelet::Kubelet;
use crate::poll::{Tokens, YOUNG, files};
use crate::strace::{self, Calls};
use crate::table::Table;

const POLL: Duration = Duration::from_secs(30);
const DIRS: usize = 1000;
/// Whatever wakes up so long before or after the moment of a poll belongs to it.
const AROUND: Duration = Duration::from_secs(1);

pub(crate) fn bench(work: Work) {
    // Always as many directories: of fewer each would pay more for the waking of the threads.
    let (polls, traced) = match work {
        Work::Whole => (20, 4),
        Work::Tenth => (2, 2),
    };
    let dirs: Vec<_> = (0..DIRS).map(|_| Kubelet::with(&files(1, "one"))).collect();
    thread::sleep(2 * YOUNG);

    let mut table = Table::new();
    let mut row = |polls: u32, measure: &str, value: f64, goal| {
        let measure = format!("{} directories, {polls} polls: {measure}", dirs.len());
        table.count(&measure, value, None, goal);
    };
    let idle = watch(&dirs, polls);
    let a_second = |wakes: u64| wakes as f64 / (POLL * polls).as_secs_f64();
    let computed = idle.all.computed.as_secs_f64() * 1e3;
    row(polls, "milliseconds computed", computed, Some(300.0));
    row(polls, "wake-ups a second, in all", a_second(idle.all.wakes), None);
    let beyond = a_second(idle.all.wakes - idle.polls.wakes);
    row(polls, "wake-ups a second, beyond the polls", beyond, Some(0.2));
    let each = idle.polls.wakes as f64 / f64::from(polls);
    row(polls, "wake-ups for one poll of all", each, None);

    let Calls { on_files, others } = count(&dirs, traced);
    let each = |calls: usize| calls as f64 / (f64::from(traced) * dirs.len() as f64);
    row(traced, "calls a directory and poll", each(on_files + others), Some(1.2));
    row(traced, "of these on files", each(on_files), None);
    table.print();
}

/// What threads have done since they began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Done {
    computed: Duration,
    /// How often one went to sleep by itself, so that something had to wake it.
    wakes: u64,
}

struct Idle {
    all: Done,
    /// Around the moments of the polls.
    polls: Done,
}

fn watch(dirs: &[Kubelet], polls: u32) -> Idle {
    let mut child = start(
        Command::new(std::env::current_exe().unwrap()).arg("inside"),
        dirs,
        polls,
    );
    let begin = begun(&mut child);
    let look = |at: Duration| {
        thread::sleep((begin + at).saturating_duration_since(Instant::now()));
        threads(child.id())
    };
    let first = look(Duration::ZERO);
    let mut idle = Idle {
        all: Done::default(),
        polls: Done::default(),
    };
    for n in 0..polls {
        // The window begins between two polls.
        let poll = POLL * n + POLL / 2;
        let [before, after] = [poll - AROUND, poll + AROUND].map(look);
        add(&mut idle.polls, &before, &after);
    }
    add(&mut idle.all, &first, &look(POLL * polls - AROUND));
    assert!(child.wait().unwrap().success());
    idle
}

fn add(sum: &mut Done, before: &BTreeMap<String, Done>, after: &BTreeMap<String, Done>) {
    assert!(
        before.keys().eq(after.keys()),
        "threads have come or gone: {before:?} {after:?}"
    );
    for (before, after) in before.values().zip(after.values()) {
        sum.computed += after.computed - before.computed;
        sum.wakes += after.wakes - before.wakes;
    }
}

/// Of each thread but the first, which only keeps the directories open.
fn threads(process: u32) -> BTreeMap<String, Done> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let tasks = tasks.map(|task| task.unwrap().file_name().into_string().unwrap());
    let others = tasks.filter(|task| *task != process.to_string());
    others
        .map(|task| {
            let read = |file: &str| fs::read_to_string(format!("/proc/{process}/task/{task}/{file}")).unwrap();
            let done = parse(&read("schedstat"), &read("status"));
            (task, done)
        })
        .collect()
}

fn parse(schedstat: &str, status: &str) -> Done {
    let nanoseconds = schedstat.split(' ').next().unwrap_or_default();
    let wakes = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    Done {
        computed: Duration::from_nanos(nanoseconds.parse().unwrap()),
        wakes: wakes.unwrap_or_default().trim().parse().unwrap(),
    }
}

fn count(dirs: &[Kubelet], polls: u32) -> Calls {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("strace.log");
    let mut child = start(&mut strace::command(&log), dirs, polls);
    begun(&mut child);
    assert!(child.wait().expect(strace::MISSING).success());
    strace::read(&fs::read_to_string(log).unwrap())
}

fn start(command: &mut Command, dirs: &[Kubelet], polls: u32) -> Child {
    command
        .args(["idle", &polls.to_string()])
        .args(dirs.iter().map(Kubelet::path))
        .stdout(Stdio::piped())
        .spawn()
        .expect(strace::MISSING)
}

/// Waits until the child says that the window begins.
fn begun(child: &mut Child) -> Instant {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "begin\n");
    Instant::now()
}

/// Opens all directories, and does nothing for so many polls.
pub(crate) fn inside(arguments: &[&str]) {
    let [polls, paths @ ..] = arguments else {
        panic!("polls, directories");
    };
    let open = |path: &&str| {
        Dir::builder(Path::new(path))
            .poll(POLL)
            .open()
            .unwrap()
            .view(Tokens)
            .unwrap()
    };
    // All are polled at the multiples of the interval from the first look on.
    let first = Instant::now();
    let lives: Vec<_> = paths.iter().map(open).collect();
    let mut begin = first + POLL / 2;
    while begin < Instant::now() + 3 * YOUNG {
        begin += POLL;
    }
    thread::sleep(begin - Instant::now());
    println!("begin");
    std::io::stdout().flush().unwrap();
    strace::begin();
    thread::sleep(POLL * polls.parse::<u32>().unwrap());
    strace::end();
    drop(lives);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_tells_is_read() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t7\n";
        let expected = Done {
            computed: Duration::from_nanos(345),
            wakes: 12,
        };
        assert_eq!(parse("345 67 8\n", status), expected);
    }
}
