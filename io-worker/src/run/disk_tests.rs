//! Disk requests while the worker is killed at every step: each is done before its end is seen, and never after.

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::handshake::config::DiskPlace;
use quintet_protocol::message::{Command, CommandFlags};

use super::rig::Rig;

/// Configuration of the IDE controller.
const FUNCTION: u32 = 0x8000_0900;
const BSY: u8 = 0x80;
const DRQ: u8 = 0x08;
const ERR: u8 = 0x01;
const TABLE: u64 = 0x8000;
const DATA: u64 = 0x1_0000;

fn rig() -> Rig {
    Rig::with_disk(DiskPlace::Ide { unit: 0 }, "QT00001")
}

/// Waits as a driver does that polls, and acknowledges.
fn ended(r: &mut Rig) -> u8 {
    for _ in 0..1_000_000 {
        r.turn();
        let status = r.inb(0x3F6);
        if status & BSY == 0 {
            assert_eq!(status & ERR, 0, "error {:#x}", r.inb(0x1F1));
            return r.inb(0x1F7);
        }
        std::thread::yield_now();
    }
    panic!("the disk does not come to an end");
}

fn command(r: &mut Rig, command: u8, sector: u8, count: u8) {
    for (port, value) in [
        (0x1F2, count),
        (0x1F3, sector),
        (0x1F4, 0),
        (0x1F5, 0),
        (0x1F6, 0xE0),
        (0x1F7, command),
    ] {
        r.outb(port, value);
    }
}

fn dma(r: &mut Rig, code: u8, sector: u8, count: u8) {
    let ram = r.set.guest_ram().expect("RAM");
    let mut entry = (DATA as u32).to_le_bytes().to_vec();
    entry.extend(((u32::from(count) * 512) | (1 << 31)).to_le_bytes());
    ram.write(GuestPhys(TABLE), &entry).expect("RAM");
    r.post(Command::PortWrite {
        flags: CommandFlags::POSTED,
        port: 0xC004,
        size: 4,
        value: TABLE as u32,
    });
    r.outb(0xC002, 6);
    command(r, code, sector, count);
    r.outb(0xC000, if code == 0xC8 { 9 } else { 1 });
    // The drive holds DRQ until the engine runs, which is a write later.
    loop {
        let status = ended(r);
        if status & DRQ == 0 {
            break;
        }
    }
    assert_eq!(r.inb(0xC002) & 5, 4, "done, and interrupted");
    r.outb(0xC000, 0);
}

/// Writes every sector it uses twice, by words and by bus master, and reads all of it back.
fn guest(r: &mut Rig) -> Vec<u8> {
    r.boot();
    let ram = r.set.guest_ram().expect("RAM");
    r.pci(FUNCTION, 0x20, 4, 0xC001);
    r.pci(FUNCTION, 0x04, 2, 5);
    for round in 1..=2_u8 {
        command(r, 0x30, 4, 2);
        for sector in 0..2 {
            while ended(r) & DRQ == 0 {}
            r.post(Command::StringOut {
                flags: CommandFlags::POSTED,
                port: 0x1F0,
                size: 2,
                data: &[round * 16 + sector; 512],
            });
        }
        assert_eq!(ended(r) & DRQ, 0);
        ram.write(GuestPhys(DATA), &[round * 16 + 8; 3 * 512])
            .expect("RAM");
        dma(r, 0xCA, 10, 3);
        // What the guest does with its memory afterwards is no business of the disk's.
        ram.write(GuestPhys(DATA), &[0xEE; 3 * 512]).expect("RAM");
        command(r, 0xE7, 0, 0);
        assert_eq!(ended(r) & DRQ, 0);
    }
    let mut seen = Vec::new();
    command(r, 0x20, 4, 1);
    while ended(r) & DRQ == 0 {}
    seen.extend(
        r.ask(Command::StringIn {
            port: 0x1F0,
            size: 2,
            count: 256,
        })
        .1,
    );
    dma(r, 0xC8, 9, 5);
    let mut back = vec![0; 5 * 512];
    ram.read(GuestPhys(DATA), &mut back).expect("RAM");
    seen.extend(back);
    r.settle();
    seen
}

fn check(r: &mut Rig) {
    let seen = guest(r);
    let disk = r.disk();
    let expected = |sector: usize| match sector {
        4 | 5 => 32 + (sector - 4) as u8,
        10..=12 => 40,
        _ => 0,
    };
    for (n, sector) in disk.chunks(512).enumerate() {
        assert!(
            sector.iter().all(|b| *b == expected(n)),
            "sector {n} holds {:#x}",
            sector[0]
        );
    }
    let read: Vec<u8> = [4, 9, 10, 11, 12, 13]
        .iter()
        .flat_map(|n| [expected(*n); 512])
        .collect();
    assert!(seen == read, "what was read back");
}

#[test]
fn a_disk_is_written_and_read_through_the_whole_path() {
    let mut r = rig();
    check(&mut r);
    assert_eq!(r.generation, 1);
}

#[test]
fn killed_once_at_every_step_no_write_is_lost_or_late() {
    Rig::killed_at_every_step(rig, check);
}

#[test]
fn killed_over_and_over_no_write_is_lost_or_late() {
    Rig::killed_over_and_over(rig, check);
}
