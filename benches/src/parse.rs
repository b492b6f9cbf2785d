//! P5: loading 10,000 revisions, beside a plain loop that reads and parses the same files.

use std::collections::HashMap;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keydir::{Broken, Candidates, Dir, Parsed, Revision, Unusable, Usage, View, uses};
use keydir_rustls::{Identity, IdentityKey};
use rustix::time::ClockId;
use rustls::crypto::aws_lc_rs::default_provider;

use crate::Work;
use crate::kubelet::{Files, Kubelet};
use crate::pki::{Ca, Leaf};
use crate::stats::{computed, median};
use crate::subjects::read_pair;
use crate::table::{Table, time};

const REVISIONS: usize = 10_000;
const ROUNDS: usize = 11;

struct Tokens;

impl View for Tokens {
    type Item = String;
    type Whole = ();

    fn usage(&self) -> &Usage {
        const USAGE: Usage = uses::TOKEN;
        &USAGE
    }

    fn parse(&self, revision: &Revision<'_>) -> Result<Parsed<String>, Unusable> {
        Ok(Parsed::new(revision.text("token")?.to_owned()))
    }

    fn combine(&self, _: &Candidates<'_, String>) -> Result<(), Broken> {
        Ok(())
    }
}

pub(crate) fn bench(work: Work) {
    default_provider().install_default().expect("the first");
    let revisions = work.of(REVISIONS);
    let mut table = Table::new();
    let what = format!("{revisions} tokens");
    compare(&mut table, &what, &tokens(revisions), plain_tokens, |path| {
        let live = Dir::open(path).unwrap().view(Tokens).unwrap();
        live.load().len()
    });
    compare(
        &mut table,
        &format!("{revisions} TLS identities"),
        &identities(revisions),
        plain_identities,
        |path| {
            let identity = Identity::open(path).unwrap();
            identity
                .live()
                .load()
                .iter()
                .filter(|key| !<IdentityKey>::certificates(key).is_empty())
                .count()
        },
    );
    table.print();
}

fn compare(
    table: &mut Table,
    what: &str,
    files: &Files,
    plain: impl Fn(&Path) -> usize,
    ours: impl Fn(&Path) -> usize,
) {
    let kubelet = Kubelet::with(files);
    let expected = plain(kubelet.path());
    let mut figures: [Vec<f64>; 6] = Default::default();
    for _ in 0..ROUNDS {
        let [ours, plain] = [&ours as &dyn Fn(&Path) -> usize, &plain].map(|load| {
            let (begun, clock) = (Instant::now(), computed(ClockId::ProcessCPUTime));
            assert_eq!(black_box(load(kubelet.path())), expected);
            let clock = computed(ClockId::ProcessCPUTime) - clock;
            [begun.elapsed().as_secs_f64(), clock.as_secs_f64()]
        });
        let round = [
            ours[0],
            plain[0],
            ours[0] / plain[0],
            ours[1],
            plain[1],
            ours[1] / plain[1],
        ];
        for (figures, figure) in figures.iter_mut().zip(round) {
            figures.push(figure);
        }
    }
    let figures = figures.map(|mut figures| median(&mut figures));
    for (kind, [ours, plain, ratio]) in [
        ("elapsed", [figures[0], figures[1], figures[2]]),
        ("computed", [figures[3], figures[4], figures[5]]),
    ] {
        let [ours, plain] = [ours, plain].map(|seconds| time(Duration::from_secs_f64(seconds)));
        let measure = format!("{what}, {kind}");
        table.ratio(&measure, ours, plain, ratio, Some(1.5));
    }
}

fn mark(revision: usize) -> &'static str {
    if revision == 0 { ".primary" } else { "" }
}

fn tokens(revisions: usize) -> Files {
    let file = |n| {
        (
            format!("r{n}.token{}", mark(n)),
            format!("token-number-{n}-{:032x}\n", n * 0x9e37_79b9),
        )
    };
    (0..revisions).map(file).collect()
}

fn plain_tokens(path: &Path) -> usize {
    let mut tokens: HashMap<String, String> = HashMap::new();
    for entry in fs::read_dir(path.join("..data")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let Some((id, "token" | "token.primary")) = name.split_once('.') else {
            continue;
        };
        let text = fs::read_to_string(entry.path()).unwrap();
        let token = text.strip_suffix('\n').unwrap_or(&text);
        tokens.insert(id.to_owned(), token.to_owned());
    }
    black_box(&tokens).len()
}

fn identities(revisions: usize) -> Files {
    let ca = Ca::new("CA");
    // To make them takes longer than to read them.
    let leaves: Vec<Arc<Leaf>> = (0..100).map(|n| Arc::new(ca.leaf(&format!("leaf {n}")))).collect();
    let pair = |n: usize| {
        let leaf = &leaves[n % leaves.len()];
        [
            (format!("r{n}.crt{}", mark(n)), leaf.crt.clone()),
            (format!("r{n}.key"), leaf.key.clone()),
        ]
    };
    (0..revisions).flat_map(pair).collect()
}

fn plain_identities(path: &Path) -> usize {
    let data = path.join("..data");
    let mut identities = HashMap::new();
    for entry in fs::read_dir(&data).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let Some((id, "crt" | "crt.primary")) = name.split_once('.') else {
            continue;
        };
        let key = data.join(format!("{id}.key"));
        identities.insert(id.to_owned(), Arc::new(read_pair(&entry.path(), &key)));
    }
    black_box(&identities).len()
}
