use super::*;
use crate::bus::contract::{Bench, device_contract, saved};
use crate::bus::{Device, Line, Size};

fn machine(_: &mut Bench) -> PciBus {
    let mut pci = PciBus::new();
    pci.add(bdf(0, 0), i440fx());
    pci.add(bdf(1, 0), piix3_isa());
    pci.add(PIIX_PM_SLOT, piix4_pm());
    pci.add(bdf(2, 0), stdvga(16 << 20, 40_000));
    pci
}

fn pc() -> PciBus {
    machine(&mut Bench::new())
}

device_contract!(contract, machine);

const VGA: Bdf = bdf(2, 0);

#[test]
fn the_functions_are_those_of_the_pc_machine() {
    let pci = pc();
    let seen: Vec<(u8, u32, u32, u32)> = pci
        .functions()
        .map(|(at, _)| {
            let d = |r| pci.peek(at, r, Size::DWORD);
            (at.devfn(), d(0), d(8), d(0x2C))
        })
        .collect();
    assert_eq!(
        seen,
        [
            (0x00, 0x1237_8086, 0x0600_0002, 0x1100_1AF4),
            (0x08, 0x7000_8086, 0x0601_0000, 0x1100_1AF4),
            (0x0B, 0x7113_8086, 0x0680_0003, 0x1100_1AF4),
            (0x10, 0x1111_1234, 0x0300_0002, 0x1100_1AF4),
        ]
    );
    assert_eq!(pci.peek(bdf(1, 0), 0x0E, Size::BYTE), 0x80);
}

#[test]
fn firmware_is_told_that_there_is_no_system_management_mode_to_set_up() {
    let mut pci = pc();
    assert_eq!(pci.peek(PIIX_PM_SLOT, 0x5B, Size::BYTE), 0x02);
    pci.poke(PIIX_PM_SLOT, 0x58, Size::DWORD, 0);
    assert_eq!(pci.peek(PIIX_PM_SLOT, 0x5B, Size::BYTE), 0x00);
}

#[test]
fn absent_functions_other_buses_and_a_closed_latch_read_as_ones() {
    let pci = pc();
    for cf8 in [0x8000_1800, 0x8000_0900, 0x8001_0000, 0x0000_0000, 0x7FFF_FFFF] {
        assert_eq!(pci.config_read(cf8, 0, Size::DWORD), 0xFFFF_FFFF, "{cf8:#x}");
    }
    assert_eq!(pci.config_read(0x8000_0000, 2, Size::WORD), 0x1237);
    assert_eq!(
        pci.config_read(0x8000_0000, 3, Size::WORD),
        0xFF12,
        "nothing past CFFh"
    );
}

#[test]
fn a_base_register_tells_its_size_and_is_decoded_by_the_command_register() {
    let mut pci = pc();
    pci.poke(VGA, 0x10, Size::DWORD, 0xFFFF_FFFF);
    assert_eq!(pci.peek(VGA, 0x10, Size::DWORD), 0xFF00_0008);
    pci.poke(VGA, 0x18, Size::DWORD, 0xFFFF_FFFF);
    assert_eq!(pci.peek(VGA, 0x18, Size::DWORD), 0xFFFF_F000);
    pci.poke(VGA, 0x14, Size::DWORD, 0xFFFF_FFFF);
    assert_eq!(pci.peek(VGA, 0x14, Size::DWORD), 0);
    pci.poke(VGA, 0x10, Size::DWORD, 0xFD00_0000);
    pci.poke(VGA, 0x18, Size::DWORD, 0xFEBF_0000);
    assert!(pci.windows().is_empty());
    let before = pci.version();
    pci.poke(VGA, 0x04, Size::WORD, 2);
    assert_ne!(pci.version(), before);
    assert_eq!(
        pci.windows(),
        [
            PciWindow {
                kind: WindowKind::Memory,
                start: 0xFD00_0000,
                len: 16 << 20,
                target: WindowTarget::Vram
            },
            PciWindow {
                kind: WindowKind::Memory,
                start: 0xFEBF_0000,
                len: 4096,
                target: WindowTarget::VgaRegisters
            },
        ]
    );
    pci.poke(VGA, 0x10, Size::DWORD, 0xFFFF_FFFF);
    assert_eq!(pci.windows().len(), 1, "a register being sized decodes nothing");
}

#[test]
fn identity_cannot_be_written_and_status_clears_by_ones() {
    let mut pci = pc();
    let isa = bdf(1, 0);
    for register in [0x00, 0x08, 0x0C, 0x2C, 0x34] {
        let before = pci.peek(isa, register, Size::DWORD) & !0xFFFF;
        pci.poke(isa, register, Size::DWORD, 0x5A5A_0000);
        assert_eq!(
            pci.peek(isa, register, Size::DWORD) & !0xFFFF,
            before,
            "{register:#x}"
        );
    }
    pci.poke(isa, 0x3C, Size::BYTE, 11);
    assert_eq!(pci.peek(isa, 0x3C, Size::BYTE), 11);
    pci.poke(isa, 0x06, Size::WORD, 0xFFFF);
    assert_eq!(pci.peek(isa, 0x06, Size::WORD), 0x0200);
}

#[test]
fn interrupt_routing_follows_the_isa_bridge() {
    let mut pci = pc();
    let isa = bdf(1, 0);
    assert_eq!(pci.routing(), [None; 4]);
    pci.poke(isa, 0x60, Size::DWORD, 0x0B0B_0A0A);
    assert_eq!(pci.routing(), [10, 10, 11, 11].map(|l| Some(Line(l))));
    pci.poke(isa, 0x61, Size::BYTE, 0x08);
    assert_eq!(pci.routing()[1], None, "line 8 cannot be routed to");
    assert_eq!(pirq_of(1, 1), 0);
    assert_eq!(pirq_of(3, 1), 2);
    assert_eq!(pirq_of(4, 4), 2);
}

#[test]
fn pam_and_smram_are_seen_and_smram_locks() {
    let mut pci = pc();
    let host = bdf(0, 0);
    assert_eq!(pci.shadow().smram, 0x02);
    pci.poke(host, 0x58, Size::DWORD, 0x3332_31FF);
    assert_eq!(pci.shadow().pam.0[..3], [0x30, 0x32, 0x33]);
    pci.poke(host, 0x72, Size::BYTE, 0x4A);
    assert_eq!(pci.shadow().smram, 0x4A);
    pci.poke(host, 0x72, Size::BYTE, 0x5A);
    assert_eq!(pci.shadow().smram, 0x1A, "locking closes it");
    pci.poke(host, 0x72, Size::BYTE, 0x42);
    assert_eq!(pci.shadow().smram, 0x1A);
}

#[test]
fn power_management_is_decoded_where_pmbase_says_once_enabled() {
    let mut pci = pc();
    pci.poke(PIIX_PM_SLOT, 0x40, Size::DWORD, 0x0000_0600);
    assert_eq!(pci.peek(PIIX_PM_SLOT, 0x40, Size::DWORD), 0x0000_0601);
    assert!(pci.windows().is_empty());
    pci.poke(PIIX_PM_SLOT, 0x80, Size::BYTE, 1);
    assert_eq!(
        pci.windows(),
        [PciWindow {
            kind: WindowKind::Port,
            start: 0x600,
            len: 64,
            target: WindowTarget::PowerManagement
        }]
    );
}

#[test]
fn a_successor_decodes_the_same() {
    let mut pci = pc();
    pci.poke(VGA, 0x10, Size::DWORD, 0xE000_0000);
    pci.poke(VGA, 0x04, Size::WORD, 3);
    pci.poke(bdf(1, 0), 0x60, Size::BYTE, 5);
    let bytes = saved(&pci);
    let mut next = pc();
    next.load(1, &bytes).expect("state");
    assert_eq!((next.windows(), next.routing()), (pci.windows(), pci.routing()));
}
