//! The report as Prometheus reads it.

use super::Report;
use super::series::{Kind, families};

impl Report {
    /// The report in Prometheus's text format (version 0.0.4: serve it as `text/plain; version=0.0.4`).
    ///
    /// | name | labels | value |
    /// |---|---|---|
    /// | `keydir_directory_fault` | | 1 while the directory cannot be read |
    /// | `keydir_directory_checked_timestamp_seconds` | | when it was last seen as it is |
    /// | `keydir_directory_loaded_timestamp_seconds` | | when a publication was last loaded |
    /// | `keydir_loads_total` | `outcome`: `ok`, `unchanged`, `fault` | looks at it |
    /// | `keydir_problems` | `use` (none: names and files), `severity` | how many there are now |
    /// | `keydir_generation` | `use` | the publication that is loaded, counted |
    /// | `keydir_publication_info` | `use`, `publication` | 1; the id that its writer gave |
    /// | `keydir_adopted` | `use` | 0 if something of it is held or set aside |
    /// | `keydir_primary_problem` | `use`, `reason` | 1 if what is marked is not simply presented |
    /// | `keydir_revocations_total` | `use` | revisions revoked since the set was opened |
    /// | `keydir_revision_in_force`, `_primary`, `_held`, `_pending` | `use`, `revision` | 1 or 0 |
    /// | `keydir_revision_not_after_timestamp_seconds` | `use`, `revision`, `primary` | the first end of a validity in it |
    /// | `keydir_revision_uses` | `use`, `revision` | what rests on it now |
    /// | `keydir_revision_last_use_timestamp_seconds` | `use`, `revision` | when it was last used |
    ///
    /// All have the label `directory`: the path as it was given, with U+FFFD for what is not UTF-8. Times are seconds
    /// since 1970, so `keydir_revision_not_after_timestamp_seconds - time()` is what is left. Where directories are
    /// open twice on one path, or a use twice on one directory, counts and uses are sums, and otherwise the worse
    /// value stands.
    ///
    /// With the feature `metrics` the recorder of the facade `metrics` is told the same series at the end of each look
    /// at a directory; uses are then as old as the last poll. There, what is gone is set to 0, or to NaN if it is a
    /// time, a generation or an adoption, and of two directories on one path the last to be looked at has the gauges.
    ///
    /// Names and labels are in a fixed order. A thousand directories take tens of milliseconds, so build it off any async
    /// executor.
    ///
    /// ```
    /// let dir = keydir::Dir::in_memory([("r1.token.primary", "one")]);
    /// let text = keydir::report().prometheus();
    /// assert!(text.contains(r#"keydir_loads_total{directory="(memory)",outcome="ok"} "#));
    /// # drop(dir);
    /// ```
    pub fn prometheus(&self) -> String {
        let mut text = String::new();
        for (name, family) in families(&self.directories) {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Amount | Kind::Any | Kind::Least | Kind::Latest => "gauge",
            };
            text.extend(["# HELP ", name, " ", family.help, "\n# TYPE ", name, " ", kind, "\n"]);
            for (labels, value) in &family.samples {
                text.push_str(name);
                let mut separator = "{";
                for (label, value) in labels {
                    text.extend([separator, label, "=\""]);
                    escape(value, &mut text);
                    text.push('"');
                    separator = ",";
                }
                text.extend(["} ", &value.to_string(), "\n"]);
            }
        }
        text
    }
}

fn escape(value: &str, text: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}
