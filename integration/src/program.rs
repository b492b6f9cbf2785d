//! Programs that tests run: found or built, watched line by line, ended by their own process id with the test.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// No program of a test takes longer for what it is waited for. Longer than a poll takes to come: who starts while
/// another test has all of inotify ([`crate::without_events`]) sees a publication no sooner.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The programs of a package, by name; `None` if they cannot be built.
type Built = OnceLock<Option<HashMap<String, PathBuf>>>;

/// A program of `examples/`. All of them are built once for each test process; if they are up to date, that is a
/// matter of a moment.
pub fn example(name: &str) -> Command {
    static BUILT: Built = OnceLock::new();
    program(&BUILT, "keydir-examples", name)
}

/// The program `keydir`, built likewise.
pub fn keydir() -> Command {
    static BUILT: Built = OnceLock::new();
    program(&BUILT, "keydir-cli", "keydir")
}

fn program(built: &'static Built, package: &str, name: &str) -> Command {
    let programs = built.get_or_init(|| build(package));
    let programs = programs.as_ref().expect("the programs cannot be built");
    let path = programs
        .get(name)
        .unwrap_or_else(|| panic!("{package} has no program {name}"));
    let mut command = Command::new(path);
    // What the surroundings say of logging must not decide whether a test passes.
    command.env_remove("RUST_LOG");
    command
}

/// `None` if they cannot be built; cargo has said why.
fn build(package: &str) -> Option<HashMap<String, PathBuf>> {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--package", package, "--bins"]);
    build.arg("--message-format=json-render-diagnostics");
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    build.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit());
    let built = build.output().unwrap();
    let messages = String::from_utf8(built.stdout).unwrap();
    let program = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let path = message["executable"].as_str()?;
        Some((message["target"]["name"].as_str()?.to_owned(), path.into()))
    };
    let programs = messages.lines().filter_map(program).collect();
    built.status.success().then_some(programs)
}

/// A program that we did not write. It is never passed over if it is missing.
pub fn tool(name: &str, debian: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(name).is_file());
    assert!(found, "this test needs {name}: apt-get install -y {debian}");
    let mut command = Command::new(name);
    // Where these come from the machine, they would change what the tools trust or how they speak.
    for variable in [
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "OPENSSL_CONF",
        "NODE_OPTIONS",
        "NODE_EXTRA_CA_CERTS",
    ] {
        command.env_remove(variable);
    }
    command
}

/// A port of loopback that is free now, below those that the system gives to clients.
pub fn free_port() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    loop {
        let number = RandomState::new().hash_one(Instant::now()) % 12_000;
        let port = 20_000 + u16::try_from(number).unwrap();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A program that runs. It ends with the test, at the latest.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    lines: Receiver<String>,
    errors: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

/// How a program ended, and what it printed.
#[derive(Debug)]
pub struct End {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What was not taken line by line before.
    pub stdout: String,
    /// All of it.
    pub stderr: String,
}

impl Program {
    /// Starts it with nothing to read.
    pub fn start(command: &mut Command) -> Self {
        let mut program = Self::with_input(command);
        program.child.stdin.take();
        program
    }

    /// Starts it with a pipe to write to; see [`input`](Self::input).
    pub fn with_input(command: &mut Command) -> Self {
        let name = Path::new(command.get_program())
            .file_name()
            .unwrap_or_else(|| OsStr::new("?"));
        let name = name.to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let (send, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let read_lines = std::thread::spawn(move || {
            for line in stdout.split(b'\n').map_while(Result::ok) {
                // Nobody listening is fine: the pipe must be emptied all the same.
                let _ = send.send(String::from_utf8_lossy(&line).into_owned());
            }
        });
        let errors = Arc::<Mutex<String>>::default();
        let (mut stderr, into) = (child.stderr.take().unwrap(), Arc::clone(&errors));
        let read_errors = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = stderr.read(&mut bytes) {
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        });
        Self {
            name,
            child,
            lines,
            errors,
            readers: vec![read_lines, read_errors],
        }
    }

    /// Runs it to its end.
    pub fn run(command: &mut Command) -> End {
        Self::start(command).end()
    }

    /// What to write to; dropped, the program sees the end.
    pub fn input(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// The next line that it prints; `None` if it prints no more.
    pub fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                println!("{}: {line}", self.name);
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("{} prints nothing; its errors:\n{}", self.name, self.errors()),
        }
    }

    /// What it has written to stderr so far.
    pub fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal to this process, and to no other.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Whether it is still there.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub fn end(mut self) -> End {
        let begun = Instant::now();
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{} does not end; its errors:\n{}",
                self.name,
                self.errors()
            );
            std::thread::sleep(Duration::from_millis(2));
        };
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        let lines: Vec<String> = self.lines.try_iter().map(|line| line + "\n").collect();
        let stdout = lines.concat();
        println!("{}: {status}\n{stdout}", self.name);
        End {
            code: status.code(),
            stdout,
            stderr: self.errors(),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Passing tests show this too when the run looks for secrets in everything that was printed.
        println!("{}, stderr:\n{}", self.name, self.errors());
    }
}
