//! Devices for tests and for debugging: nothing a PC has, all of it what somebody's tests expect.

mod debugcon;
mod exit;
mod irq_source;
mod memory;
mod pc_testdev;
#[cfg(test)]
mod tests;

pub use debugcon::Debugcon;
pub use exit::DebugExit;
pub use irq_source::{IrqSource, SOURCE_PORT};
pub use memory::{BANK, BANKS, MEMORY, TestMemory};
pub use pc_testdev::{IRQ_PORT, PcTestdev, SCRATCH_PORT};
