//! The one table that a bench prints, in Markdown.

use std::time::Duration;

/// Rows of figures, ours beside theirs.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<[String; 6]>,
}

/// What is reached if a ratio is at most this.
pub(crate) type Goal = Option<f64>;

impl Table {
    pub(crate) fn new() -> Self {
        let head = ["measure", "ours", "beside", "ratio", "goal", ""].map(str::to_owned);
        Self { rows: vec![head] }
    }

    pub(crate) fn ratio(&mut self, measure: &str, ours: String, beside: String, ratio: f64, goal: Goal) {
        let verdict = goal.map_or("", |goal| if ratio <= goal { "met" } else { "missed" });
        let goal = goal_text(goal);
        let cells = [measure, &ours, &beside, &ratio_text(ratio), &goal, verdict];
        self.rows.push(cells.map(str::to_owned));
    }

    /// A figure that is not to be more than `goal`.
    pub(crate) fn count(&mut self, measure: &str, ours: f64, beside: Option<f64>, goal: Goal) {
        let verdict = goal.map_or("", |goal| if ours <= goal { "met" } else { "missed" });
        let goal = goal_text(goal);
        let beside = beside.map(number).unwrap_or_default();
        let cells = [measure, &number(ours), &beside, "", &goal, verdict];
        self.rows.push(cells.map(str::to_owned));
    }

    /// A figure with nothing beside it.
    pub(crate) fn text(&mut self, measure: &str, ours: &str) {
        self.rows.push([measure, ours, "", "", "", ""].map(str::to_owned));
    }

    pub(crate) fn print(&self) {
        let width = |column: usize| self.rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..6).map(width).collect();
        for (number, row) in self.rows.iter().enumerate() {
            let cells = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, width))| match column {
                    1..=3 => format!(" {cell:>width$} "),
                    _ => format!(" {cell:<width$} "),
                });
            println!("|{}|", cells.collect::<Vec<_>>().join("|"));
            if number == 0 {
                let lines = widths.iter().enumerate().map(|(column, width)| match column {
                    1..=3 => format!("{}:", "-".repeat(width + 1)),
                    _ => "-".repeat(width + 2),
                });
                println!("|{}|", lines.collect::<Vec<_>>().join("|"));
            }
        }
    }
}

fn goal_text(goal: Goal) -> String {
    let text = goal.map(|goal| format!("<= {goal:.4}")).unwrap_or_default();
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn ratio_text(ratio: f64) -> String {
    // Goals near 1 need the digits.
    let digits = if (0.98..1.1).contains(&ratio) { 4 } else { 2 };
    format!("{ratio:.digits$}")
}

/// A count, with commas where it is long.
pub(crate) fn number(value: f64) -> String {
    if value < 1000.0 {
        let rounded = format!("{value:.2}");
        return rounded.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{value:.0}");
    let groups = digits.as_bytes().rchunks(3).rev();
    groups
        .map(|group| String::from_utf8_lossy(group).into_owned())
        .collect::<Vec<_>>()
        .join(",")
}

pub(crate) fn nanoseconds(value: f64) -> String {
    format!("{value:.2} ns")
}

pub(crate) fn time(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    match micros {
        ..10_000.0 => format!("{micros:.0} us"),
        ..10_000_000.0 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.1} s", micros / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_can_be_read() {
        for (value, text) in [
            (0.0, "0"),
            (1.5, "1.5"),
            (10.0, "10"),
            (999.0, "999"),
            (1000.0, "1,000"),
            (2_288_978.4, "2,288,978"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(time(Duration::from_micros(189)), "189 us");
        assert_eq!(time(Duration::from_millis(50)), "50.0 ms");
        assert_eq!(ratio_text(1.00193), "1.0019");
        assert_eq!(ratio_text(1.5), "1.50");
        assert_eq!(
            [Some(1.0 / 0.98), Some(1.1), Some(1.0), None].map(goal_text),
            ["<= 1.0204", "<= 1.1", "<= 1", ""]
        );
    }
}
