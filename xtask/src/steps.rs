//! Steps of a longer chore: each announced and timed, all of them in a table at the end.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::Outcome;

#[derive(Debug, Default)]
pub(crate) struct Steps {
    done: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    name: &'static str,
    took: Duration,
    passed: bool,
}

impl Steps {
    /// Runs one step; if it fails, the table of the steps so far is printed.
    pub(crate) fn step(&mut self, name: &'static str, work: impl FnOnce() -> Outcome) -> Outcome {
        println!("==> {name}");
        let start = Instant::now();
        let result = work();
        let took = start.elapsed();
        println!("<== {name}: {:.1} s", took.as_secs_f64());
        self.done.push(Step {
            name,
            took,
            passed: result.is_ok(),
        });
        if result.is_err() {
            print!("{}", self.table());
        }
        result.map_err(|error| format!("step {name}: {error}"))
    }

    pub(crate) fn table(&self) -> String {
        let width = self
            .done
            .iter()
            .map(|step| step.name.len())
            .max()
            .unwrap_or_default()
            .max("total".len());
        let mut table = format!("\n{:width$}  seconds\n", "step");
        for Step { name, took, passed } in &self.done {
            let note = if *passed { "" } else { "  FAILED" };
            let _ = writeln!(table, "{name:width$}  {:7.1}{note}", took.as_secs_f64());
        }
        let total: Duration = self.done.iter().map(|step| step.took).sum();
        let _ = writeln!(table, "{:width$}  {:7.1}", "total", total.as_secs_f64());
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_each_step_and_what_failed() {
        let mut steps = Steps::default();
        steps.step("fine", || Ok(())).unwrap();
        let error = steps.step("not so fine", || Err("broken".to_owned())).unwrap_err();
        assert_eq!(error, "step not so fine: broken");
        let lines: Vec<String> = steps.table().lines().map(str::to_owned).collect();
        assert_eq!(
            lines,
            [
                "",
                "step         seconds",
                "fine             0.0",
                "not so fine      0.0  FAILED",
                "total            0.0"
            ]
        );
    }
}
