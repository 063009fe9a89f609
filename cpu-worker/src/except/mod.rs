//! Exceptions and interrupts: delivery, task switches, debug traps.

pub(crate) mod debug;
mod deliver;
mod descriptor;
mod task;

pub(crate) use debug::armed;
pub(crate) use deliver::{Source, width_mask};
pub(crate) use descriptor::{Descriptor, selector_code};
pub(crate) use task::Switch;
