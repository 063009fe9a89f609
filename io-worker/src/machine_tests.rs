use super::*;
use crate::bus::contract::TestStreams;
use quintet_protocol::ram::RamLayout;

fn config() -> MachineConfig {
    MachineConfig {
        exit_port: Some(0xF4),
        debugcon: vec![(0xE9, StreamOut(2))],
        testdev: true,
        ac97: true,
        vram: 16 << 20,
        com: [(StreamOut(0), StreamIn(0)), (StreamOut(1), StreamIn(1))],
        fw_cfg: FwCfg::new(),
        roms: Roms::default(),
        disks: Disks::default(),
        floppy: FloppyDrive::default(),
        flash: Vec::new(),
        drives: Default::default(),
        virtio: Vec::new(),
    }
}

fn build(config: MachineConfig) -> Result<Machine, BuildError> {
    Machine::new(config, GuestRam::anonymous(RamLayout::new(2 << 20)).expect("RAM"))
}

struct Rig {
    machine: Machine,
    streams: TestStreams,
    now: VmTime,
}

impl Rig {
    fn new() -> Self {
        let streams = TestStreams::unlimited();
        Self {
            machine: build(config()).expect("machine"),
            streams,
            now: VmTime(1),
        }
    }
    fn inp(&mut self, port: u16, size: Size) -> Option<u64> {
        self.machine.port_read(
            &mut Env {
                now: self.now,
                streams: &mut self.streams,
            },
            port,
            size,
        )
    }
    fn out(&mut self, port: u16, size: Size, value: u64) -> bool {
        self.machine.port_write(
            &mut Env {
                now: self.now,
                streams: &mut self.streams,
            },
            port,
            size,
            value,
        )
    }
    fn env(&mut self) -> (&mut Machine, Env<'_>) {
        let env = Env {
            now: self.now,
            streams: &mut self.streams,
        };
        (&mut self.machine, env)
    }
    fn pci_write(&mut self, cf8: u32, offset: u8, size: Size, value: u32) {
        let (machine, mut env) = self.env();
        machine.pci_write(&mut env, cf8, offset, size, value);
    }
    fn pci_read(&mut self, cf8: u32, offset: u8, size: Size) -> u32 {
        let (machine, mut env) = self.env();
        machine.pci_read(&mut env, cf8, offset, size)
    }
}

#[test]
fn virtio_registers_are_reached_through_configuration_space() {
    let mut config = config();
    let image = Box::new(crate::block::tests::MemoryImage::numbered(64));
    let disk = config.disks.add_here("test", image, false);
    config.virtio.push(VirtioConfig {
        disk,
        len: 64 * 512,
        read_only: false,
        serial: String::new(),
    });
    let mut r = Rig {
        machine: build(config).expect("machine"),
        ..Rig::new()
    };
    let register = |at: u32| 0x8000_2800 | at;
    let aim = |r: &mut Rig, offset: u32, len: u32| {
        r.pci_write(register(0x88), 0, Size::BYTE, 4);
        r.pci_write(register(0x8C), 0, Size::DWORD, offset);
        r.pci_write(register(0x90), 0, Size::DWORD, len);
    };
    // Capacity, although memory is not decoded.
    aim(&mut r, 0x2000, 4);
    assert_eq!(r.pci_read(register(0x94), 0, Size::DWORD), 64);
    aim(&mut r, 0x14, 1);
    r.pci_write(register(0x94), 0, Size::BYTE, 3);
    assert_eq!(r.pci_read(register(0x94), 0, Size::BYTE), 3);
    assert_eq!(r.pci_read(register(0x00), 0, Size::DWORD), 0x1042_1AF4);
    r.pci_write(register(0x94), 0, Size::BYTE, 0);
    assert_eq!(r.pci_read(register(0x94), 0, Size::BYTE), 0);
    // By its BAR it is the same device.
    r.pci_write(register(0x20), 0, Size::DWORD, 0xFD00_0000);
    r.pci_write(register(0x04), 0, Size::WORD, 2);
    let (machine, mut env) = r.env();
    assert!(machine.memory_write(&mut env, 0xFD00_0014, Size::BYTE, 1));
    assert_eq!(r.pci_read(register(0x94), 0, Size::BYTE), 1);
}

#[test]
fn every_device_answers_at_its_place_and_nobody_elsewhere() {
    let mut r = Rig::new();
    assert_eq!(r.inp(0x3FD, Size::BYTE), Some(0x60));
    assert_eq!(r.inp(0x2FD, Size::BYTE), Some(0x60));
    assert_eq!(r.inp(0x64, Size::BYTE), Some(0x18));
    assert_eq!(r.inp(0xE9, Size::BYTE), Some(0xE9));
    assert_eq!(
        r.inp(0x514, Size::DWORD),
        Some(u64::from(u32::from_le_bytes(*b"QEMU")))
    );
    assert_eq!(r.inp(0x378, Size::BYTE), None);
    assert!(!r.out(0x80, Size::BYTE, 1));
    let mut env = Env {
        now: r.now,
        streams: &mut r.streams,
    };
    assert_eq!(r.machine.memory_read(&mut env, 0xFF00_0000, Size::QWORD), Some(0));
    assert_eq!(r.machine.memory_read(&mut env, 0xFE00_0000, Size::QWORD), None);
}

#[test]
fn an_access_half_claimed_has_ones_in_its_other_half() {
    let mut r = Rig::new();
    assert_eq!(r.inp(0x63, Size::WORD), Some(0x18FF));
    assert_eq!(r.inp(0x3FF, Size::WORD), Some(0xFF00));
}

#[test]
fn two_devices_in_one_place_are_a_configuration_error() {
    let mut c = config();
    c.exit_port = Some(0xE2);
    let error = build(c).expect_err("taken");
    assert_eq!(error.device, "debug-exit");
    let mut c = config();
    c.debugcon = vec![(0x3F8, StreamOut(2))];
    assert_eq!(build(c).expect_err("taken").device, "debugcon0");
}

#[test]
fn claims_cover_each_port_once_and_tell_the_attributes() {
    let r = Rig::new();
    let claims = r.machine.claims();
    let port = |p: u64| {
        let mut hits = claims
            .iter()
            .filter(|c| c.kind == RegionKind::Port && p >= c.start && p - c.start < c.len);
        let hit = hits.next().copied();
        assert!(hits.next().is_none(), "port {p:#x}");
        hit
    };
    for p in 0..0x1_0000 {
        port(p);
    }
    assert_eq!(port(0x3F8).map(|c| c.attr), Some(Attr::empty()));
    assert_eq!(
        port(0x3FD).map(|c| (c.attr, c.start)),
        Some((Attr::MIRROR, 0x3F9))
    );
    assert!(port(0x64).is_some_and(|c| c.attr.contains(Attr::VIEW)));
    assert!(port(0x2000).is_some_and(|c| c.attr.contains(Attr::VIEW)));
    assert!(port(0x518).is_some_and(|c| c.attr.contains(Attr::SYNC)));
    assert!(port(0xCFC).is_none());
}

#[test]
fn pci_writes_move_pam_routing_and_windows() {
    let mut r = Rig::new();
    let version = r.machine.decode_version();
    let cf8 = |devfn: u32, register: u32| 1 << 31 | devfn << 8 | register;
    r.pci_write(cf8(0x10, 0x10), 0, Size::DWORD, 0xFD00_0000);
    r.pci_write(cf8(0x10, 0x04), 0, Size::WORD, 3);
    assert_ne!(r.machine.decode_version(), version);
    assert_eq!(r.machine.foreign_windows()[0].target, WindowTarget::Vram);
    r.pci_write(cf8(0, 0x58), 1, Size::BYTE, 0x30);
    let at = quintet_protocol::addr::GuestPhys(0xF_0000);
    r.machine.dma().write(at, &[7]);
    assert_eq!(r.machine.dma().ram().read_array::<1>(at), Ok([7]));
}

#[test]
fn touched_parts_alone_rebuild_the_machine() {
    let mut r = Rig::new();
    let mut parts: Vec<Option<(u16, Vec<u8>)>> = vec![None; r.machine.part_count()];
    let commit = |m: &mut Machine, parts: &mut Vec<Option<(u16, Vec<u8>)>>| {
        let touched: Vec<usize> = m.take_touched().iter().collect();
        for &p in &touched {
            let mut bytes = Vec::new();
            m.save_part(p, &mut bytes);
            parts[p] = Some((m.part_version(p), bytes));
        }
        touched
    };
    assert_eq!(
        commit(&mut r.machine, &mut parts).len(),
        r.machine.part_count(),
        "all at first"
    );
    assert!(commit(&mut r.machine, &mut parts).is_empty());
    r.out(0x3FF, Size::BYTE, 0x77);
    let touched = commit(&mut r.machine, &mut parts);
    assert_eq!(
        touched
            .iter()
            .map(|&p| r.machine.part_name(p))
            .collect::<Vec<_>>(),
        ["com1"]
    );
    r.out(0x3FC, Size::BYTE, 0x0B);
    r.out(0x3F9, Size::BYTE, 0x02);
    r.out(0x64, Size::BYTE, 0xFE);
    r.pci_write(0x8000_0800, 0x60 & 3, Size::BYTE, 0);
    commit(&mut r.machine, &mut parts);
    let mut next = Rig::new();
    for (part, saved) in parts.iter().enumerate() {
        let (version, bytes) = saved.as_ref().expect("saved");
        next.machine.load_part(part, *version, bytes).expect("own state");
    }
    assert_eq!(next.machine.wires(), r.machine.wires());
    assert!(next.machine.wires()[4].high);
    assert_eq!(next.machine.request(), Some(MachineRequest::Reset));
    assert_eq!(next.inp(0x3FF, Size::BYTE), Some(0x77));
}

#[test]
fn a_reset_withdraws_the_request_and_closes_the_windows() {
    let mut r = Rig::new();
    r.pci_write(0x8000_1000, 0, Size::DWORD, 0);
    r.pci_write(0x8000_1010, 0, Size::DWORD, 0xFD00_0000);
    r.pci_write(0x8000_1004, 0, Size::WORD, 3);
    r.out(0x64, Size::BYTE, 0xFE);
    r.machine.reset(&mut Env {
        now: r.now,
        streams: &mut r.streams,
    });
    assert_eq!(r.machine.request(), None);
    assert!(r.machine.foreign_windows().is_empty());
    assert!(r.machine.a20());
}
