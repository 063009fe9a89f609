//! PCI: the configuration mechanism, base address registers, and the functions of QEMU's pc machine.
//!
//! The vCPU's process holds the CF8h latch; accesses to CFCh–CFFh arrive with it ([`PciBus::config_read`]).
//! What the registers decide about the machine — which addresses are decoded, where interrupts go, what lies
//! below 1 MiB — is read off them afterwards ([`PciBus::windows`], [`PciBus::shadow`], [`PciBus::routing`]):
//! the registers are the only copy, so that nothing can disagree with them after a restart.

mod bar;
mod bus;
mod config;
mod i440fx;
mod piix;
mod vga;

pub use bar::{BarKind, BarSpec, SizedBar};
pub use bus::{Bdf, PciBus, PciWindow, Shadow, WindowKind, WindowTarget, bdf};
pub use config::{ConfigSpace, FunctionSpec};
pub use i440fx::i440fx;
pub use piix::{PIIX_IDE_SLOT, PIIX_PM_SLOT, piix3_ide, piix3_isa, piix4_pm, pirq_of};
pub use vga::stdvga;

#[cfg(test)]
mod tests;
