//! Where results go: tables and wrapped text for a terminal, plain lines for pipes, JSON on request.
//!
//! Everything for people passes [`clean`], since file names may hold what moves a terminal's cursor.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

/// Standard output, and what it is.
pub(crate) struct Out {
    to: io::Stdout,
    /// Columns of the terminal; `None` if it is none.
    width: Option<usize>,
    styled: bool,
}

/// How a word stands out on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Bold,
    Dim,
}

impl Out {
    pub(crate) fn new() -> Self {
        let to = io::stdout();
        let width = to.is_terminal().then(columns);
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            styled: width.is_some() && !no_color,
            width,
            to,
        }
    }

    /// Whether people look at it.
    pub(crate) fn is_terminal(&self) -> bool {
        self.width.is_some()
    }

    /// One value as JSON, indented.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        self.raw(&text)
    }

    /// One value as JSON, in one line.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string(value)?;
        self.raw(&text)
    }

    /// A line; on a terminal wrapped, what follows the first line indented by `indent`.
    pub(crate) fn line(&mut self, text: &str, indent: usize) -> io::Result<()> {
        self.styled_line(Style::Plain, "", text, indent)
    }

    /// A line that begins with a word that stands out.
    pub(crate) fn styled_line(&mut self, style: Style, head: &str, text: &str, indent: usize) -> io::Result<()> {
        let (head, text) = (clean(head), clean(text));
        let Some(width) = self.width else {
            return self.raw(&format!("{head}{text}"));
        };
        for (number, line) in wrap(&format!("{head}{text}"), width, indent).into_iter().enumerate() {
            match line.strip_prefix(head.as_str()) {
                Some(rest) if number == 0 && !head.is_empty() => {
                    let head = self.paint(style, &head);
                    self.raw(&format!("{head}{rest}"))?;
                }
                _ => self.raw(&line)?,
            }
        }
        Ok(())
    }

    /// Rows under a header: aligned to the terminal's width, else the rows alone, their fields parted by one blank.
    pub(crate) fn table<const N: usize>(&mut self, header: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
        match self.width {
            None => rows.iter().try_for_each(|row| {
                let fields: Vec<_> = row.iter().map(|field| plain_field(field)).collect();
                self.raw(&fields.join(" "))
            }),
            Some(width) => {
                let mut lines = align(header, rows, width).into_iter();
                if let Some(header) = lines.next() {
                    let header = self.paint(Style::Dim, &header);
                    self.raw(&header)?;
                }
                lines.try_for_each(|line| self.raw(&line))
            }
        }
    }

    fn paint(&self, style: Style, text: &str) -> String {
        match style {
            Style::Bold if self.styled => format!("\u{1b}[1m{text}\u{1b}[0m"),
            Style::Dim if self.styled => format!("\u{1b}[2m{text}\u{1b}[0m"),
            _ => text.to_owned(),
        }
    }

    fn raw(&mut self, line: &str) -> io::Result<()> {
        let mut to = self.to.lock();
        to.write_all(line.as_bytes())?;
        to.write_all(b"\n")?;
        to.flush()
    }
}

/// The terminal's columns: what the environment says, else what the terminal says, else 80.
fn columns() -> usize {
    let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let asked = || {
        rustix::termios::tcgetwinsize(io::stdout())
            .ok()
            .map(|size| usize::from(size.ws_col))
    };
    said.or_else(asked).filter(|columns| *columns >= 20).unwrap_or(80)
}

/// The text with everything that a terminal would act on shown as an escape.
pub(crate) fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        // Marks that turn the direction of writing could make one name look like another.
        if c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            let _ = write!(cleaned, "{}", c.escape_unicode());
        } else {
            cleaned.push(c);
        }
    }
    cleaned
}

fn plain_field(field: &str) -> String {
    let field = clean(field).replace(' ', "");
    if field.is_empty() { "-".to_owned() } else { field }
}

/// Breaks a text at blanks; a word that is longer than a line is broken anywhere.
fn wrap(text: &str, width: usize, indent: usize) -> Vec<String> {
    let indent = indent.min(width / 2);
    let mut lines = Vec::new();
    // The blanks at the beginning stay.
    let mut line: String = text.chars().take_while(|c| *c == ' ').collect();
    let mut length = line.chars().count();
    let mut fresh = true;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let mut word: Vec<char> = word.chars().collect();
        if !fresh && length + 1 + word.len() > width {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            (length, fresh) = (indent, true);
        }
        if !fresh {
            line.push(' ');
            length += 1;
        }
        while length + word.len() > width {
            let rest = word.split_off(width.saturating_sub(length).clamp(1, word.len()));
            line.extend(word);
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            (length, word) = (indent, rest);
        }
        length += word.len();
        line.extend(word);
        fresh = false;
    }
    lines.push(line);
    lines
}

/// Header and rows with columns of the same width; the widest are cut until all fit.
fn align<const N: usize>(header: [&str; N], rows: &[[String; N]], width: usize) -> Vec<String> {
    const GAP: usize = 2;
    const NARROWEST: usize = 6;
    let rows: Vec<[String; N]> = std::iter::once(header.map(str::to_owned))
        .chain(rows.iter().map(|row| row.each_ref().map(|field| clean(field))))
        .collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, field) in widths.iter_mut().zip(row) {
            *width = (*width).max(field.chars().count());
        }
    }
    while widths.iter().sum::<usize>() + GAP * N.saturating_sub(1) > width {
        match widths.iter_mut().max().filter(|widest| **widest > NARROWEST) {
            Some(widest) => *widest -= 1,
            None => break,
        }
    }
    rows.iter()
        .map(|row| {
            let mut line = String::new();
            for (field, width) in row.iter().zip(widths) {
                let field = cut(field, width);
                let _ = write!(line, "{field:width$}{:GAP$}", "");
            }
            line.truncate(line.trim_end().len());
            line
        })
        .collect()
}

/// What is too long keeps its beginning and its end, where ids differ.
fn cut(field: &str, width: usize) -> String {
    let length = field.chars().count();
    if length <= width {
        return field.to_owned();
    }
    let end = width.saturating_sub(1) / 2;
    let begin = width.saturating_sub(1) - end;
    let head: String = field.chars().take(begin).collect();
    let tail: String = field.chars().skip(length - end).collect();
    format!("{head}…{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_at_blanks_and_indented() {
        for (text, width, expected) in [
            ("", 10, vec![""]),
            ("one two", 10, vec!["one two"]),
            ("one two three", 9, vec!["one two", "  three"]),
            ("    one two", 9, vec!["    one", "  two"]),
            ("abcdefghijklm n", 6, vec!["abcdef", "  ghij", "  klm", "  n"]),
        ] {
            assert_eq!(wrap(text, width, 2), expected, "{text}");
        }
    }

    #[test]
    fn tables_fit_the_width() {
        let long = "x".repeat(100);
        let rows = [
            ["r1".to_owned(), "a".to_owned(), long.clone()],
            [long, String::new(), "b".to_owned()],
        ];
        for width in [20, 40, 80, 120, 300] {
            let lines = align(["ID", "MARK", "REST"], &rows, width);
            assert!(
                lines.iter().all(|line| line.chars().count() <= width),
                "{width}: {lines:#?}"
            );
            assert_eq!(lines.len(), 3);
        }
        assert_eq!(
            align(["A", "B"], &[["1".to_owned(), "2".to_owned()]], 80),
            ["A  B", "1  2"]
        );
        assert_eq!(cut("2026.11.24.key", 9), "2026….key");
    }

    #[test]
    fn nothing_reaches_a_terminal_that_it_would_act_on() {
        assert_eq!(clean("a\u{1b}[2Jb\n\u{202e}c"), "a\\u{1b}[2Jb\\u{a}\\u{202e}c");
        assert_eq!(clean("größe"), "größe");
    }
}
