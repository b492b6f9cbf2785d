//! Instructions and allocations of one function, by valgrind's callgrind.
//!
//! Every allocation is counted that goes through the C library, those of the cryptography in C too, and nothing is put
//! between the program and its allocator.

use std::collections::HashMap;
use std::fs;
use std::process::{Command, Stdio};

/// What a function cost, with all that it called.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cost {
    pub(crate) instructions: f64,
    pub(crate) allocations: f64,
}

/// What one turn of `function` (a part of its name will do) costs: this program is run again, inside callgrind, with
/// `count` turns and with twice as many, said last, so that all else falls out.
pub(crate) fn cost(function: &str, arguments: &[&str], count: usize) -> Cost {
    let [once, twice] = [count, 2 * count].map(|count| run(function, arguments, count));
    Cost {
        instructions: (twice.instructions - once.instructions) / count as f64,
        allocations: (twice.allocations - once.allocations) / count as f64,
    }
}

/// Instructions are those of the function alone; callgrind counts calls everywhere.
fn run(function: &str, arguments: &[&str], count: usize) -> Cost {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("callgrind.out");
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--collect-atstart=no"])
        .arg(format!("--toggle-collect=*{function}*"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().unwrap())
        .arg("inside")
        .args(arguments)
        .arg(count.to_string())
        .stdout(Stdio::null())
        .status()
        .expect("valgrind is needed; on Debian: apt-get install valgrind");
    assert!(status.success(), "inside {arguments:?} failed in callgrind: {status}");
    let cost = read(&fs::read_to_string(out).unwrap());
    assert!(cost.instructions > 0.0, "{function} was not found");
    cost
}

/// Functions of the C library that allocate.
const ALLOCATE: &[&str] = &[
    "malloc",
    "calloc",
    "realloc",
    "memalign",
    "posix_memalign",
    "aligned_alloc",
];

fn read(profile: &str) -> Cost {
    let mut cost = Cost::default();
    // A name is said once, with a number; later the number stands for it.
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut called = "";
    for line in profile.lines() {
        if let Some(total) = line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")) {
            cost.instructions = total.trim().parse().unwrap();
        } else if let Some((_, name)) = line.split_once("fn=").filter(|(key, _)| ["", "c"].contains(key)) {
            let (number, text) = name.split_once(' ').unwrap_or((name, ""));
            if !text.is_empty() {
                names.insert(number, text);
            }
            if line.starts_with('c') {
                called = names.get(number).copied().unwrap_or_default();
            }
        } else if let Some(calls) = line.strip_prefix("calls=") {
            let count: f64 = calls.split(' ').next().unwrap_or_default().parse().unwrap();
            // Under recursion a name may carry a depth.
            if ALLOCATE.contains(&called.split('\'').next().unwrap_or_default()) {
                cost.allocations += count;
            }
        }
    }
    cost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read() {
        let profile = "events: Ir\nfn=(1) main\n16 400\ncfn=(2) malloc\ncalls=3 0\n16 50\ncfn=(3) work\ncalls=9 0\n\
                       fn=(3)\n1 7\ncfn=(2)\ncalls=4 0\n1 9\ntotals: 466\n";
        let expected = Cost {
            instructions: 466.0,
            allocations: 7.0,
        };
        assert_eq!(read(profile), expected);
    }
}
