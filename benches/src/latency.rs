//! P4: from the rename of `..data` to the new identity being what `load()` shows, beside everybody else.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::Work;
use crate::pki::Ca;
use crate::stats::{Dice, quantile};
use crate::subjects;
use crate::table::{Table, time};

/// What has not come by then never comes.
const LOST: Duration = Duration::from_secs(5);

pub(crate) fn bench(work: Work) {
    // Some peers use what the process has installed.
    default_provider().install_default().expect("the first");
    let ca = Ca::new("CA");
    let leaves = ["one", "two"].map(|name| {
        let leaf = ca.leaf(name);
        let der = CertificateDer::from_pem_slice(leaf.crt.as_bytes()).unwrap();
        (Arc::new(leaf), der)
    });
    let mut subjects = subjects::all(&leaves[0].0);
    let mut latencies: Vec<Vec<Duration>> = vec![Vec::new(); subjects.len()];
    let mut dice = Dice::new();
    let mut order: Vec<usize> = (0..subjects.len()).collect();
    for publication in 1..=work.of(2000) {
        let (leaf, der) = &leaves[publication % 2];
        // One at a time, so that nobody waits for another; all in each round, so that noise hits all alike.
        dice.shuffle(&mut order);
        for &index in &order {
            let (subject, kubelet) = &mut subjects[index];
            let files = subject.files(publication, leaf);
            thread::sleep(Duration::from_micros(2000 + dice.below(10_000) as u64));
            // What the clean-up told it has been dealt with; a late callback is no answer to what follows.
            subject.shows(der);
            let renamed = kubelet.publish(&files);
            subject.pull();
            while !subject.shows(der) {
                assert!(renamed.elapsed() < LOST, "{} missed a publication", subject.name());
                thread::yield_now();
            }
            latencies[index].push(Instant::now() - renamed);
            kubelet.tidy(&files);
        }
    }
    print(
        &subjects.iter().map(|(subject, _)| subject.name()).collect::<Vec<_>>(),
        latencies,
    );
}

/// The first is ours, the second what we measure ourselves by.
fn print(names: &[&str], mut latencies: Vec<Vec<Duration>>) {
    let mut table = Table::new();
    let mut figures = latencies
        .iter_mut()
        .map(|latencies| [0.5, 0.99, 1.0].map(|share| quantile(latencies, share)));
    let ours = figures.next().expect("ours");
    for (name, theirs) in names.iter().skip(1).zip(figures) {
        let goals = match *name {
            "inotify, read, parse" => [Some(1.5), None, None],
            "tls-hot-reload" => [Some(1.0), None, None],
            _ => [None; 3],
        };
        for (index, what) in ["p50", "p99", "max"].into_iter().enumerate() {
            table.ratio(
                &format!("{what}, beside {name}"),
                time(ours[index]),
                time(theirs[index]),
                ours[index].as_secs_f64() / theirs[index].as_secs_f64(),
                goals[index],
            );
        }
    }
    table.print();
}
