//! P8: requests through keydir's client and layers, beside plain hyper-util and tower. What is counted is in one thread,
//! over pipes in memory, so that there is nothing else; what is timed goes over TCP. And what wrong passwords cost
//! everybody else.

mod layers;
mod passwords;
mod requests;

use tokio::runtime::Runtime;

use crate::Work;
use crate::table::Table;

pub(crate) fn bench(work: Work) {
    let mut table = Table::new();
    requests::bench(work, &mut table);
    layers::bench(work, &mut table);
    passwords::bench(work, &mut table);
    table.print();
}

/// What is counted. Its name must be in no other's, closures included, or callgrind would stop there.
#[inline(never)]
fn counted(runtime: &Runtime, work: impl Future<Output = ()>) {
    runtime.block_on(work);
}

/// What runs inside callgrind.
pub(crate) fn inside(arguments: &[&str]) {
    match arguments {
        ["requests", rest @ ..] => requests::inside(rest),
        ["layers", rest @ ..] => layers::inside(rest),
        _ => panic!("no such part: {arguments:?}"),
    }
}
