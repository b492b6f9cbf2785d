//! The examples `serve` and `call`, as tests drive them.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::program::{End, PATIENCE, Program, example, free_port};

/// Waits until a program, which logs at `info`, has loaded so many publications of a directory. Two that follow each other
/// at once may be loaded as one, so wait for each.
pub fn loaded(program: &Program, directory: &Path, generation: u64) {
    let (directory, generation) = (directory.to_str().unwrap(), format!("generation={generation} "));
    crate::eventually("a publication is loaded", || {
        let log = program.errors();
        log.lines()
            .any(|line| line.contains(directory) && line.contains(&generation))
    });
}

/// Starts an example that listens on loopback, on a port that it is given, and waits until it does.
fn listen(name: &str, arguments: impl Fn(&mut Command)) -> (Program, u16) {
    loop {
        let port = free_port();
        let mut command = example(name);
        command.arg("--listen").arg(format!("127.0.0.1:{port}"));
        arguments(&mut command);
        let program = Program::start(&mut command);
        match program.line() {
            Some(line) => {
                assert_eq!(line, format!("listening 127.0.0.1:{port}"));
                return (program, port);
            }
            // Somebody else was quicker.
            None if program.errors().contains("Address already in use") => {}
            None => panic!("{name} does not start: {}", program.errors()),
        }
    }
}

/// An `api` that runs.
#[derive(Debug)]
pub struct Api {
    /// The process.
    pub program: Program,
    /// Where it listens, on loopback.
    pub port: u16,
}

impl Api {
    /// Starts it with this identity, these tokens and more arguments, and waits until it listens.
    pub fn start(identity: &Path, tokens: &Path, arguments: &[&str]) -> Self {
        let (program, port) = listen("api", |command| {
            command.arg("--identity").arg(identity).arg("--tokens").arg(tokens);
            command.args(arguments);
        });
        Self { program, port }
    }

    /// The URL of a path of it.
    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    /// Ends it, and makes sure that it ends well.
    pub fn stop(self) -> End {
        end_well(self.program)
    }
}

/// A `crawl` that runs.
#[derive(Debug)]
pub struct Crawl(pub Program);

impl Crawl {
    /// Starts it.
    pub fn start(trust: &Path, arguments: &[&str], url: &str) -> Self {
        let mut command = example("crawl");
        command.arg("--trust").arg(trust).args(arguments).arg(url);
        // So that a test can wait until this process, too, has loaded what was published.
        command.env("RUST_LOG", "info");
        Self(Program::start(&mut command))
    }

    /// The counts that it prints next.
    pub fn counts(&self) -> Value {
        let line = self.0.line();
        let line = line.unwrap_or_else(|| panic!("crawl has ended: {}", self.0.errors()));
        serde_json::from_str(&line).unwrap()
    }

    /// Waits for its end: the last counts, and its exit code.
    pub fn finish(self) -> (Value, End) {
        let mut last = Value::Null;
        while let Some(line) = self.0.line() {
            last = serde_json::from_str(&line).unwrap();
        }
        (last, self.0.end())
    }
}

fn end_well(program: Program) -> End {
    program.signal(Signal::TERM);
    let end = program.end();
    assert_eq!(end.code, Some(0), "{end:?}");
    end
}

/// A `serve` that runs.
#[derive(Debug)]
pub struct Serve {
    /// The process.
    pub program: Program,
    /// Where it listens, on loopback.
    pub port: u16,
}

impl Serve {
    /// Starts it with this identity and more arguments, and waits until it listens.
    pub fn start(identity: &Path, arguments: &[&str]) -> Self {
        let (program, port) = listen("serve", |command| {
            command.arg("--identity").arg(identity).args(arguments);
        });
        Self { program, port }
    }

    /// The URL of it.
    pub fn url(&self) -> String {
        format!("https://localhost:{}/", self.port)
    }

    /// Ends it, and makes sure that it ends well.
    pub fn stop(self) -> End {
        end_well(self.program)
    }
}

/// A `call` that runs.
#[derive(Debug)]
pub struct Call(pub Program);

impl Call {
    /// Starts it.
    pub fn start(trust: &Path, identity: Option<&Path>, arguments: &[&str], url: &str) -> Self {
        let mut command = example("call");
        command.arg("--trust").arg(trust);
        if let Some(identity) = identity {
            command.arg("--identity").arg(identity);
        }
        // So that a test can wait until this process, too, has loaded what was published.
        command.env("RUST_LOG", "info");
        Self(Program::start(command.args(arguments).arg(url)))
    }

    /// Runs it to its end: its lines, and its exit code.
    pub fn run(trust: &Path, identity: Option<&Path>, arguments: &[&str], url: &str) -> (Vec<Value>, Option<i32>) {
        let end = Self::start(trust, identity, arguments, url).0.end();
        let lines = end.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
        (lines.collect(), end.code)
    }

    /// Waits until it has loaded so many publications of a directory.
    pub fn loaded(&self, directory: &Path, generation: u64) {
        loaded(&self.0, directory, generation);
    }

    /// The next line.
    pub fn line(&self) -> Value {
        let line = self.0.line();
        let line = line.unwrap_or_else(|| panic!("call has ended: {}", self.0.errors()));
        serde_json::from_str(&line).unwrap()
    }

    /// Waits for a line like this; all lines on the way must be successes.
    pub fn until(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let begun = std::time::Instant::now();
        loop {
            let line = self.line();
            assert_eq!(line["ok"], true, "{line}");
            if is_it(&line) {
                return line;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "no line comes with {what}; the last was {line}"
            );
        }
    }
}
