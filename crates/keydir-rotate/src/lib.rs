#![doc = include_str!("../README.md")]

mod consumer;
mod decide;
pub mod generate;
mod holding;
mod policy;
mod state;
mod step;
mod window;

pub use consumer::{Consumer, Said};
pub use decide::{Decision, Now, Observed, Reason, Step, Wait, decide};
pub use holding::{Held, Holding};
pub use policy::Policy;
pub use state::{Phase, Stage, State, StateError};
pub use step::{Parts, Set};
pub use window::{WindowError, Windows};
