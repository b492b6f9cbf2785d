#![doc = include_str!("../README.md")]

mod anchors;
mod clock;
mod composite;
mod consumer;
mod decide;
mod decision;
pub mod generate;
mod holding;
mod judge;
mod observed;
mod policy;
mod report;
mod source;
mod state;
mod step;
mod store;
mod window;

// What makes something needs the cryptography of one of these features.
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod keeper;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod make;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod rotator;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod seen;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod settings;

pub use anchors::decide_anchors;
pub use clock::Clocks;
pub use composite::{Known, Role, links};
pub use consumer::{Consumer, Said};
pub use decide::decide;
pub use decision::{Decision, Reason, Step, Wait};
pub use holding::{Held, Holding};
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
pub use keeper::{Event, Keeper, Status};
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
pub use make::{Make, MakeError, Program};
pub use observed::{Links, Now, Observed};
pub use policy::Policy;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
pub use rotator::{Look, Preview, RotateError, Rotator, Situation};
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
pub use settings::{Directory, Settings, SettingsError};
pub use source::Source;
pub use state::{Phase, Stage, State, StateError};
pub use step::{Parts, Set};
pub use store::{LocalStore, Store, StoreError};
pub use window::{WindowError, Windows};
