//! The programs that the tests call.

use std::path::Path;
use std::process::Command;

use crate::{Outcome, run};

struct Tool {
    program: &'static str,
    /// With this argument the program succeeds where it is installed.
    probe: &'static str,
    debian: &'static str,
}

/// All of them, said once.
const TOOLS: &[Tool] = &[
    tool("git", "--version", "git"),
    tool("tar", "--version", "tar"),
    tool("openssl", "version", "openssl"),
    tool("certtool", "--version", "gnutls-bin"),
    tool("curl", "--version", "curl"),
    tool("python3", "--version", "python3"),
    tool("node", "--version", "nodejs"),
    // It says what it is with an exit code of 1.
    tool(
        "/usr/bin/python3",
        "-cimport shutil, sys; sys.exit(shutil.which('wrk') is None)",
        "wrk",
    ),
    tool("h2load", "--version", "nghttp2-client"),
    tool("/usr/sbin/nginx", "-v", "nginx-light"),
    tool("/usr/bin/python3", "-cimport grpc", "python3-grpcio"),
    // It is not on the path.
    tool(
        "/usr/bin/python3",
        "-cimport glob; glob.glob('/usr/lib/postgresql/*/bin/initdb')[0]",
        "postgresql",
    ),
    tool("/usr/bin/python3", "-cimport httpx", "python3-httpx"),
];

/// What `bench` calls as well.
const BENCH_TOOLS: &[Tool] = &[
    tool("strace", "--version", "strace"),
    tool("valgrind", "--version", "valgrind"),
];

const fn tool(program: &'static str, probe: &'static str, debian: &'static str) -> Tool {
    Tool { program, probe, debian }
}

/// Finds the tools; installs those that are missing if this is Debian and we are root, else says
/// how to.
pub(crate) fn tools() -> Outcome {
    find(TOOLS)
}

/// The same for those that only `bench` needs.
pub(crate) fn bench_tools() -> Outcome {
    find(BENCH_TOOLS)
}

fn find(tools: &[Tool]) -> Outcome {
    let missing: Vec<&str> = missing(tools);
    if missing.is_empty() {
        println!("all {} found", tools.len());
        return Ok(());
    }
    let mut install = Command::new("apt-get");
    install
        .args(["install", "-y", "--no-install-recommends"])
        .args(&missing);
    let debian = Path::new("/etc/debian_version").exists();
    let root = run::output(Command::new("id").arg("-u"))?.trim() == "0";
    if !(debian && root) {
        return Err(match debian {
            true => format!("tools are missing; run: sudo {}", run::line(&install)),
            false => format!(
                "tools are missing, by the names of their Debian packages: {}",
                missing.join(" ")
            ),
        });
    }
    run::run(
        Command::new("apt-get")
            .args(["update", "-q"])
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )?;
    run::run(install.env("DEBIAN_FRONTEND", "noninteractive"))?;
    match self::missing(tools).as_slice() {
        [] => Ok(()),
        still => Err(format!("installed, but still not usable: {}", still.join(" "))),
    }
}

fn missing(tools: &[Tool]) -> Vec<&'static str> {
    let absent = |tool: &&Tool| !run::works(Command::new(tool.program).arg(tool.probe));
    tools.iter().filter(absent).map(|tool| tool.debian).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_run_is_missing() {
        let tools = [
            tool("true", "", "here"),
            tool("false", "", "broken"),
            tool("xtask-has-no-such-program", "", "absent"),
        ];
        assert_eq!(missing(&tools), ["broken", "absent"]);
    }
}
