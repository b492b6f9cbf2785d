//! Any publications, one after the other: each gives a set that keeps the laws, and nothing panics or hangs.
#![no_main]

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use keydir::{Broken, Candidates, Dir, FileName, Parsed, Revision, Unusable, Usage, View};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct File<'a> {
    name: Name<'a>,
    content: &'a [u8],
}

#[derive(Arbitrary, Debug)]
enum Name<'a> {
    Likely { id: u8, part: u8, primary: bool },
    Any(&'a str),
}

impl Name<'_> {
    fn text(&self) -> String {
        match self {
            Self::Likely { id, part, primary } => {
                let id = ["r1", "r2", "R2", "r10", "2026.11.24", "r1.old"][usize::from(id % 6)];
                let part = ["key", "revoked", "note", "key", "crl", "tmp"][usize::from(part % 6)];
                format!("{id}.{part}{}", if *primary { ".primary" } else { "" })
            }
            Self::Any(name) => (*name).to_owned(),
        }
    }
}

/// The content itself, unless it begins with an exclamation mark.
struct Keys;

impl View for Keys {
    type Item = Vec<u8>;
    type Whole = usize;

    fn usage(&self) -> &Usage {
        const USAGE: Usage = Usage::new("key")
            .naming(&[&["key"]])
            .other(&["note"])
            .presents()
            .accepts();
        &USAGE
    }

    fn parse(&self, revision: &Revision<'_>) -> Result<Parsed<Vec<u8>>, Unusable> {
        match revision.need("key")? {
            [b'!', ..] => Err(Unusable::new("exclaims", "it begins with an exclamation mark")),
            key => Ok(Parsed::new(key.to_vec())),
        }
    }

    fn combine(&self, keys: &Candidates<'_, Vec<u8>>) -> Result<usize, Broken> {
        match keys.iter().filter(|(_, key)| key.ends_with(b"!")).count() {
            2.. => Err(Broken::new("two keys end with an exclamation mark")),
            _ => Ok(keys.iter().count()),
        }
    }
}

fuzz_target!(|publications: Vec<Vec<File<'_>>>| {
    let mut publications = publications.iter().map(|files| -> BTreeMap<String, Vec<u8>> {
        files
            .iter()
            .map(|file| (file.name.text(), file.content.to_vec()))
            .collect()
    });
    let dir = Dir::in_memory(publications.next().unwrap_or_default());
    let Ok(live) = dir.view(Keys) else { return };
    for files in publications {
        let names: Vec<_> = files.keys().map(|name| FileName::parse(name.as_bytes())).collect();
        dir.publish(files).unwrap();
        let set = live.load();
        for key in set.iter() {
            assert!(
                !names.contains(&FileName::Marker { id: key.id().clone() }),
                "revoked and in force"
            );
            assert!(set.state(key).is_some() && key.stands());
        }
        assert!(set.primary().is_ok(), "what was presented was given up");
        assert_eq!(*set.whole(), set.len());
        assert!(set.iter().is_sorted_by(|a, b| a.id() < b.id()));
        assert!(!format!("{:?}", dir.report()).is_empty());
    }
});
