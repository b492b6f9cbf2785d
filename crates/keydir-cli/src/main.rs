//! The program `keydir`: checks, lists, watches and publishes key directories.

mod args;
mod certificate;
mod commands;
mod events;
mod failure;
mod findings;
mod judge;
mod listing;
mod moment;
mod opened;
mod out;
mod pem;
mod plan;
mod uses;
mod view;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::out::{Out, clean};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = Out::new();
    let result = match &cli.command {
        Command::Check(args) => commands::check::run(args, &mut out),
        Command::Ls(args) => commands::ls::run(args, &mut out),
        Command::Watch(args) => commands::watch::run(args, &mut out),
        Command::Publish(args) => commands::publish::run(args, &mut out),
        Command::Run(args) => commands::run::run(args, &mut out),
        Command::Status(args) => commands::status::run(args, &mut out),
        Command::Rotate(args) => commands::order::rotate(args, &mut out),
        Command::Promote(args) => commands::order::promote(args, &mut out),
        Command::Retire(args) => commands::order::retire(args, &mut out),
        Command::Rollback(args) => commands::order::roll_back(args, &mut out),
        Command::Compromise(args) => commands::order::compromise(args, &mut out),
        Command::Pause(args) => commands::order::pause(args, &mut out),
        Command::Resume(args) => commands::order::resume(args, &mut out),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            if !failure.is_quiet() {
                // With standard error gone there is nobody left to tell.
                let _ = writeln!(std::io::stderr(), "keydir: {}", clean(&failure.to_string()));
            }
            ExitCode::from(failure.code())
        }
    }
}
