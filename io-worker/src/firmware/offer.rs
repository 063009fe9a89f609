//! What others' firmware is told in fw_cfg, by the names and in the forms of QEMU's pc machine.
//!
//! Offered only when there is firmware to read it: a kernel that is started without finds the same in RAM.

use quintet_protocol::ram::{HIGH_RAM_BASE, RamLayout};

use super::e820::Kind;
use super::{Machine, acpi, smbios};
use crate::fw_cfg::{FwCfg, ItemError};
use crate::storage::virtio::virtio_slot;

/// How long firmware waits before it tries again to boot, in milliseconds: for ever.
const NO_RETRY: u32 = u32::MAX;

/// Open Firmware's path of an IDE unit: 0 and 1 primary master and slave, 2 and 3 secondary ones.
pub fn ide_path(unit: u8) -> String {
    format!("/pci@i0cf8/ide@1,1/drive@{}/disk@{}", unit >> 1, unit & 1)
}

/// Open Firmware's path of a virtio block device.
pub fn virtio_path(unit: u8) -> String {
    format!("/pci@i0cf8/scsi@{:x}/disk@0,0", virtio_slot(unit).device)
}

/// Open Firmware's path of the floppy drive.
pub const FLOPPY_PATH: &str = "/pci@i0cf8/isa@1/fdc@03f0/floppy@0";

/// Offers everything about `machine` with RAM as `layout` says. `boot` are the paths of what to boot from, in order.
///
/// # Errors
/// [`ItemError`] when one of the files is there already.
pub fn offer(
    fw_cfg: &mut FwCfg,
    machine: Machine,
    layout: RamLayout,
    boot: &[String],
) -> Result<(), ItemError> {
    fw_cfg.add_file("etc/e820", ram_map(layout))?;
    acpi::linked(machine.acpi()).offer(fw_cfg)?;
    smbios::offer(fw_cfg, machine.cpus, machine.cpuid_1, layout)?;
    if !boot.is_empty() {
        fw_cfg.add_file("bootorder", (boot.join("\n") + "\0").into_bytes())?;
    }
    fw_cfg.add_file("etc/boot-fail-wait", NO_RETRY.to_le_bytes().to_vec())
}

/// The RAM there is, as address, length and kind (20 bytes each); what firmware takes of it is for firmware to say.
fn ram_map(layout: RamLayout) -> Vec<u8> {
    let mut map = Vec::new();
    for (base, len) in [(0, layout.low()), (HIGH_RAM_BASE, layout.high())] {
        if len != 0 {
            map.extend(u64::to_le_bytes(base));
            map.extend(u64::to_le_bytes(len));
            map.extend((Kind::Usable as u32).to_le_bytes());
        }
    }
    map
}

#[cfg(test)]
#[path = "offer_tests.rs"]
mod tests;
