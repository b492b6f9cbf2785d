//! The commands, one file each: what acts.

pub(crate) mod check;
pub(crate) mod ls;
pub(crate) mod order;
pub(crate) mod publish;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod watch;
