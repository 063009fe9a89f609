//! The memory map that firmware reports: INT 15h AX=E820h, multiboot, PVH and ACPI all speak of this one.

use core::ops::Range;

use quintet_protocol::ram::{HIGH_RAM_BASE, RamLayout};

/// Start of the extended BIOS data area, and end of conventional memory.
pub const EBDA: u64 = 0x9_FC00;
/// Start of the system BIOS: the RAM behind F0000h to FFFFFh, where our tables for the guest lie.
pub const BIOS: u64 = 0xF_0000;
/// End of the system BIOS and start of extended memory.
pub const EXTENDED: u64 = 0x10_0000;
/// I/O APIC registers.
pub const IO_APIC: u64 = 0xFEC0_0000;
/// HPET registers.
pub const HPET: u64 = 0xFED0_0000;
/// Local APIC registers.
pub const LOCAL_APIC: u64 = 0xFEE0_0000;
/// Start of the flash below 4 GiB.
pub const FLASH: u64 = 0xFFFC_0000;
/// Bytes at the end of low RAM for ACPI tables and, in the last page, for what the OS writes (FACS).
pub const ACPI_LEN: u64 = 64 << 10;
/// Bytes of that which are non-volatile storage, at its end.
pub const ACPI_NVS_LEN: u64 = 4 << 10;
/// The least RAM below 4 GiB that firmware can work with.
pub const LEAST_RAM: u64 = 2 << 20;

/// What a range is, with the numbers of ACPI 6.4 §15, table 15.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// RAM for the operating system.
    Usable = 1,
    /// In use or not RAM.
    Reserved = 2,
    /// ACPI tables, free once read.
    Acpi = 3,
    /// Memory that ACPI needs for ever.
    Nvs = 4,
}

/// One range of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// First guest physical address.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
    /// What it is.
    pub kind: Kind,
}

impl Entry {
    /// The addresses.
    pub fn range(&self) -> Range<u64> {
        self.base..self.base + self.len
    }
}

/// The map for `layout`, ascending and without overlaps. `layout` must have [`LEAST_RAM`] below 4 GiB.
pub fn map(layout: RamLayout) -> Vec<Entry> {
    let acpi = acpi_tables(layout);
    let nvs = acpi_nvs(layout);
    let mut list = vec![
        (0..EBDA, Kind::Usable),
        (EBDA..0xA_0000, Kind::Reserved),
        (BIOS..EXTENDED, Kind::Reserved),
        (EXTENDED..acpi.start, Kind::Usable),
        (acpi, Kind::Acpi),
        (nvs, Kind::Nvs),
        (IO_APIC..IO_APIC + 0x1000, Kind::Reserved),
        (HPET..HPET + 0x400, Kind::Reserved),
        (LOCAL_APIC..LOCAL_APIC + 0x1000, Kind::Reserved),
        (FLASH..HIGH_RAM_BASE, Kind::Reserved),
    ];
    list.push((HIGH_RAM_BASE..HIGH_RAM_BASE + layout.high(), Kind::Usable));
    list.into_iter()
        .filter(|(range, _)| range.start < range.end)
        .map(|(range, kind)| Entry {
            base: range.start,
            len: range.end - range.start,
            kind,
        })
        .collect()
}

/// Where the ACPI tables lie.
pub fn acpi_tables(layout: RamLayout) -> Range<u64> {
    layout.low() - ACPI_LEN..layout.low() - ACPI_NVS_LEN
}

/// Where the FACS lies.
pub fn acpi_nvs(layout: RamLayout) -> Range<u64> {
    layout.low() - ACPI_NVS_LEN..layout.low()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usable(entries: &[Entry]) -> u64 {
        entries
            .iter()
            .filter(|e| e.kind == Kind::Usable)
            .map(|e| e.len)
            .sum()
    }

    #[test]
    fn ranges_ascend_and_do_not_overlap_for_every_size() {
        for mib in [2, 16, 128, 512, 3583, 3584, 3585, 5 << 10] {
            let map = map(RamLayout::new(mib << 20));
            assert!(
                map.windows(2).all(|w| w[0].range().end <= w[1].base),
                "{mib} MiB: {map:x?}"
            );
        }
    }

    #[test]
    fn everything_but_the_pc_hole_and_the_tables_is_usable() {
        for mib in [2, 128, 5 << 10] {
            let layout = RamLayout::new(mib << 20);
            assert_eq!(
                usable(&map(layout)),
                layout.total() - (EXTENDED - EBDA) - ACPI_LEN
            );
        }
    }

    #[test]
    fn five_gib_go_on_above_4_gib_and_nothing_usable_lies_in_the_aperture() {
        let map = map(RamLayout::new(5 << 30));
        let last = map.last().expect("entries");
        assert_eq!(
            (last.base, last.len, last.kind),
            (1 << 32, (5 << 30) - 0xE000_0000, Kind::Usable)
        );
        let aperture = 0xE000_0000..1 << 32;
        assert!(
            !map.iter()
                .any(|e| e.kind == Kind::Usable && e.base < aperture.end && e.range().end > aperture.start)
        );
    }
}
