//! Pools whose sessions follow the login.

#[cfg(feature = "bb8")]
mod bb8;
#[cfg(feature = "deadpool")]
mod deadpool;
mod leased;
mod sweeper;
mod turnover;

#[cfg(feature = "bb8")]
pub use self::bb8::{Bb8Error, Bb8Manager, Sweeper};
#[cfg(feature = "deadpool")]
pub use self::deadpool::DeadpoolManager;
pub use self::leased::Leased;
