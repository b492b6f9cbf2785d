//! P9, P10: logins and pools over a real PostgreSQL, beside tokio-postgres and the pools without keydir. The server is
//! the bench's own, of the kind that the tests start.

mod checkout;
mod connect;
mod gone;
mod place;
mod pool;
mod refused;
mod rotation;
#[allow(dead_code, reason = "there is more that only the tests need")]
#[path = "../../crates/keydir-postgres/tests/postgres/server.rs"]
mod server;

use tokio::runtime::{Builder, Runtime};

use crate::Work;
use crate::table::Table;

pub(crate) fn bench(work: Work) {
    let mut table = Table::new();
    checkout::bench(work, &mut table);
    connect::bench(work, &mut table);
    refused::bench(work, &mut table);
    rotation::bench(work, &mut table);
    gone::bench(work, &mut table);
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
        ["checkout", rest @ ..] => checkout::inside(rest),
        ["connect", rest @ ..] => connect::inside(rest),
        _ => panic!("no such part: {arguments:?}"),
    }
}

/// All in one thread, whose time can be taken and whose instructions can be counted.
fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn all_threads() -> Runtime {
    Builder::new_multi_thread().enable_all().build().unwrap()
}
