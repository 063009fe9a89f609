//! The decode map and the mirrors, as the machine's registers say now.

use quintet_protocol::decode_map::{
    Attributes, Backing, Claim, DEVICE_POWER, DEVICE_ROM, DEVICE_VGA_REGISTERS, DEVICE_VRAM, DecodeMap,
    Shadow,
};

use crate::bus::regmap::Attr;
use crate::bus::{LINES, RegionKind};
use crate::dma::{PAM_END, PAM_PIECE, PAM_START, VGA_START};
use crate::machine::{self, Machine};
use crate::pci::{WindowKind, WindowTarget};
use crate::rom::Roms;

/// Ports of the PCI configuration data register, sent with the address latch.
const PCI_DATA: (u64, u64) = (0xCFC, 4);

const _: () = assert!(LINES <= quintet_protocol::wires::LINES);

/// A mirrored block of registers: a part of the machine and one of its regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mirrored {
    /// The part.
    pub part: usize,
    /// Index into its regions.
    pub region: u8,
}

/// The blocks that are mirrored, in the order of the mirrors' numbers. Constant for a machine.
pub fn mirrored(machine: &Machine) -> Vec<Mirrored> {
    let mut all: Vec<Mirrored> = Vec::new();
    for claim in machine.claims() {
        let block = Mirrored {
            part: claim.part,
            region: claim.region,
        };
        if claim.attr.contains(Attr::MIRROR)
            && !all.contains(&block)
            && all.len() < quintet_protocol::mirror::MIRRORS
        {
            all.push(block);
        }
    }
    all
}

fn attributes(attr: Attr) -> Attributes {
    let mut to = if attr.contains(Attr::VIEW) {
        Attributes::AFFECTS_VIEW
    } else if attr.contains(Attr::SYNC) {
        Attributes::SYNC
    } else {
        Attributes::POSTED
    };
    if attr.contains(Attr::MIRROR) {
        to = to.with(Attributes::MIRRORED);
    }
    to
}

/// Puts `claim` into what of its range is free: whoever came first wins.
fn insert(claims: &mut Vec<Claim>, claim: Claim) {
    let end = claim.start + claim.len;
    let mut at = claim.start;
    let mut pieces = Vec::new();
    for other in claims.iter() {
        let (from, to) = (
            other.start.clamp(at, end),
            (other.start + other.len).clamp(at, end),
        );
        if from < to {
            pieces.push((at, from));
            at = to;
        }
    }
    pieces.push((at, end));
    for (from, to) in pieces.into_iter().filter(|(from, to)| from < to) {
        let skipped = from - claim.start;
        let place = claims.partition_point(|c| c.start < from);
        let mirror_offset = claim.mirror_offset.wrapping_add(skipped as u8);
        let rom = claim.rom.wrapping_add(skipped as u32);
        claims.insert(
            place,
            Claim {
                start: from,
                len: to - from,
                mirror_offset,
                rom,
                ..claim
            },
        );
    }
}

/// The whole map.
pub fn decode_map(machine: &Machine, mirrors: &[Mirrored]) -> DecodeMap {
    let mut map = DecodeMap {
        a20: machine.a20(),
        ..DecodeMap::default()
    };
    insert(
        &mut map.ports,
        Claim {
            start: PCI_DATA.0,
            len: PCI_DATA.1,
            device: machine::PCI as u16,
            attributes: Attributes::AFFECTS_VIEW,
            ..Claim::default()
        },
    );
    // Whatever else is put there: a guest that hides its firmware could not be reset.
    if let Some(rom) = machine.roms().firmware() {
        insert(
            &mut map.memory,
            Claim {
                start: rom.start,
                len: rom.len,
                device: DEVICE_ROM,
                attributes: Attributes::ROM,
                rom: rom.at,
                ..Claim::default()
            },
        );
    }
    for c in machine.claims() {
        let mut claim = Claim {
            start: c.start,
            len: c.len,
            device: c.part as u16,
            attributes: attributes(c.attr),
            ..Claim::default()
        };
        if let Some(rom) = c.rom {
            claim.attributes = Attributes::ROM.with(Attributes::AFFECTS_VIEW);
            claim.rom = rom;
        }
        if c.attr.contains(Attr::MIRROR) {
            match mirrors
                .iter()
                .position(|m| (m.part, m.region) == (c.part, c.region))
            {
                Some(n) if c.offset + c.len <= 16 => {
                    (claim.mirror, claim.mirror_offset) = (n as u8, c.offset as u8);
                }
                _ => claim.attributes = attributes(c.attr.difference(Attr::MIRROR)),
            }
        }
        insert(
            if c.kind == RegionKind::Port {
                &mut map.ports
            } else {
                &mut map.memory
            },
            claim,
        );
    }
    for w in machine.foreign_windows() {
        let (device, attributes) = match w.target {
            WindowTarget::Vram => (DEVICE_VRAM, Attributes::SYNC),
            WindowTarget::VgaRegisters => (DEVICE_VGA_REGISTERS, Attributes::SYNC),
            WindowTarget::PowerManagement => (DEVICE_POWER, Attributes::SYNC),
            WindowTarget::VgaRom => (DEVICE_ROM, Attributes::ROM),
            WindowTarget::Nobody | WindowTarget::Device { .. } => continue,
        };
        let claim = Claim {
            start: w.start,
            len: w.len,
            device,
            attributes,
            // Means something with that attribute only, and no other foreign window has it.
            rom: Roms::VGA_AT,
            ..Claim::default()
        };
        insert(
            if w.kind == WindowKind::Port {
                &mut map.ports
            } else {
                &mut map.memory
            },
            claim,
        );
    }
    map.shadows = shadows(machine);
    for (to, line) in map.pirq.iter_mut().zip(machine.pci().routing()) {
        *to = line.map(|l| l.0);
    }
    map
}

/// SMRAM is visible outside SMM (72h of the host bridge, D_OPEN).
const D_OPEN: u8 = 0x40;

fn shadows(machine: &Machine) -> Vec<Shadow> {
    let state = machine.shadow();
    let legacy = if state.smram & D_OPEN != 0 {
        Backing::Ram
    } else {
        Backing::Vga
    };
    let len = (PAM_START - VGA_START) as u32;
    let mut all = vec![Shadow {
        start: VGA_START as u32,
        len,
        read: legacy,
        write: legacy,
    }];
    for start in (PAM_START..PAM_END).step_by(PAM_PIECE as usize) {
        let rom = match machine.roms().low() {
            Some(rom) if start >= rom.start => Backing::Rom(rom.at + (start - rom.start) as u32),
            _ => Backing::Nowhere,
        };
        let read = if state.pam.reads_ram(start) {
            Backing::Ram
        } else {
            rom
        };
        let write = match state.pam.writes_ram(start) {
            true => Backing::Ram,
            false => Backing::Nowhere,
        };
        match all.last_mut() {
            Some(last) if last.start >= PAM_START as u32 && goes_on(last, read) && last.write == write => {
                last.len += PAM_PIECE as u32;
            }
            _ => all.push(Shadow {
                start: start as u32,
                len: PAM_PIECE as u32,
                read,
                write,
            }),
        }
    }
    all
}

/// Whether `read` is what reads of the bytes behind `before` reach.
fn goes_on(before: &Shadow, read: Backing) -> bool {
    match (before.read, read) {
        (Backing::Rom(first), Backing::Rom(next)) => next == first + before.len,
        (first, next) => first == next,
    }
}

#[cfg(test)]
mod tests {
    use quintet_protocol::ram::{GuestRam, RamLayout};

    use super::*;
    use crate::block::Disks;
    use crate::bus::{Size, StreamIn, StreamOut};
    use crate::fw_cfg::FwCfg;
    use crate::machine::MachineConfig;

    fn machine() -> Machine {
        with(Roms::default())
    }

    fn with(roms: Roms) -> Machine {
        let config = MachineConfig {
            exit_port: Some(0xF4),
            debugcon: vec![(0xE9, StreamOut(2))],
            testdev: true,
            ac97: true,
            vram: 16 << 20,
            com: [(StreamOut(0), StreamIn(0)), (StreamOut(1), StreamIn(1))],
            fw_cfg: FwCfg::new(),
            roms,
            disks: Disks::default(),
            floppy: crate::storage::floppy::FloppyDrive::default(),
            flash: Vec::new(),
            drives: Default::default(),
            virtio: Vec::new(),
        };
        Machine::new(config, GuestRam::anonymous(RamLayout::new(2 << 20)).expect("RAM")).expect("machine")
    }

    fn pci_write(machine: &mut Machine, cf8: u32, offset: u8, size: Size, value: u32) {
        let mut streams = crate::bus::contract::TestStreams::unlimited();
        let mut env = machine::Env {
            now: quintet_protocol::time::VmTime(1),
            streams: &mut streams,
        };
        machine.pci_write(&mut env, cf8, offset, size, value);
    }

    fn map_of(machine: &Machine) -> DecodeMap {
        let map = decode_map(machine, &mirrored(machine));
        assert_eq!(map.validate(), Ok(()));
        map
    }

    #[test]
    fn each_port_has_the_attributes_of_its_register() {
        let map = map_of(&machine());
        let port = |p| *map.port(p).expect("claimed");
        assert_eq!(port(0x3F8).attributes, Attributes::POSTED);
        let lsr = port(0x3FD);
        assert!(lsr.attributes.contains(Attributes::MIRRORED));
        assert_eq!(u64::from(lsr.mirror_offset) + 0x3FD - lsr.start, 5);
        assert_ne!(port(0x2FD).mirror, lsr.mirror);
        assert_eq!(port(0x60).attributes, Attributes::AFFECTS_VIEW);
        assert_eq!(
            port(0x64).attributes,
            Attributes::AFFECTS_VIEW.with(Attributes::MIRRORED)
        );
        assert_eq!(port(0x518).attributes, Attributes::SYNC);
        assert_eq!(port(0xCFF).attributes, Attributes::AFFECTS_VIEW);
        assert_eq!(map.port(0xCF8), None);
        assert_eq!(map.port(0x80), None);
        assert!(map.a20);
    }

    #[test]
    fn windows_shadows_and_routing_follow_the_registers() {
        let mut m = machine();
        let before = map_of(&m);
        assert_eq!(before.address(0xFD00_0000), None);
        assert_eq!(before.shadows.len(), 2, "{:?}", before.shadows);
        pci_write(&mut m, 0x8000_1010, 0, Size::DWORD, 0xFD00_0000);
        pci_write(&mut m, 0x8000_1004, 0, Size::WORD, 2);
        pci_write(&mut m, 0x8000_0058, 0, Size::DWORD, 0x0001_3000);
        pci_write(&mut m, 0x8000_0860, 0, Size::DWORD, 0x0B0B_0A0A);
        let after = map_of(&m);
        assert_eq!(after.address(0xFDFF_FFFF).map(|c| c.device), Some(DEVICE_VRAM));
        assert_eq!(after.pirq, [Some(10), Some(10), Some(11), Some(11)]);
        let at = |a: u32| {
            *after
                .shadows
                .iter()
                .find(|s| a >= s.start && a - s.start < s.len)
                .expect("shadow")
        };
        assert_eq!(
            (at(0xF_0000).read, at(0xF_FFFF).write),
            (Backing::Ram, Backing::Ram)
        );
        assert_eq!(
            (at(0xC_0000).read, at(0xC_0000).write),
            (Backing::Ram, Backing::Nowhere)
        );
        assert_eq!(
            (at(0xC_4000).read, at(0xA_0000).read),
            (Backing::Nowhere, Backing::Vga)
        );
    }

    #[test]
    fn roms_show_where_pam_and_the_rom_register_let_them() {
        let map = quintet_protocol::shm::Map::anonymous(quintet_protocol::decode_map::ROM_SIZE as u64);
        let window = quintet_protocol::shm::ViewMut::new(std::sync::Arc::new(map.expect("map")));
        let roms = Roms::load(&window, Some(&[1; 256 << 10]), Some(&[2; 40_000])).expect("loaded");
        let mut m = with(roms);
        let before = map_of(&m);
        let top = before.address(0xFFFF_FFF0).expect("claimed");
        assert_eq!((top.start, top.len, top.rom), (0xFFFC_0000, 256 << 10, 0xFC_0000));
        assert_eq!(top.attributes, Attributes::ROM);
        let e0000 = before.shadows.last().expect("shadow");
        assert_eq!((e0000.start, e0000.len), (0xE_0000, 128 << 10));
        assert_eq!(
            (e0000.read, e0000.write),
            (Backing::Rom(0xFE_0000), Backing::Nowhere)
        );
        // F0000h: read the ROM, write the RAM behind it. E0000h–E3FFFh: RAM.
        pci_write(&mut m, 0x8000_0058, 0, Size::DWORD, 0x0000_2000);
        pci_write(&mut m, 0x8000_005C, 0, Size::DWORD, 0x0003_0000);
        // The VGA's BIOS at FEB00000h, a moving window on top of the firmware.
        pci_write(&mut m, 0x8000_1030, 0, Size::DWORD, 0xFEB0_0001);
        pci_write(&mut m, 0x8000_1018, 0, Size::DWORD, 0xFFFE_0000);
        pci_write(&mut m, 0x8000_1004, 0, Size::WORD, 2);
        let after = map_of(&m);
        let low: Vec<_> = after
            .shadows
            .iter()
            .filter(|s| s.start >= 0xE_0000)
            .map(|s| (s.start, s.read, s.write))
            .collect();
        assert_eq!(
            low,
            [
                (0xE_0000, Backing::Ram, Backing::Ram),
                (0xE_4000, Backing::Rom(0xFE_4000), Backing::Nowhere),
                (0xF_0000, Backing::Rom(0xFF_0000), Backing::Ram),
            ]
        );
        let vga = after.address(0xFEB0_FFFF).expect("claimed");
        assert_eq!(
            (vga.start, vga.len, vga.rom),
            (0xFEB0_0000, 64 << 10, Roms::VGA_AT)
        );
        assert_eq!(vga.attributes, Attributes::ROM);
        assert_eq!(after.address(0xFFFE_0000).map(|c| c.device), Some(DEVICE_ROM));
    }

    #[test]
    fn a_window_on_top_of_a_fixed_range_gets_what_is_left() {
        let mut m = machine();
        // Sixteen mebibytes around the test device's memory at FF000000h.
        pci_write(&mut m, 0x8000_1010, 0, Size::DWORD, 0xFE00_0000);
        pci_write(&mut m, 0x8000_1018, 0, Size::DWORD, 0xFF00_0000);
        pci_write(&mut m, 0x8000_1004, 0, Size::WORD, 2);
        let map = map_of(&m);
        assert_ne!(
            map.address(0xFF00_0000).map(|c| c.device),
            Some(DEVICE_VGA_REGISTERS)
        );
        assert_eq!(map.address(0xFEFF_FFFF).map(|c| c.device), Some(DEVICE_VRAM));
    }
}
