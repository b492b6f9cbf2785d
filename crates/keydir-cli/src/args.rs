//! The command line, as data.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use keydir::{RevisionId, Usage};

use crate::uses;

const EXIT_CODES: &str = "\
Exit codes:
  0  done: no findings, or warnings only
  1  errors were found; or a publication was refused or failed
  2  the command line is wrong, or something named in it cannot be read

No command ever prints what is in a file. docs/convention.md says what a key
directory is; the README of keydir-cli documents the fields of --json.";

/// Check, list, watch and publish key directories: secrets that rotate without
/// a restart.
#[derive(Debug, Parser)]
#[command(
    name = "keydir",
    version,
    after_help = EXIT_CODES,
    max_term_width = 80,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Find what is wrong with a key directory, and say what to do about it
    Check(Check),
    /// List the revisions in a key directory, and how each stands
    Ls(Ls),
    /// Follow a key directory, and tell what each publication changes
    Watch(Watch),
    /// Publish files in one atomic step: stage, promote, retire, revoke
    Publish(Publish),
    /// Rotate the directories of a policy by themselves, until a signal
    Run(Run),
    /// Show where the directories of a policy stand, and what they wait for
    Status(Status),
    /// Begin the next rotation of a directory now
    Rotate(Order),
    /// Move the mark to the revision that is staged
    Promote(Order),
    /// Take the retiring revision away
    Retire(Order),
    /// Move the mark back to the retiring revision
    Rollback(Order),
    /// Replace a revision that somebody else may have, and have it refused
    Compromise(Compromise),
    /// Let a directory not move by itself
    Pause(Pause),
    /// Let a paused directory move again
    Resume(Order),
}

/// Which directory, and for what.
#[derive(Args, Clone, Debug)]
pub(crate) struct Source {
    /// The key directory
    pub(crate) dir: PathBuf,
    /// A use of the directory; repeat it for several. Without it the uses are
    /// guessed from the names of the files, and the output says which
    #[arg(long = "use", value_name = "USE", value_parser = uses::named, long_help = USE_HELP)]
    pub(crate) uses: Vec<Usage>,
    /// The flat layout: the whole directory is one revision, and the names of
    /// its files are parts
    #[arg(long)]
    pub(crate) flat: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const USE_HELP: &str = "\
A use of the directory; repeat it for several. Without it the uses are guessed \
from the names of the files, and the output says which. One of: symmetric, \
signing, verifying, tls-identity, anchors, pinned, password-login, \
password-check, certificate-login, token, token-check";

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  keydir check /run/secrets/mesh
  keydir check --use anchors --use tls-identity /run/secrets/mesh
  keydir check --json --within 14 /etc/keys | jq '.findings[].code'

Exit codes: 0 no findings, or warnings only; 1 errors; 2 wrong command line, or
the directory cannot be read.")]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Warn of certificates that end within so many days
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    pub(crate) within: u32,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  keydir ls /run/secrets/mesh
  keydir ls --json /run/secrets/mesh | jq '.revisions[] | select(.marked).id'

States: primary (it is presented), accepted (the use accepts it), usable (it is
there, staged or retiring; one look cannot tell which), unusable, revoked (it
has a marker), and with these pending or expired. Names differ by use.

Exit codes: 0 listed; 2 wrong command line, or the directory cannot be read.")]
pub(crate) struct Ls {
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  keydir watch /run/secrets/mesh
  keydir watch --json --use tls-identity /run/secrets/mesh >> rotations.jsonl

It prints a line for each use that a publication changes, until SIGINT or
SIGTERM. Uses that are not given are guessed once, at the start.

Exit codes: 0 ended by a signal, or because nobody reads its output any more;
2 wrong command line, or the directory cannot be read at the start.")]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples, a rotation in three publications:
  keydir publish DIR r2.crt=new.crt r2.key=new.key     stage r2
  keydir publish DIR --promote r2                      promote it: move the mark
  keydir publish DIR --remove r1                       retire r1
An emergency:
  keydir publish DIR --revoke r1 --promote r2
A first publication, from a pipe, for another user of the group:
  vault-get token | keydir publish DIR --group-readable r1.token.primary=-

The other files stay as they are. What readers would not take is refused, with
the reason. --plan shows what would happen.

Exit codes: 0 published, or nothing to do; 1 refused, locked by another writer,
or failed: then the old set is still there, whole; 2 wrong command line, or a
file cannot be read.")]
pub(crate) struct Publish {
    /// The key directory; it is made if it is missing
    pub(crate) dir: PathBuf,
    /// What to add: <revision>.<part>[.primary]=FILE; `-` is standard input
    #[arg(value_name = "NAME=FILE", value_parser = addition)]
    pub(crate) files: Vec<Addition>,
    /// Take a file away, or all files of a revision if it is a revision's id
    #[arg(long, value_name = "NAME")]
    pub(crate) remove: Vec<String>,
    /// Revoke a revision at once: add the marker <ID>.revoked
    #[arg(long, value_name = "ID")]
    pub(crate) revoke: Vec<String>,
    /// Move the mark to this revision
    #[arg(long, value_name = "ID")]
    pub(crate) promote: Option<String>,
    /// The files given are the whole set: everything else goes
    #[arg(long)]
    pub(crate) replace: bool,
    /// Turn a plain directory into one of the kubelet's layout
    #[arg(long)]
    pub(crate) convert: bool,
    /// Let the group read, too (0640 instead of 0600), from now on
    #[arg(long)]
    pub(crate) group_readable: bool,
    /// Publish though an id is used again for other bytes, a revision becomes
    /// incomplete or unusable, no primary is left, or several uses are marked
    #[arg(long)]
    pub(crate) force: bool,
    /// Show what would be published, and change nothing
    #[arg(long)]
    pub(crate) plan: bool,
    /// A use of the directory; repeat it for several. Guessed if not given
    #[arg(long = "use", value_name = "USE", value_parser = uses::named)]
    pub(crate) uses: Vec<Usage>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  keydir run --policy /etc/keydir.toml
  keydir run --policy /etc/keydir.toml --json >> rotations.jsonl
  keydir run --policy /etc/keydir.toml --once            from a timer

The policy is read again when it changes; one that is wrong is reported, and
the last good one goes on. What fails is tried again, after 30 s at the latest.

Exit codes: 0 ended by SIGINT or SIGTERM, or done with --once; 1 something
failed with --once; 2 the policy cannot be used.")]
pub(crate) struct Run {
    /// The policy, a TOML file
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: PathBuf,
    /// Do what may be done now, and end
    #[arg(long)]
    pub(crate) once: bool,
    /// Print JSON, a line for each step
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  keydir status --policy /etc/keydir.toml
  keydir status --policy /etc/keydir.toml --watch
  keydir status --policy /etc/keydir.toml --json | jq '.directories[].blocked'

Exit codes: 0 shown; 1 a directory cannot be read; 2 the policy cannot be used.")]
pub(crate) struct Status {
    /// The policy, a TOML file
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: PathBuf,
    /// Show it again whenever it changes, until SIGINT or SIGTERM
    #[arg(long)]
    pub(crate) watch: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// An order about one directory of a policy.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  keydir rotate --policy /etc/keydir.toml /run/secrets/token
  keydir promote --policy /etc/keydir.toml /run/secrets/token --plan
  keydir retire --policy /etc/keydir.toml /run/secrets/token --force

What is not safe yet is refused, with every reason; --force does it anyway.

Exit codes: 0 done, or shown; 1 refused or failed; 2 wrong command line, or the
policy cannot be used.")]
pub(crate) struct Order {
    /// The directory
    pub(crate) dir: PathBuf,
    /// The policy, a TOML file
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: PathBuf,
    /// Do it though it is not safe yet
    #[arg(long)]
    pub(crate) force: bool,
    /// Show what would be done, and change nothing
    #[arg(long)]
    pub(crate) plan: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  keydir compromise --policy keydir.toml /run/secrets/token r3 --within 1h
  keydir compromise --policy keydir.toml /run/secrets/token r3 --now

Another revision is made at once and promoted as soon as all accept it; then
this one is refused, when nothing of it is in use any more. At the given time
both happen, whoever is not ready. No pause and no window stops it.

Exit codes: 0 done, or shown; 1 failed; 2 wrong command line, or the policy
cannot be used.")]
pub(crate) struct Compromise {
    #[command(flatten)]
    pub(crate) order: Order,
    /// The revision
    pub(crate) id: RevisionId,
    /// It is refused after so long, at the latest, such as 90m or 2h
    #[arg(long, value_name = "LENGTH", required_unless_present = "now", value_parser = humantime::parse_duration)]
    pub(crate) within: Option<Duration>,
    /// At once, whatever breaks
    #[arg(long, conflicts_with = "within")]
    pub(crate) now: bool,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  keydir pause --policy keydir.toml /run/secrets/token 'release 4.2'
  keydir resume --policy keydir.toml /run/secrets/token

Exit codes: 0 done, or shown; 1 failed; 2 wrong command line, or the policy
cannot be used.")]
pub(crate) struct Pause {
    #[command(flatten)]
    pub(crate) order: Order,
    /// Why, for people
    pub(crate) reason: String,
}

/// One `NAME=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addition {
    pub(crate) name: String,
    /// `None` is standard input.
    pub(crate) file: Option<PathBuf>,
}

fn addition(text: &str) -> Result<Addition, String> {
    let (name, file) = text
        .split_once('=')
        .ok_or("it is not NAME=FILE, as in r2.key=new.key")?;
    if name.is_empty() || file.is_empty() {
        return Err("it is not NAME=FILE, as in r2.key=new.key".to_owned());
    }
    Ok(Addition {
        name: name.to_owned(),
        file: (file != "-").then(|| PathBuf::from(file)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_fits_80_columns() {
        let mut command = Cli::command();
        command.build();
        for name in [
            "check",
            "ls",
            "watch",
            "publish",
            "run",
            "status",
            "rotate",
            "compromise",
            "pause",
        ] {
            let help = command
                .find_subcommand_mut(name)
                .unwrap()
                .render_long_help()
                .to_string();
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{name}: {line}");
            }
            assert!(help.contains("Examples") && help.contains("Exit codes"), "{name}");
        }
    }

    #[test]
    fn a_file_may_have_an_equals_sign_in_its_path() {
        let addition = addition("r1.key=a=b").unwrap();
        assert_eq!((addition.name.as_str(), addition.file), ("r1.key", Some("a=b".into())));
    }
}
