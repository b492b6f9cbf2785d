//! What a layer adds to a request.

use crate::Work;
use crate::table::Table;

pub(super) fn bench(_: Work, _: &mut Table) {}

pub(super) fn inside(_: &[&str]) {}
