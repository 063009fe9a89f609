//! The PCI function of a virtio block device: 1AF4:1042, revision 1 (virtio 1.2, 4.1.2), with the capabilities that say
//! where in BAR 4 its registers lie (4.1.4). No legacy interface, no MSI-X.

use std::ops::Range;

use crate::bus::{Access, Size};
use crate::pci::{BarKind, BarSpec, Bdf, ConfigSpace, FunctionSpec, WindowTarget, bdf};

/// Vendor and device.
const ID: (u16, u16) = (0x1AF4, 0x1042);

/// Most devices of the machine.
pub const UNITS: u8 = 8;
/// Slot of the first.
const FIRST_SLOT: u8 = 5;

/// Structures in BAR 4, by their offsets, each in a page of its own as QEMU's.
pub(super) const COMMON: u32 = 0x0000;
pub(super) const ISR: u32 = 0x1000;
pub(super) const DEVICE: u32 = 0x2000;
pub(super) const NOTIFY: u32 = 0x3000;
/// Bytes of BAR 4.
pub(super) const BAR_LEN: u32 = 0x4000;
/// Bytes between the notification registers of two queues.
const NOTIFY_MULTIPLIER: u32 = 4;

/// Number of the register that holds BAR 4.
const BAR: u8 = 4;
/// A vendor's capability.
const CAP_VENDOR: u8 = 0x09;
/// What a capability speaks of.
mod cfg_type {
    pub(super) const COMMON: u8 = 1;
    pub(super) const NOTIFY: u8 = 2;
    pub(super) const ISR: u8 = 3;
    pub(super) const DEVICE: u8 = 4;
    pub(super) const PCI: u8 = 5;
}
/// Where the capabilities lie in configuration space.
const CAPS: [u8; 5] = [0x40, 0x50, 0x60, 0x70, 0x84];
/// Bits of the status register: there are capabilities.
const STATUS_CAPS: u16 = 0x0010;

/// Place of the device with this number, below [`UNITS`].
pub const fn virtio_slot(unit: u8) -> Bdf {
    bdf(FIRST_SLOT + unit, 0)
}

/// Register with the data of the window into a BAR that is in configuration space (4.1.4.9).
pub const WINDOW_DATA: u8 = CAPS[4] + 16;

/// Where an access to the registers `touched` leads by that window: a device's number and a place in its region. Nowhere
/// if the function is another's, the data is not touched, or the window does not lie in BAR 4 as it must.
pub fn window(function: &ConfigSpace, touched: Range<u16>) -> Option<(u16, Access)> {
    let spec = function.spec();
    let data = u16::from(WINDOW_DATA);
    if (spec.vendor, spec.device) != ID || touched.start >= data + 4 || touched.end <= data {
        return None;
    }
    let cap = CAPS[4];
    let size = Size::new(u8::try_from(function.dword(cap + 12)).ok()?)?;
    let offset = function.dword(cap + 8);
    let fits = size <= Size::DWORD
        && offset.is_multiple_of(u32::from(size.bytes()))
        && offset.checked_add(u32::from(size.bytes()))? <= BAR_LEN;
    let target = spec.bars.first()?.target;
    match target {
        WindowTarget::Device { device, region } if function.byte(cap + 4) == BAR && fits => Some((
            device,
            Access {
                region,
                offset: u64::from(offset),
                size,
            },
        )),
        _ => None,
    }
}

/// A capability at `CAPS[n]`: offset, value and writable bits of each byte.
fn capability(n: usize, kind: u8, offset: u32, len: u32, more: &[u8]) -> Vec<(u8, u8, u8)> {
    let next = CAPS.get(n + 1).copied().unwrap_or(0);
    let window = kind == cfg_type::PCI;
    let mut bytes = vec![CAP_VENDOR, next, 16 + more.len() as u8, kind];
    bytes.extend([if window { 0 } else { BAR }, 0, 0, 0]);
    bytes.extend(offset.to_le_bytes());
    bytes.extend(len.to_le_bytes());
    bytes.extend(more);
    // Of the window, the driver says where it lies (4.1.4.9): BAR, offset, length, data.
    let writable = |i: u8| window && (i == 4 || i >= 8);
    (0..)
        .zip(bytes)
        .map(|(i, byte)| (CAPS[n] + i, byte, if writable(i) { 0xFF } else { 0 }))
        .collect()
}

/// The function; device number `device` of the machine answers at BAR 4.
pub fn virtio_blk_function(device: u16) -> FunctionSpec {
    let multiplier = NOTIFY_MULTIPLIER.to_le_bytes();
    let mut registers = vec![(0x34, CAPS[0], 0)];
    registers.extend(capability(0, cfg_type::COMMON, COMMON, 0x40, &[]));
    registers.extend(capability(1, cfg_type::ISR, ISR, 1, &[]));
    registers.extend(capability(
        2,
        cfg_type::DEVICE,
        DEVICE,
        super::CONFIG_BYTES as u32,
        &[],
    ));
    registers.extend(capability(
        3,
        cfg_type::NOTIFY,
        NOTIFY,
        NOTIFY_MULTIPLIER,
        &multiplier,
    ));
    registers.extend(capability(4, cfg_type::PCI, 0, 0, &[0; 4]));
    FunctionSpec {
        name: "virtio-blk",
        vendor: ID.0,
        device: ID.1,
        revision: 1,
        class: 0x01_0000,
        multifunction: false,
        pin: 1,
        status: STATUS_CAPS,
        command: 0x0000,
        command_mask: 0x0006,
        bars: vec![BarSpec {
            register: 0x10 + 4 * BAR,
            kind: BarKind::Memory32 { prefetchable: false },
            len: BAR_LEN,
            target: WindowTarget::Device { device, region: 0 },
        }],
        registers,
    }
}
