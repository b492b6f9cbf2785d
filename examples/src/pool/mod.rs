//! Transactions in sessions whose login rotates: in a pool, or in sessions that are kept one by one.

mod ledger;
#[cfg(feature = "sqlx")]
mod of_sqlx;
mod sessions;

pub use ledger::{Doubt, Ledger, LedgerError, Session};
pub use sessions::{Kept, Kind, Sessions, census};
