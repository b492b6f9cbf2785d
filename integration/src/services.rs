//! The examples `serve` and `call`, as tests drive them.

use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::program::{End, Program, example, free_port};

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
        loop {
            let port = free_port();
            let mut command = example("serve");
            command.arg("--listen").arg(format!("127.0.0.1:{port}"));
            command.arg("--identity").arg(identity).args(arguments);
            let program = Program::start(&mut command);
            match program.line() {
                Some(line) => {
                    assert_eq!(line, format!("listening 127.0.0.1:{port}"));
                    return Self { program, port };
                }
                // Somebody else was quicker.
                None if program.errors().contains("Address already in use") => {}
                None => panic!("serve does not start: {}", program.errors()),
            }
        }
    }

    /// The URL of it.
    pub fn url(&self) -> String {
        format!("https://localhost:{}/", self.port)
    }

    /// Ends it, and makes sure that it ends well.
    pub fn stop(self) -> End {
        self.program.signal(Signal::TERM);
        let end = self.program.end();
        assert_eq!(end.code, Some(0), "{end:?}");
        end
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
        let (directory, generation) = (directory.to_str().unwrap(), format!("generation={generation} "));
        crate::eventually("call has loaded a publication", || {
            let log = self.0.errors();
            log.lines()
                .any(|line| line.contains(directory) && line.contains(&generation))
        });
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
                begun.elapsed().as_secs() < 20,
                "no line comes with {what}; the last was {line}"
            );
        }
    }
}
