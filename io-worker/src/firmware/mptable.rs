//! The MultiProcessor Specification 1.4 tables, for kernels that do not read ACPI (or are told not to).
//!
//! Interrupt lines here and in ACPI's MADT and `_PRT` say the same; a test compares them.

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::ram::{GuestRam, RamError};

use super::e820;
use super::pci_setup::{PIRQ_IRQS, pirq_of};

/// Where the floating pointer lies: in the BIOS segment, on a paragraph.
pub const POINTER: u64 = 0xF_0200;
/// Where the configuration table lies.
const TABLE: u64 = 0xF_0220;
/// Table addresses end where the GDT begins.
const TABLE_END: u64 = super::state::GDT;
const BUS_PCI: u8 = 0;
const BUS_ISA: u8 = 1;
/// ID of the I/O APIC, in a space of its own since the xAPIC; 0 as its ID register says after reset.
const IO_APIC_ID: u8 = 0;
/// Active high, level-triggered (table 4-10): what PIIX3 drives, whatever PCI's own lines do.
const LEVEL: u16 = 0x000D;
/// Most processors that the table has room for.
pub const MOST_CPUS: u8 = 64;

/// Interrupt entries: type, PIC or I/O APIC's way (§4.3.4).
const INT: u8 = 0;
const NMI: u8 = 1;
const EXT_INT: u8 = 3;

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |a, &b| a.wrapping_add(b)).wrapping_neg()
}

/// Writes pointer and table for `cpus` processors whose CPUID signature is `signature` and whose CPUID
/// feature flags are `features`.
///
/// # Errors
/// [`RamError`] when there is no RAM behind the BIOS segment.
pub fn write(ram: &GuestRam, cpus: u8, signature: u32, features: u32) -> Result<(), RamError> {
    let table = table(cpus.min(MOST_CPUS), signature, features);
    assert!(
        TABLE + table.len() as u64 <= TABLE_END,
        "the table overruns its place"
    );
    ram.write(GuestPhys(TABLE), &table)?;
    let mut pointer = Vec::with_capacity(16);
    pointer.extend(b"_MP_");
    pointer.extend((TABLE as u32).to_le_bytes());
    pointer.extend([1, 4, 0, 0, 0, 0, 0, 0]); // one paragraph, version 1.4, virtual wire mode
    pointer[10] = sum(&pointer);
    ram.write(GuestPhys(POINTER), &pointer)
}

fn table(cpus: u8, signature: u32, features: u32) -> Vec<u8> {
    let mut entries: Vec<Vec<u8>> = Vec::new();
    for id in 0..cpus {
        // Enabled; the first is the bootstrap processor. APIC version 14h is an integrated one.
        let mut e = vec![0, id, 0x14, 1 | u8::from(id == 0) << 1];
        e.extend(signature.to_le_bytes());
        e.extend(features.to_le_bytes());
        e.extend([0; 8]);
        entries.push(e);
    }
    for (id, name) in [(BUS_PCI, b"PCI   "), (BUS_ISA, b"ISA   ")] {
        entries.push([&[1, id][..], name].concat());
    }
    let mut apic = vec![2, IO_APIC_ID, 0x11, 1];
    apic.extend((e820::IO_APIC as u32).to_le_bytes());
    entries.push(apic);
    let interrupt = |kind: u8, how: u8, flags: u16, bus: u8, irq: u8, apic: u8, pin: u8| {
        let f = flags.to_le_bytes();
        vec![kind, how, f[0], f[1], bus, irq, apic, pin]
    };
    // PCI slots by the PIRQ their pin is wired to.
    for slot in 1..32 {
        for pin in 0..4 {
            let irq = PIRQ_IRQS[pirq_of(slot, pin)];
            entries.push(interrupt(
                3,
                INT,
                LEVEL,
                BUS_PCI,
                slot << 2 | pin,
                IO_APIC_ID,
                irq,
            ));
        }
    }
    // ISA lines that are not PCI's: pin n, but the timer on pin 2. Line 2 is the cascade.
    for irq in (0..16).filter(|irq| *irq != 2 && !PIRQ_IRQS.contains(irq)) {
        let (pin, flags) = match irq {
            0 => (2, 0),
            9 => (9, LEVEL),
            n => (n, 0),
        };
        entries.push(interrupt(3, INT, flags, BUS_ISA, irq, IO_APIC_ID, pin));
    }
    entries.push(interrupt(4, EXT_INT, 0, BUS_ISA, 0, 0, 0)); // LINT0 of the bootstrap processor
    entries.push(interrupt(4, NMI, 0, BUS_ISA, 0, 0xFF, 1)); // LINT1 of all

    let body: Vec<u8> = entries.concat();
    let mut t = Vec::with_capacity(44 + body.len());
    t.extend(b"PCMP");
    t.extend((44 + body.len() as u16).to_le_bytes());
    t.extend([4, 0]); // version 1.4, checksum
    t.extend(b"QUINTET ");
    t.extend(b"PC          ");
    t.extend([0; 6]); // no OEM table
    t.extend((entries.len() as u16).to_le_bytes());
    t.extend((e820::LOCAL_APIC as u32).to_le_bytes());
    t.extend([0; 4]);
    t.extend(body);
    t[7] = sum(&t);
    t
}

#[cfg(test)]
mod tests {
    use super::*;
    use quintet_protocol::ram::RamLayout;

    #[test]
    fn both_structures_add_up_to_zero_and_fit_before_the_gdt() {
        let ram = GuestRam::anonymous(RamLayout::new(2 << 20)).expect("ram");
        for cpus in [1, MOST_CPUS] {
            write(&ram, cpus, 0x663, 0x0781_ABFD).expect("written");
            let pointer: [u8; 16] = ram.read_array(GuestPhys(POINTER)).expect("pointer");
            assert_eq!(sum(&pointer), 0);
            let at = u64::from(u32::from_le_bytes([
                pointer[4], pointer[5], pointer[6], pointer[7],
            ]));
            let len: [u8; 2] = ram.read_array(GuestPhys(at + 4)).expect("length");
            let mut table = vec![0; usize::from(u16::from_le_bytes(len))];
            ram.read(GuestPhys(at), &mut table).expect("table");
            assert_eq!(sum(&table), 0);
            assert_eq!(&table[..4], b"PCMP");
        }
    }

    #[test]
    fn the_entry_count_is_that_of_the_entries() {
        let t = table(3, 0, 0);
        let (mut at, mut n) = (44, 0);
        while at < t.len() {
            at += if t[at] == 0 { 20 } else { 8 };
            n += 1;
        }
        assert_eq!(at, t.len());
        assert_eq!(n, u16::from_le_bytes([t[34], t[35]]));
    }

    #[test]
    fn the_timer_is_on_pin_2_and_nothing_else_is() {
        let t = table(1, 0, 0);
        let isa: Vec<&[u8]> = t[44 + 20..]
            .chunks_exact(8)
            .filter(|e| e[0] == 3 && e[7] == 2)
            .collect();
        assert_eq!(isa.len(), 1);
        assert_eq!((isa[0][4], isa[0][5]), (BUS_ISA, 0));
    }
}
