//! How each program begins and ends: events to stderr, lines to stdout, signals, an exit code.

use std::future::Future;
use std::io::{self, Write};
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::failure::{Failure, causes};

/// Which events are logged where `RUST_LOG` says nothing.
#[derive(Clone, Copy, Debug)]
pub enum Log {
    /// Everything that an operator may want to see.
    Info,
    /// What somebody should look at.
    Warn,
    /// Nothing short of trouble: the screen belongs to the program.
    Error,
}

/// Runs a program to its end. What it returns is the exit code; a failure is told on stderr and is 1.
pub fn run(log: Log, program: impl Future<Output = Result<ExitCode, Failure>>) -> ExitCode {
    start_log(log);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure::System("start the runtime", error)),
    };
    let end = runtime.block_on(program);
    // A look-up of a name that hangs must not keep the process.
    runtime.shutdown_background();
    end.unwrap_or_else(|failure| fail(&failure))
}

fn fail(failure: &Failure) -> ExitCode {
    // If stderr is closed there is nobody left to tell.
    let _ = writeln!(io::stderr(), "error: {}", causes(failure));
    ExitCode::FAILURE
}

/// `RUST_LOG` in its simple form, such as `debug` or `warn,keydir=debug`.
fn start_log(log: Log) {
    let level = match log {
        Log::Info => LevelFilter::INFO,
        Log::Warn => LevelFilter::WARN,
        Log::Error => LevelFilter::ERROR,
    };
    let default = Targets::new().with_default(level);
    let filter = match std::env::var("RUST_LOG") {
        Ok(wanted) if !wanted.is_empty() => wanted.parse().unwrap_or_else(|error| {
            let _ = writeln!(io::stderr(), "RUST_LOG is not understood and passed over: {error}");
            default
        }),
        _ => default,
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(false)
        .log_internal_errors(false);
    // Fails only if a subscriber is there already, which then does the logging.
    let _ = tracing_subscriber::registry().with(lines).with(filter).try_init();
}

/// Prints a line on stdout at once, also where it is a pipe.
pub fn print_line(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush())
        .map_err(Failure::Output)
}

/// Resolves when the process is asked to end, by SIGTERM or SIGINT. Listens from the call on, not from the first poll.
pub fn asked_to_end() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::System("listen for signals", error));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
