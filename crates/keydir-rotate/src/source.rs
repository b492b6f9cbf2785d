//! Hearing consumers: where their reports are, and what they say.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::Deserialize;

use crate::consumer::{Consumer, Said};
use crate::report::MOST;

/// Where a consumer's report is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Source {
    /// Its name, for people.
    pub name: String,
    /// The file that it writes `keydir::report()` to, as JSON.
    pub report: PathBuf,
    /// The directory's path as the consumer has opened it, where that is another.
    #[serde(default)]
    pub directory: Option<String>,
}

impl Source {
    /// What the consumer says of the directory at this path; and why nothing, where it says nothing.
    pub fn hear(&self, path: &Path) -> (Consumer, Option<String>) {
        let path = path.display().to_string();
        let path = self.directory.as_deref().unwrap_or(&path);
        let said = self.read(path);
        let trouble = said
            .as_ref()
            .err()
            .map(|reason| format!("{}: {reason}", self.report.display()));
        let consumer = Consumer {
            name: self.name.clone(),
            said: said.ok(),
        };
        (consumer, trouble)
    }

    fn read(&self, path: &str) -> Result<Said, String> {
        let mut json = Vec::new();
        // A FIFO would be waited for without end, and be it only to open it.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::open(&self.report, flags, Mode::empty())
            .map_err(|error| format!("the report cannot be opened: {}", std::io::Error::from(error)))?;
        let file = File::from(file);
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err("the report is no regular file".to_owned());
        }
        let read = file.take(MOST + 1).read_to_end(&mut json);
        read.map_err(|error| format!("the report cannot be read: {error}"))?;
        if json.len() as u64 > MOST {
            return Err(format!("the report has more than {MOST} bytes"));
        }
        Said::of_report(&json, path).map_err(|reason| reason.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let report = folder.path().join("report");
        let made = std::process::Command::new("mkfifo").arg(&report).status();
        assert!(made.unwrap().success());
        let source = Source {
            name: "api".to_owned(),
            report,
            directory: None,
        };
        let (sender, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(source.hear(Path::new("/a"))).is_ok());
        let (consumer, trouble) = heard.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
        assert_eq!(consumer.said, None);
        assert!(trouble.unwrap().contains("no regular file"));
    }
}
