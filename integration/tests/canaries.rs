//! R5 for the core: whatever happens to a secret, none of its bytes stands in an error, a problem, an event, a report
//! or a `Debug` text. All of it is printed here, and searched at once; the run searches its whole output again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use keydir::{Dir, Publisher, Secret, uses};
use keydir_integration::views::{AnyUse, Bad, Tokens};
use keydir_integration::{Entry, Tree, never_to_be_printed};

/// What was printed so far.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn files(secret: &str) -> BTreeMap<String, Entry> {
    let mut files = BTreeMap::new();
    for usage in uses::ALL {
        for part in usage.parts() {
            files.insert(
                format!("r1.{part}.primary"),
                Entry::File(format!("{secret}\n{part}").into_bytes()),
            );
            files.insert(format!("{part}-only.{part}"), Entry::from(secret));
        }
    }
    files
}

#[test]
fn no_byte_of_a_secret_stands_in_any_output() {
    let secret = "canary-of-the-core-6fe1c2b09a";
    never_to_be_printed(secret);
    let mut log = Log::default();
    let events = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::TRACE);
    subscriber.with_writer(move || events.clone()).init();

    let mut tree = Tree::new();
    for broken in [false, true] {
        let mut all = files(secret);
        if broken {
            all.values_mut()
                .for_each(|entry| *entry = Entry::File([secret.as_bytes(), b"\0\n\n"].concat()));
        }
        tree.publish(&all);
        let dir = Dir::builder(tree.path()).allow_empty().open().unwrap();
        for usage in uses::ALL {
            let live = dir.view(AnyUse::named(usage.name())).unwrap();
            writeln!(log, "{live:?} {:?} {:?}", live.snapshot(), live.primary()).unwrap();
            writeln!(log, "{:?} {:?}", live.load().problems(), live.subscribe()).unwrap();
            let strict = Dir::open(tree.path()).unwrap().view(AnyUse::named(usage.name()));
            if let Err(error) = strict {
                writeln!(log, "{error} {error:?}").unwrap();
            }
        }
        let report = serde_json::to_string_pretty(&keydir::report()).unwrap();
        writeln!(log, "{dir:?} {:?} {report}", dir.problems()).unwrap();
        writeln!(log, "{}", keydir::report().prometheus()).unwrap();
    }

    let bad = Dir::in_memory([("r1.token.primary", secret)])
        .view(Tokens {
            bad: Bad::PanicsInParse,
        })
        .unwrap();
    bad.dir().publish([("r1.token.primary", format!("!{secret}"))]).unwrap();
    writeln!(log, "{:?} {:?}", bad.load().problems(), Secret::from(secret)).unwrap();

    let mut publisher = Publisher::open(tree.path()).unwrap();
    let current = publisher.current().unwrap();
    let mut wrong = current.clone();
    wrong.insert("r1.key.tmp".to_owned(), secret.into());
    let error = publisher.publish(&wrong).unwrap_err();
    writeln!(log, "{publisher:?} {current:?} {error} {error:?}").unwrap();

    let printed = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    println!("{printed}");
    assert!(
        printed.len() > 10_000,
        "next to nothing was printed: {} bytes",
        printed.len()
    );
    assert!(printed.contains("loaded") && printed.contains("unusable"));
    // Whole or in part; a control that would be found.
    assert!(!printed.contains(&secret[7..17]), "a secret was printed");
    assert!(printed.contains("r1.key.tmp"));
}
