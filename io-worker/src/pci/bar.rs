//! Base address registers: size by write-back, decode by the command register (PCI 2.1, 6.2.5).

use super::WindowTarget;

/// What a base address register asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports, at most 256.
    Io,
    /// Memory anywhere below 4 GiB.
    Memory32 {
        /// Reading has no effect, and reads may be merged.
        prefetchable: bool,
    },
    /// The expansion ROM register at 30h, whose bit 0 enables it.
    Rom,
}

/// A base address register of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarSpec {
    /// Offset in configuration space: 10h, 14h … 24h, or 30h.
    pub register: u8,
    /// Kind.
    pub kind: BarKind,
    /// Size in bytes or ports: a power of two, at least 16 (memory), 4 (ports) or 2048 (ROM).
    pub len: u32,
    /// Who answers what it decodes.
    pub target: WindowTarget,
}

/// A base address register that has been looked at: for whoever lays out the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizedBar {
    /// Offset in configuration space.
    pub register: u8,
    /// Kind.
    pub kind: BarKind,
    /// Size in bytes or ports.
    pub len: u32,
}

impl BarSpec {
    /// The read-only low bits.
    pub(super) const fn low_bits(&self) -> u32 {
        match self.kind {
            BarKind::Io => 1,
            BarKind::Memory32 { prefetchable } => (prefetchable as u32) << 3,
            BarKind::Rom => 0,
        }
    }

    /// The bits that the guest may write.
    pub(super) const fn mask(&self) -> u32 {
        let address = !(self.len - 1);
        match self.kind {
            BarKind::Rom => address | 1,
            BarKind::Io | BarKind::Memory32 { .. } => address,
        }
    }

    /// Where it decodes, given its value and the command register; `None` while it does not.
    pub(super) fn decodes(&self, value: u32, command: u16) -> Option<u64> {
        let enabled = match self.kind {
            BarKind::Io => command & 1 != 0,
            BarKind::Memory32 { .. } => command & 2 != 0,
            BarKind::Rom => command & 2 != 0 && value & 1 != 0,
        };
        let base = u64::from(value & !(self.len - 1));
        // A base of zero is how firmware leaves a register that it could not place; the top of the space is
        // where the sizing write of all ones puts it for a moment.
        let placed = base != 0 && base + u64::from(self.len) < 1 << 32;
        let fits = !matches!(self.kind, BarKind::Io) || base + u64::from(self.len) <= 0x1_0000;
        (enabled && placed && fits).then_some(base)
    }
}
