//! Other programs: shown before they run, an error when they fail.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{env, io, thread};

use crate::Outcome;

/// How long output may go on after the command that it belongs to has ended.
const LEFT_BEHIND: Duration = Duration::from_secs(10);

/// The cargo that runs this chore.
///
/// What `cargo run` says about xtask itself is taken out of the environment: build scripts that
/// watch these variables would otherwise run again whenever a chore follows a plain `cargo build`.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let about_us = name.to_str().is_some_and(|name| {
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"]
                .iter()
                .any(|start| name.starts_with(start))
        });
        if about_us {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command with the terminal as it is.
pub(crate) fn run(command: &mut Command) -> Outcome {
    announce(command);
    let status = command.status().map_err(|error| not_started(command, &error))?;
    succeeded(command, status)
}

/// Runs a command and gives what it printed to standard output.
pub(crate) fn output(command: &mut Command) -> Outcome<String> {
    output_quietly(command.stderr(Stdio::inherit()))
}

/// The same, with standard error kept for the case that it fails.
pub(crate) fn output_quietly(command: &mut Command) -> Outcome<String> {
    let output = command.output().map_err(|error| not_started(command, &error))?;
    succeeded(command, output.status).map_err(|error| {
        let details = String::from_utf8_lossy(&output.stderr);
        format!("{error}\n{}", details.trim_end()).trim_end().to_owned()
    })?;
    String::from_utf8(output.stdout).map_err(|_| format!("`{}` printed something else than UTF-8", line(command)))
}

/// Whether a command runs and succeeds; what it prints is of no interest.
pub(crate) fn works(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a command whose output goes to standard output and, byte for byte, to the file `log`.
pub(crate) fn tee(command: &mut Command, log: &str) -> Outcome {
    announce(command);
    tee_to(command, log, io::stdout())
}

/// Both streams share one pipe, so that the log has them in the order in which they were written. A
/// process that the command leaves behind would keep this pipe open for ever: after a while that is
/// an error.
fn tee_to(command: &mut Command, log: &str, mut terminal: impl Write + Send + 'static) -> Outcome {
    let explain = |error: io::Error| format!("{log}: {error}");
    let mut file = File::create(log).map_err(explain)?;
    let (mut reader, writer) = io::pipe().map_err(explain)?;
    command.stderr(writer.try_clone().map_err(explain)?).stdout(writer);
    let mut child = command.spawn().map_err(|error| not_started(command, &error))?;
    // The command owns our copies of the writing end until its streams are replaced.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let (finished, copied) = mpsc::channel();
    thread::spawn(move || {
        let result = copy(&mut reader, &mut file, &mut terminal);
        // The receiver is gone only after it has given up waiting.
        let _ = finished.send(result);
    });
    let status = child.wait().map_err(|error| not_started(command, &error))?;
    let copied = copied.recv_timeout(LEFT_BEHIND);
    succeeded(command, status)?;
    match copied {
        Ok(result) => result.map_err(explain),
        Err(_) => Err(format!(
            "`{}` has ended, but a process that it started still runs",
            line(command)
        )),
    }
}

/// As `io::copy`, to two places, and without holding anything back.
fn copy(from: &mut impl Read, first: &mut impl Write, second: &mut impl Write) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let chunk = buffer.get(..count).unwrap_or_default();
        first.write_all(chunk)?;
        second.write_all(chunk)?;
        second.flush()?;
    }
}

/// The command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let changed = command.get_envs().filter_map(|(name, value)| {
        let value = value?.to_string_lossy();
        let quote = if value.contains(' ') { "\"" } else { "" };
        Some(format!("{}={quote}{value}{quote}", name.to_string_lossy()))
    });
    let program = command.get_program().to_string_lossy();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    let arguments = command
        .get_args()
        .map(|argument| argument.to_string_lossy().into_owned());
    changed.chain([program]).chain(arguments).collect::<Vec<_>>().join(" ")
}

fn announce(command: &Command) {
    println!("$ {}", line(command));
}

fn succeeded(command: &Command, status: ExitStatus) -> Outcome {
    if status.success() {
        Ok(())
    } else {
        Err(format!("`{}` failed: {status}", line(command)))
    }
}

fn not_started(command: &Command, error: &io::Error) -> String {
    format!("`{}` cannot be run: {error}", line(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_can_be_typed_again() {
        let mut command = Command::new("/usr/bin/program");
        command.args(["-p", "one"]).env("FLAGS", "-a -b").env_remove("GONE");
        assert_eq!(line(&command), "FLAGS=\"-a -b\" program -p one");
    }

    #[test]
    fn tee_keeps_both_streams_in_order() {
        let log = env::temp_dir().join(format!("xtask-tee-{}", std::process::id()));
        let log = log.to_str().unwrap();
        let script = "echo one; echo two >&2; echo three; exit $CODE";
        for (code, fine) in [("0", true), ("3", false)] {
            let mut command = Command::new("sh");
            command.args(["-c", script]).env("CODE", code);
            let result = tee_to(&mut command, log, io::sink());
            assert_eq!(result.is_ok(), fine, "{result:?}");
            assert_eq!(crate::files::read_text(log).unwrap(), "one\ntwo\nthree\n");
        }
        std::fs::remove_file(log).unwrap();
    }
}
