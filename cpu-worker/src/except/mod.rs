//! Exceptions and interrupts: delivery, task switches, debug traps.

mod debug;
mod deliver;
