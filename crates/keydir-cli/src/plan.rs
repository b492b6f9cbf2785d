//! The next set of files, made of the current one and of what was asked for; or why it is refused.
//!
//! Pure, and about names and bytes only. What the sets mean to readers is judged by the library afterwards.

use std::collections::{BTreeMap, BTreeSet};

use keydir::{FileName, Files, RevisionId, Secret, Usage, uses as known};

use crate::listing::{Listed, Listing, ROTATION};
use crate::uses;

const MAX_FILE: usize = 1 << 20;

/// What was asked for.
#[derive(Debug, Default)]
pub(crate) struct Request<'a> {
    pub(crate) add: Files,
    pub(crate) remove: &'a [String],
    pub(crate) revoke: &'a [String],
    pub(crate) promote: Option<&'a str>,
    pub(crate) replace: bool,
    pub(crate) force: bool,
}

/// The next set, and what its author should know.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) files: Files,
    pub(crate) warnings: Vec<String>,
    /// Every reason for which it is not to be published.
    pub(crate) refused: Vec<String>,
}

/// Makes the plan. `strays` are names in the current set that cannot be published again.
pub(crate) fn plan(current: &Files, strays: &[String], request: &Request<'_>) -> Plan {
    let mut plan = Plan::default();
    if !request.replace {
        plan.files.clone_from(current);
        plan.remove(strays, request.remove);
    }
    for (name, content) in &request.add {
        plan.add(name, content);
    }
    for id in request.revoke {
        plan.revoke(id, request.force);
    }
    if let Some(id) = request.promote {
        plan.promote(id, !holds(current, id));
    }
    plan.check_names();
    plan.check_marks(request.force);
    if !request.force {
        plan.check_ids(current);
    }
    plan
}

impl Plan {
    fn refuse(&mut self, reason: String) {
        self.refused.push(reason);
    }

    fn remove(&mut self, strays: &[String], names: &[String]) {
        for name in names {
            let of_id: Vec<String> = self
                .files
                .keys()
                .filter(|file| is_file_of(file, name))
                .cloned()
                .collect();
            if self.files.remove(name).is_some() || strays.contains(name) {
                continue;
            }
            if of_id.is_empty() {
                let reason = format!("--remove {name}: the current set has no file and no revision of this name");
                self.refuse(reason);
            }
            for file in of_id {
                self.files.remove(&file);
            }
        }
        for stray in strays.iter().filter(|stray| !names.contains(stray)) {
            self.refuse(format!(
                "{stray} is in the current set, but is no name of the convention, so it cannot be published again: \
                 --remove {stray} if it may go"
            ));
        }
    }

    fn add(&mut self, name: &str, content: &Secret) {
        let other = match FileName::parse(name.as_bytes()) {
            FileName::File { primary: true, .. } => name.strip_suffix(".primary").map(str::to_owned),
            FileName::File { .. } => Some(format!("{name}.primary")),
            FileName::Marker { .. } => None,
            FileName::Hidden if name == ROTATION => None,
            FileName::Hidden | FileName::Stray { .. } => {
                return self.refuse(format!(
                    "{name} is no name of the convention: <revision>.<part>, <revision>.<part>.primary or \
                     <revision>.revoked, where no label of the revision is the name of a part"
                ));
            }
        };
        if content.expose().len() > MAX_FILE {
            return self.refuse(format!(
                "{name} has more than {MAX_FILE} bytes: readers would refuse it"
            ));
        }
        if let Some(other) = other.filter(|other| self.files.contains_key(other)) {
            return self.refuse(format!(
                "{name}: {other} is there already, and with both readers would take neither; --promote moves a mark"
            ));
        }
        self.files.insert(name.to_owned(), content.clone());
    }

    fn revoke(&mut self, id: &str, force: bool) {
        let Ok(parsed) = id.parse::<RevisionId>() else {
            return self.refuse(format!("--revoke {id}: that is no revision's id"));
        };
        if !holds(&self.files, id) && !force {
            return self.refuse(format!(
                "--revoke {id}: the set has no revision of this id; --force publishes the marker all the same"
            ));
        }
        self.files.insert(format!("{parsed}.revoked"), Secret::new(Vec::new()));
    }

    fn promote(&mut self, id: &str, is_new: bool) {
        let listing = Listing::of_names(self.files.keys().map(String::as_str));
        let listed = id
            .parse::<RevisionId>()
            .ok()
            .and_then(|id| listing.revisions.get(&id).cloned());
        let Some(listed) = listed.filter(|listed| !listed.files.is_empty()) else {
            return self.refuse(format!(
                "--promote {id}: the set has no revision of this id: stage it first"
            ));
        };
        if listed.revoked {
            return self.refuse(format!(
                "--promote {id}: it is revoked by its marker, so its mark would mean nothing"
            ));
        }
        let mut old_part = None;
        for (other, others) in &listing.revisions {
            for name in others.files.iter().filter(|_| *other != *id) {
                if let Some(unmarked) = name.strip_suffix(".primary") {
                    old_part = unmarked.rsplit_once('.').map(|(_, part)| part.to_owned());
                    self.rename(name, unmarked);
                }
            }
        }
        if is_new {
            self.warnings.push(format!(
                "{id} is staged and promoted in one publication: whoever has not read it yet cannot accept what is \
                 made with it"
            ));
        }
        if listed.marked {
            return;
        }
        // Any file would do; the one of the part that bore the mark before is what people expect.
        let wanted = old_part.filter(|part| listed.parts.contains(part));
        let naming = known::ALL
            .iter()
            .flat_map(Usage::parts)
            .find(|part| listed.parts.contains(*part));
        let part = wanted
            .or_else(|| naming.map(str::to_owned))
            .or_else(|| listed.parts.first().cloned());
        if let Some(part) = part {
            let name = format!("{id}.{part}");
            self.rename(&name, &format!("{name}.primary"));
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        if let Some(content) = self.files.remove(from) {
            self.files.insert(to.to_owned(), content);
        }
    }

    fn listing(&self) -> Listing {
        Listing::of_names(self.files.keys().map(String::as_str))
    }

    fn check_names(&mut self) {
        let mut by_case: BTreeMap<String, BTreeSet<RevisionId>> = BTreeMap::new();
        for id in self.listing().revisions.into_keys() {
            by_case.entry(id.as_str().to_ascii_lowercase()).or_default().insert(id);
        }
        for ids in by_case.into_values().filter(|ids| ids.len() > 1) {
            let ids: Vec<_> = ids.iter().map(RevisionId::as_str).collect();
            self.refuse(format!("the ids {} differ only in case: rename one", ids.join(" and ")));
        }
    }

    fn check_marks(&mut self, force: bool) {
        let listing = self.listing();
        let marked: Vec<&RevisionId> = listing.marked().collect();
        if marked.len() < 2 {
            return;
        }
        let shown: Vec<_> = marked.iter().map(|id| id.as_str()).collect();
        let shown = shown.join(", ");
        let is_candidate = |usage: &Usage, id: &&RevisionId| {
            let listed = listing.revisions.get(*id);
            listed.is_some_and(|listed| uses::is_candidate(usage, listed))
        };
        let clash = known::ALL
            .iter()
            .find(|usage| usage.has_primary() && marked.iter().filter(|id| is_candidate(usage, id)).count() > 1);
        match clash {
            Some(usage) => self.refuse(format!(
                "{shown} would be marked, and as {} only one may be: stage without the mark, and --promote ID moves it",
                usage.name()
            )),
            None if force => {}
            None => self.refuse(format!(
                "{shown} would be marked, for different uses, and a publication marks at most one: give each use a \
                 directory of its own (--force allows it)"
            )),
        }
    }

    /// An id never stands for other content.
    fn check_ids(&mut self, current: &Files) {
        let (old, new) = (Listing::of_names(current.keys().map(String::as_str)), self.listing());
        for (id, listed) in &old.revisions {
            let Some(now) = new.revisions.get(id) else { continue };
            let differs = |usage: &&Usage| {
                let both = [listed, now].map(unrevoked);
                both.iter().all(|listed| uses::is_candidate(usage, listed))
                    && content(usage, id, current) != content(usage, id, &self.files)
            };
            if known::ALL.iter().any(|usage| differs(&usage)) {
                self.refused.push(format!(
                    "{id} would stand for other content than before: publish it under a new id (--force allows it)"
                ));
            }
        }
    }
}

fn unrevoked(listed: &Listed) -> Listed {
    Listed {
        revoked: false,
        ..listed.clone()
    }
}

fn holds(files: &Files, id: &str) -> bool {
    files.keys().any(|name| is_file_of(name, id))
}

fn is_file_of(name: &str, id: &str) -> bool {
    matches!(FileName::parse(name.as_bytes()), FileName::File { id: of, .. } if of == *id)
}

/// What makes a revision the same or another for a use: its parts without the `crl`, whatever the mark.
fn content<'a>(usage: &Usage, id: &RevisionId, files: &'a Files) -> BTreeMap<String, &'a Secret> {
    let parts: BTreeSet<&str> = usage.parts().filter(|part| *part != "crl").collect();
    files
        .iter()
        .filter_map(|(name, content)| match FileName::parse(name.as_bytes()) {
            FileName::File { id: of, part, .. } if of == *id && parts.contains(&*part) => {
                Some((part.to_string(), content))
            }
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &str) -> Files {
        let names = names.split(' ').filter(|name| !name.is_empty());
        names
            .map(|name| match name.split_once('=') {
                Some((name, content)) => (name.to_owned(), Secret::from(content)),
                None => (name.to_owned(), Secret::from(name.trim_end_matches(".primary"))),
            })
            .collect()
    }

    #[derive(Default)]
    struct Asked<'a> {
        add: &'a str,
        remove: &'a str,
        revoke: &'a str,
        promote: Option<&'a str>,
        replace: bool,
        force: bool,
    }

    /// The names of the next set, or the first reason against it.
    fn planned(current: &str, asked: &Asked<'_>) -> Result<String, String> {
        let list = |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
        let (remove, revoke) = (list(asked.remove), list(asked.revoke));
        let request = Request {
            add: files(asked.add),
            remove: &remove,
            revoke: &revoke,
            promote: asked.promote,
            replace: asked.replace,
            force: asked.force,
        };
        let strays: Vec<String> = current
            .split(' ')
            .filter(|name| name.ends_with(".bak"))
            .map(str::to_owned)
            .collect();
        let current: Vec<&str> = current.split(' ').filter(|name| !name.ends_with(".bak")).collect();
        let plan = plan(&files(&current.join(" ")), &strays, &request);
        match plan.refused.into_iter().next() {
            Some(reason) => Err(reason),
            None => Ok(plan.files.into_keys().collect::<Vec<_>>().join(" ")),
        }
    }

    #[test]
    fn a_rotation_moves_in_three_publications() {
        let stage = Asked {
            add: "r2.crt r2.key",
            ..Asked::default()
        };
        let staged = planned("r1.crt r1.key.primary", &stage).unwrap();
        assert_eq!(staged, "r1.crt r1.key.primary r2.crt r2.key");
        let promote = Asked {
            promote: Some("r2"),
            ..Asked::default()
        };
        let promoted = planned(&staged, &promote).unwrap();
        assert_eq!(promoted, "r1.crt r1.key r2.crt r2.key.primary");
        let retire = Asked {
            remove: "r1",
            ..Asked::default()
        };
        assert_eq!(planned(&promoted, &retire).unwrap(), "r2.crt r2.key.primary");
    }

    #[test]
    fn what_is_removed_is_a_file_or_else_a_revision() {
        for (current, remove, expected) in [
            ("2026.11 2026.11.key r1.key", "2026.11", Ok("2026.11.key r1.key")),
            (
                "2026.11.key 2026.11.revoked r1.key",
                "2026.11",
                Ok("2026.11.revoked r1.key"),
            ),
            ("r1.revoked r1.key", "r1.revoked", Ok("r1.key")),
            ("r1.key", "r2", Err("no file and no revision")),
            ("r1.key notes.bak", "notes.bak", Ok("r1.key")),
            ("r1.key notes.bak", "", Err("notes.bak is in the current set")),
        ] {
            let asked = Asked {
                remove,
                ..Asked::default()
            };
            check(planned(current, &asked), expected, current);
        }
    }

    #[test]
    fn what_readers_would_not_take_is_refused() {
        for (current, add, expected) in [
            ("", "r1.key.tmp", Err("r1.key.tmp is no name")),
            ("", ".hidden", Err("is no name")),
            ("", "r1.KEY", Err("is no name")),
            ("R1.key", "r1.key", Err("differ only in case")),
            ("r1.key", "r1.key=other", Err("other content than before")),
            ("r1.key", "r1.key", Ok("r1.key")),
            ("r1.key.primary", "r1.key", Err("is there already")),
            ("r1.key", "r1.key.primary", Err("is there already")),
            ("r1.key.primary", "r2.key.primary", Err("as symmetric only one")),
            ("r1.key.primary", "p1.password.primary", Err("for different uses")),
            ("r1.password", "r1.username", Err("other content than before")),
            ("c1.crt", "c1.crl", Ok("c1.crl c1.crt")),
            ("c1.crt c1.crl=old", "c1.crl=new", Ok("c1.crl c1.crt")),
            ("c1.crt", "c1.key", Ok("c1.crt c1.key")),
            (".rotation.json", ".rotation.json={}", Ok(".rotation.json")),
        ] {
            let asked = Asked {
                add,
                ..Asked::default()
            };
            check(planned(current, &asked), expected, add);
        }
    }

    #[test]
    fn force_allows_what_can_be_meant() {
        for (current, asked, expected) in [
            ("r1.key", "r1.key=other", Ok("r1.key")),
            (
                "r1.key.primary",
                "p1.password.primary",
                Ok("p1.password.primary r1.key.primary"),
            ),
            ("r1.key.primary", "r2.key.primary", Err("only one")),
            ("", "r1.key.tmp", Err("is no name")),
        ] {
            let asked = Asked {
                add: asked,
                force: true,
                ..Asked::default()
            };
            check(planned(current, &asked), expected, asked.add);
        }
    }

    #[test]
    fn marks_and_markers() {
        for (current, revoke, promote, expected) in [
            (
                "r1.key.primary r2.key",
                "r1",
                Some("r2"),
                Ok("r1.key r1.revoked r2.key.primary"),
            ),
            ("r1.key.primary", "r1", None, Ok("r1.key.primary r1.revoked")),
            ("r1.key.primary", "r2", None, Err("no revision of this id")),
            ("r1.key.primary", "r+2", None, Err("no revision's id")),
            ("r1.key", "r1", Some("r1"), Err("revoked by its marker")),
            ("r1.key.primary", "", Some("r2"), Err("stage it first")),
            ("r1.key.primary", "", Some("r1"), Ok("r1.key.primary")),
            (
                "a.key b.crt.primary b.key",
                "",
                Some("a"),
                Ok("a.key.primary b.crt b.key"),
            ),
        ] {
            let asked = Asked {
                revoke,
                promote,
                ..Asked::default()
            };
            check(planned(current, &asked), expected, current);
        }
    }

    #[test]
    fn replacing_takes_only_what_is_given() {
        let asked = Asked {
            add: "r2.key.primary",
            replace: true,
            ..Asked::default()
        };
        assert_eq!(planned("r1.key.primary x.bak", &asked).unwrap(), "r2.key.primary");
    }

    fn check(found: Result<String, String>, expected: Result<&str, &str>, case: &str) {
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{case}"),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{case}: {found}"),
            (found, _) => panic!("{case}: {found:?}"),
        }
    }
}
