//! The commands, one file each: what acts.

pub(crate) mod check;
pub(crate) mod ls;
pub(crate) mod publish;
pub(crate) mod watch;
