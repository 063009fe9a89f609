//! A driver's view of the controller, over images in memory.

mod ata;
mod dma;
mod packets;

use super::drive::status::{BSY, DRDY, DRQ, DSC, ERR};
use super::*;
use crate::block::tests::MemoryImage;
use crate::bus::Size;
use crate::bus::contract::{Bench, device_contract, saved};
use crate::storage::ide::drive::error;

/// A controller with an operator.
struct Driver {
    bench: Bench,
    ide: PiixIde,
    image: MemoryImage,
    cd: MemoryImage,
}

/// Sectors of the disk in [`Driver`].
const DISK: u64 = 200_000;
/// Sectors of its CD, 2048 bytes each.
const CD: u64 = 400;

fn config(bench: &mut Bench, image: &MemoryImage, kind: DriveKind) -> DriveConfig {
    let cd = kind == DriveKind::Cdrom;
    let disk = bench.disks.add_here("test", Box::new(image.clone()), cd);
    DriveConfig {
        kind,
        disk,
        len: bench.disks.len_of(disk),
        serial: "QT00001".into(),
        medium: 0,
    }
}

impl Driver {
    /// A disk as primary master, a CD-ROM as secondary master.
    fn new() -> Self {
        let mut bench = Bench::new();
        let (image, cd) = (MemoryImage::numbered(DISK), MemoryImage::numbered(CD * 4));
        let drives = [
            Some(config(&mut bench, &image, DriveKind::Disk)),
            None,
            Some(config(&mut bench, &cd, DriveKind::Cdrom)),
            None,
        ];
        let ide = PiixIde::new(&mut bench.irq, drives);
        Self {
            bench,
            ide,
            image,
            cd,
        }
    }

    /// The machine goes on: what was asked is done.
    fn settle(&mut self) {
        while self.bench.submit() {
            self.ide.advance(&mut self.bench.backplane());
        }
    }

    fn inb(&mut self, region: u8, offset: u64) -> u8 {
        self.bench.read(&mut self.ide, region, offset, Size::BYTE) as u8
    }

    fn outb(&mut self, region: u8, offset: u64, value: u8) {
        self.bench
            .write(&mut self.ide, region, offset, Size::BYTE, u64::from(value));
    }

    fn words(&mut self, region: u8, count: usize) -> Vec<u8> {
        (0..count)
            .flat_map(|_| (self.bench.read(&mut self.ide, region, 0, Size::WORD) as u16).to_le_bytes())
            .collect()
    }

    fn put(&mut self, region: u8, bytes: &[u8]) {
        for pair in bytes.chunks_exact(2) {
            let value = u64::from(pair[0]) | u64::from(pair[1]) << 8;
            self.bench.write(&mut self.ide, region, 0, Size::WORD, value);
        }
    }

    /// Registers of a 28-bit command, then the command.
    fn command(&mut self, command: u8, lba: u32, count: u8) {
        let [a, b, c, d] = lba.to_le_bytes();
        self.outb(0, 2, count);
        self.outb(0, 3, a);
        self.outb(0, 4, b);
        self.outb(0, 5, c);
        self.outb(0, 6, 0xE0 | d & 0xF);
        self.outb(0, 7, command);
        self.settle();
    }

    /// Registers of a 48-bit command, then the command.
    fn wide(&mut self, command: u8, lba: u64, count: u16) {
        let [a, b, c, d, e, f, _, _] = lba.to_le_bytes();
        self.outb(0, 6, 0x40);
        self.outb(0, 2, (count >> 8) as u8);
        for (offset, value) in [(3, d), (4, e), (5, f)] {
            self.outb(0, offset, value);
        }
        self.outb(0, 2, count as u8);
        for (offset, value) in [(3, a), (4, b), (5, c)] {
            self.outb(0, offset, value);
        }
        self.outb(0, 7, command);
        self.settle();
    }

    /// Status without acknowledging.
    fn alt(&mut self) -> u8 {
        self.inb(1, 0)
    }

    fn edges(&self, channel: usize) -> u32 {
        self.bench.wire(14 + channel).edges
    }

    fn high(&self, channel: usize) -> bool {
        self.bench.wire(14 + channel).high
    }

    /// Waits for the interrupt, as a driver does, and acknowledges it; answers the status.
    fn interrupt(&mut self) -> u8 {
        self.settle();
        assert!(self.high(0), "no interrupt, status {:#x}", self.alt());
        let status = self.inb(0, 7);
        assert!(!self.high(0));
        status
    }

    /// A regions table at 8000h for `regions`, and the engine's address register.
    fn table(&mut self, regions: &[(u32, u16)]) {
        let mut bytes = Vec::new();
        for (i, (address, len)) in regions.iter().enumerate() {
            let last = if i + 1 == regions.len() { 1_u32 << 31 } else { 0 };
            bytes.extend(address.to_le_bytes());
            bytes.extend((u32::from(*len) | last).to_le_bytes());
        }
        self.bench
            .dma
            .write(quintet_protocol::addr::GuestPhys(0x8000), &bytes);
        for base in [0, 8] {
            self.bench
                .write(&mut self.ide, BUS_MASTER, base + 4, Size::DWORD, 0x8000);
        }
    }

    fn ram(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.bench
            .dma
            .read(quintet_protocol::addr::GuestPhys(at), &mut bytes);
        bytes
    }
}

fn number(sector: &[u8]) -> u64 {
    u64::from_le_bytes(sector[..8].try_into().expect("eight"))
}

fn with_drives(bench: &mut Bench) -> PiixIde {
    let image = MemoryImage::numbered(64);
    let drives = [
        Some(config(bench, &image, DriveKind::Disk)),
        Some(config(bench, &image, DriveKind::Disk)),
        Some(config(bench, &image, DriveKind::Cdrom)),
        None,
    ];
    PiixIde::new(&mut bench.irq, drives)
}

device_contract!(contract, with_drives);

#[test]
fn a_successor_repeats_what_was_under_way_and_only_that() {
    let mut d = Driver::new();
    d.command(0x30, 5, 2);
    d.put(0, &[7; 512]);
    // Asked, not submitted: the process dies here, or after the thread has done it.
    for submitted in [false, true] {
        if submitted {
            d.bench.submit();
        }
        let state = saved(&d.ide);
        let mut next = Driver::new();
        next.ide.load(VERSION, &state).expect("state");
        next.ide.start(&mut next.bench.backplane());
        assert_eq!(next.alt() & BSY, BSY);
        next.settle();
        assert_eq!(next.image.sector(5), [7; 512]);
        assert_eq!(next.interrupt(), DRDY | DSC | DRQ);
        next.put(0, &[8; 512]);
        next.settle();
        assert_eq!(next.interrupt(), DRDY | DSC);
        let writes = next.image.0.lock().expect("whole").writes.clone();
        assert_eq!(writes, [(5 * 512, 512), (6 * 512, 512)]);
        let state = saved(&next.ide);
        let mut third = Driver::new();
        third.ide.load(VERSION, &state).expect("state");
        third.ide.start(&mut third.bench.backplane());
        third.settle();
        assert_eq!(third.image.0.lock().expect("whole").writes, [], "it is over");
    }
}

#[test]
fn a_successor_goes_on_in_the_middle_of_a_sector() {
    let mut d = Driver::new();
    d.command(0x20, 77, 2);
    let mut data = d.words(0, 100);
    let state = saved(&d.ide);
    let mut next = Driver::new();
    next.ide.load(VERSION, &state).expect("state");
    next.ide.start(&mut next.bench.backplane());
    data.extend(next.words(0, 156));
    assert_eq!(number(&data), 77);
    next.settle();
    assert_eq!(number(&next.words(0, 256)), 78);
}

#[test]
fn the_state_of_other_drives_is_refused() {
    let mut d = Driver::new();
    let mut other = with_drives(&mut Bench::new());
    assert!(other.load(VERSION, &saved(&d.ide)).is_err());
    let mut long = saved(&d.ide);
    long.push(0);
    assert!(d.ide.load(VERSION, &long).is_err());
    // More bytes to read than there are, and sectors past the end.
    d.command(0x20, 0, 2);
    let mut liar = Driver::new();
    let drive = d.ide.channels[0].drives[0].as_mut().expect("a disk");
    drive.s.drq += 1;
    assert!(liar.ide.load(VERSION, &saved(&d.ide)).is_err());
    let drive = d.ide.channels[0].drives[0].as_mut().expect("a disk");
    (drive.s.drq, drive.s.run.left) = (512, DISK as u32);
    assert!(liar.ide.load(VERSION, &saved(&d.ide)).is_err());
}

#[test]
fn the_status_is_mirrored_only_while_reading_it_has_no_effect() {
    let mut d = Driver::new();
    d.command(0x20, 0, 1);
    let mut bytes = [0; 16];
    let valid = d.ide.mirror(0, &mut bytes);
    assert_eq!((valid & 0x80, bytes[7]), (0, DRDY | DSC | DRQ));
    assert_eq!((d.ide.mirror(1, &mut bytes), bytes[0]), (1, DRDY | DSC | DRQ));
    d.inb(0, 7);
    assert_eq!(d.ide.mirror(0, &mut bytes), 0xFE);
}

#[test]
fn absent_drives_read_as_zeros_and_swallow_commands() {
    let mut d = Driver::new();
    d.outb(0, 6, 0xB0);
    for (reg, value) in [(2, 0x55), (3, 0xAA)] {
        d.outb(0, reg, value);
        assert_eq!(d.inb(0, reg), 0);
    }
    d.outb(0, 7, 0xEC);
    d.settle();
    assert_eq!((d.inb(0, 7), d.edges(0)), (0, 0));
    d.outb(0, 6, 0xA0);
    assert_eq!(d.inb(0, 7), DRDY | DSC);
}

#[test]
fn nien_holds_the_interrupt_back() {
    let mut d = Driver::new();
    d.outb(1, 0, 2);
    d.command(0xE7, 0, 0);
    assert!(!d.high(0));
    d.outb(1, 0, 0);
    assert!(d.high(0));
    assert_eq!(d.inb(BUS_MASTER, 2) & 4, 4);
    d.alt();
    assert!(d.high(0), "the alternate status does not acknowledge");
    assert_eq!(d.inb(0, 7) & ERR, 0);
    assert!(!d.high(0));
}

#[test]
fn a_software_reset_shows_signatures_and_drops_what_was_under_way() {
    let mut d = Driver::new();
    d.command(0x20, 9, 4);
    d.outb(1, 0, 4);
    assert_eq!(d.alt() & BSY, BSY);
    assert!(!d.high(0));
    d.outb(1, 0, 0);
    d.settle();
    let block: Vec<u8> = (1..8).map(|reg| d.inb(0, reg)).collect();
    assert_eq!(block, [1, 1, 1, 0, 0, 0xA0, DRDY | DSC]);
    d.outb(3, 0, 4);
    d.outb(3, 0, 0);
    let block: Vec<u8> = (1..8).map(|reg| d.inb(2, reg)).collect();
    assert_eq!(block, [1, 1, 1, 0x14, 0xEB, 0xA0, 0]);
    assert_eq!(d.inb(0, 1), error::PASSED);
}
