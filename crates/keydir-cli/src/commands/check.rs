//! `keydir check`: every finding, and what to do about it.

use std::io;
use std::time::Duration;

use keydir::Severity;
use serde::Serialize;

use crate::args;
use crate::failure::{ERRORS, FINE, Failure};
use crate::findings::{Finding, find, word};
use crate::opened::Opened;
use crate::out::{Out, Style};

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    directory: &'a str,
    layout: Option<&'static str>,
    publication: Option<String>,
    uses: Vec<&'static str>,
    /// The uses were guessed.
    assumed: bool,
    errors: usize,
    warnings: usize,
    findings: &'a [Finding],
}

pub(crate) fn run(args: &args::Check, out: &mut Out) -> Result<u8, Failure> {
    let opened = Opened::open(&args.source)?;
    let within = Duration::from_secs(u64::from(args.within) * 86_400);
    let findings = find(&opened, within);
    let errors = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .count();
    let report = Report {
        version: 1,
        directory: opened.dir.path(),
        layout: opened.dir.report().layout,
        publication: opened.publication(),
        uses: opened.uses(),
        assumed: opened.assumed,
        errors,
        warnings: findings.len() - errors,
        findings: &findings,
    };
    if args.source.json {
        out.json(&report)?;
    } else {
        print(&report, out)?;
    }
    Ok(if errors == 0 { FINE } else { ERRORS })
}

fn print(report: &Report<'_>, out: &mut Out) -> io::Result<()> {
    out.line(
        &heading(report.directory, report.layout, &report.uses, report.assumed),
        2,
    )?;
    for finding in report.findings {
        if out.is_terminal() {
            for_a_terminal(finding, out)?;
        } else {
            let Finding {
                code,
                subject,
                message,
                advice,
                ..
            } = finding;
            let usage = finding.usage.map(|usage| format!(", {usage}")).unwrap_or_default();
            let severity = word(finding.severity);
            out.line(
                &format!("{severity}: {subject}: {message} ({code}{usage}): {advice}"),
                0,
            )?;
        }
    }
    if out.is_terminal() && !report.findings.is_empty() {
        out.line("", 0)?;
    }
    let summary = match (report.errors, report.warnings) {
        (0, 0) => "ok: nothing was found".to_owned(),
        (errors, warnings) => format!("{}, {}", count(errors, "error"), count(warnings, "warning")),
    };
    out.line(&summary, 0)
}

fn for_a_terminal(finding: &Finding, out: &mut Out) -> io::Result<()> {
    let usage = finding.usage.filter(|usage| *usage != finding.subject);
    let usage = usage.map(|usage| format!(" as {usage}")).unwrap_or_default();
    let rest = format!(" {}{usage} ({})", finding.subject, finding.code);
    out.line("", 0)?;
    out.styled_line(Style::Bold, word(finding.severity), &rest, 4)?;
    out.line(&format!("    {}", finding.message), 4)?;
    out.line(&format!("    -> {}", finding.advice), 7)
}

/// What was looked at, and as what.
pub(crate) fn heading(directory: &str, layout: Option<&str>, uses: &[&str], assumed: bool) -> String {
    let layout = layout.unwrap_or("unknown");
    let guessed = if assumed { " (guessed from the names)" } else { "" };
    match uses {
        [] => format!("{directory}: {layout} layout, no use"),
        uses => format!("{directory}: {layout} layout, as {}{guessed}", uses.join(", ")),
    }
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
