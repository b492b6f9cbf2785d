//! Transactions in sessions whose login rotates: in a pool, or in sessions that are kept one by one.

mod ledger;
mod sessions;

pub use ledger::{Ledger, LedgerError};
pub use sessions::{Kept, Kind, Sessions};
