//! A driver's view of the controller, over an image in memory.

use super::*;
use crate::block::tests::MemoryImage;
use crate::bus::Size;
use crate::bus::contract::{Bench, device_contract};
use crate::isa_dma::IsaDmaPorts;
use quintet_protocol::addr::GuestPhys;

/// Sectors of 1.44 MB.
const SECTORS: u64 = 2880;
const BUFFER: u64 = 0x2_0000;

struct Driver {
    bench: Bench,
    floppy: Floppy,
    image: MemoryImage,
}

fn controller(bench: &mut Bench, image: &MemoryImage, read_only: bool) -> Floppy {
    let disk = bench.disks.add_here("floppy", Box::new(image.clone()), read_only);
    let geometry = Geometry::of(bench.disks.len_of(disk)).expect("a format");
    let drive = FloppyDrive {
        diskette: Some(Diskette { disk, geometry }),
        medium: 0,
    };
    Floppy::new(&mut bench.irq, drive)
}

fn numbered(bench: &mut Bench) -> Floppy {
    controller(bench, &MemoryImage::numbered(SECTORS), false)
}

device_contract!(contract, numbered);

impl Driver {
    fn new() -> Self {
        Self::with(false)
    }

    /// A drive that has been reset, at 500 kb/s.
    fn with(read_only: bool) -> Self {
        let mut bench = Bench::new();
        let image = MemoryImage::numbered(SECTORS);
        let floppy = controller(&mut bench, &image, read_only);
        let mut this = Self { bench, floppy, image };
        this.outb(0, 2, 0x1C);
        assert!(this.line());
        for drive in 0..4 {
            assert_eq!(this.command(&[0x08]), [0xC0 | drive, 0]);
        }
        assert!(!this.line());
        this.command(&[0x03, 0xDF, 0x02]);
        this
    }

    fn outb(&mut self, region: u8, offset: u64, value: u8) {
        self.bench
            .write(&mut self.floppy, region, offset, Size::BYTE, u64::from(value));
    }

    fn inb(&mut self, region: u8, offset: u64) -> u8 {
        self.bench.read(&mut self.floppy, region, offset, Size::BYTE) as u8
    }

    fn line(&self) -> bool {
        self.bench.irq.wires()[usize::from(LINE)].high
    }

    fn settle(&mut self) {
        while self.bench.submit() {
            self.floppy.advance(&mut self.bench.backplane());
        }
    }

    /// Gives a command, lets the machine go on, and answers the result.
    fn command(&mut self, bytes: &[u8]) -> Vec<u8> {
        for byte in bytes {
            assert_eq!(self.inb(0, 4) & 0xC0, 0x80, "asks for a command");
            self.outb(0, 5, *byte);
        }
        self.settle();
        self.result()
    }

    fn result(&mut self) -> Vec<u8> {
        let mut result = Vec::new();
        while self.inb(0, 4) & 0xC0 == 0xC0 {
            result.push(self.inb(0, 5));
        }
        result
    }

    fn seek(&mut self, cylinder: u8) {
        assert!(self.command(&[0x0F, 0, cylinder]).is_empty());
        assert!(self.line());
        assert_eq!(self.command(&[0x08]), [0x20, cylinder]);
    }

    /// Channel 2 for `len` bytes at [`BUFFER`].
    fn channel(&mut self, mode: u8, len: u16) {
        let mut out = |region, offset, value: u8| {
            self.bench
                .write(&mut IsaDmaPorts, region, offset, Size::BYTE, u64::from(value));
        };
        out(0, 0xC, 0);
        out(0, 0xB, mode | 2);
        out(0, 4, 0);
        out(0, 4, 0);
        out(1, 0, (BUFFER >> 16) as u8);
        for byte in (len - 1).to_le_bytes() {
            out(0, 5, byte);
        }
        out(0, 0xA, 2);
    }

    fn memory(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.bench.dma.read(GuestPhys(BUFFER), &mut bytes);
        bytes
    }

    fn sectors(&self, first: u64, count: usize) -> Vec<u8> {
        (first..).take(count).flat_map(|n| self.image.sector(n)).collect()
    }
}

/// Number of a sector from the start.
fn block(cylinder: u64, head: u64, sector: u64) -> u64 {
    (cylinder * 2 + head) * 18 + sector - 1
}

#[test]
fn a_read_ends_when_the_channel_has_counted_to_its_end() {
    let mut d = Driver::new();
    d.seek(5);
    d.channel(0x44, 3 * 512);
    // MT, MFM, SK: cylinder 5, head 1, sector 4, up to 18.
    let result = d.command(&[0xE6, 4, 5, 1, 4, 2, 18, 27, 0xFF]);
    assert_eq!(result, [0x04, 0, 0, 5, 1, 7, 2]);
    assert!(!d.line(), "lowered by the result");
    assert_eq!(d.memory(3 * 512), d.sectors(block(5, 1, 4), 3));
    assert_eq!(d.memory(3 * 512 + 1).last(), Some(&0));
}

#[test]
fn a_read_goes_on_with_the_other_side() {
    let mut d = Driver::new();
    d.seek(2);
    d.channel(0x44, 36 * 512);
    let result = d.command(&[0xE6, 0, 2, 0, 1, 2, 18, 27, 0xFF]);
    assert_eq!(result, [0x04, 0, 0, 3, 0, 1, 2]);
    assert_eq!(d.memory(36 * 512), d.sectors(block(2, 0, 1), 36));
}

#[test]
fn a_channel_that_wants_more_than_the_track_is_told_of_its_end() {
    let mut d = Driver::new();
    d.channel(0x44, 4 * 512);
    let result = d.command(&[0x46, 0, 0, 0, 17, 2, 18, 27, 0xFF]);
    assert_eq!(result[..3], [0x40, 0x80, 0]);
    assert_eq!(d.memory(2 * 512), d.sectors(block(0, 0, 17), 2));
}

#[test]
fn a_write_reaches_the_image_and_the_rest_of_a_sector_is_zero() {
    let mut d = Driver::new();
    d.seek(79);
    let data: Vec<u8> = (0..700).map(|i| i as u8 ^ 0xA5).collect();
    d.bench.dma.write(GuestPhys(BUFFER), &data);
    d.channel(0x48, 700);
    let result = d.command(&[0xC5, 0, 79, 0, 17, 2, 18, 27, 0xFF]);
    assert_eq!(result[..3], [0, 0, 0]);
    let written = d.sectors(block(79, 0, 17), 2);
    assert_eq!(written[..700], data);
    assert!(written[700..].iter().all(|b| *b == 0));
}

#[test]
fn a_track_is_formatted_with_what_it_is_filled_with() {
    let mut d = Driver::new();
    d.seek(1);
    let before = d.sectors(block(1, 0, 1), 18);
    d.channel(0x48, 18 * 4);
    let result = d.command(&[0x4D, 4, 2, 18, 0x54, 0xF6]);
    assert_eq!(result[..3], [0x04, 0, 0]);
    assert!(d.sectors(block(1, 1, 1), 18).iter().all(|b| *b == 0xF6));
    assert_eq!(d.sectors(block(1, 0, 1), 18), before);
    assert_eq!(
        d.sectors(block(2, 0, 1), 1),
        MemoryImage::numbered(SECTORS).sector(block(2, 0, 1))
    );
}

#[test]
fn sectors_that_are_not_there_are_not_found() {
    let mut d = Driver::new();
    d.channel(0x44, 512);
    for (command, st) in [
        ([0x46, 0, 0, 0, 19, 2, 19, 27, 0xFF], [0x40, 0x04, 0]),
        ([0x46, 0, 1, 0, 1, 2, 18, 27, 0xFF], [0x40, 0x04, 0x10]),
        ([0x46, 0, 0, 0, 1, 3, 18, 27, 0xFF], [0x40, 0x04, 0]),
        ([0x06, 0, 0, 0, 1, 2, 18, 27, 0xFF], [0x40, 0x01, 0]),
        ([0x46, 1, 0, 0, 1, 2, 18, 27, 0xFF], [0x41, 0x01, 0]),
    ] {
        assert_eq!(d.command(&command)[..3], st, "{command:x?}");
    }
    let mut d = Driver::with(true);
    d.channel(0x48, 512);
    assert_eq!(
        d.command(&[0x45, 0, 0, 0, 1, 2, 18, 27, 0xFF])[..3],
        [0x40, 0x02, 0]
    );
    assert_eq!(d.command(&[0x04, 0]), [0x78], "protected, track 0, two sides");
}

#[test]
fn the_drive_says_where_it_is_and_whether_the_diskette_was_changed() {
    let mut d = Driver::new();
    assert_eq!(d.inb(1, 0), 0x80, "nobody has looked at it yet");
    d.seek(3);
    assert_eq!(d.inb(1, 0), 0x00);
    assert_eq!(d.command(&[0x4A, 4]), [0x04, 0, 0, 3, 1, 1, 2]);
    d.command(&[0x07, 0]);
    assert_eq!(d.command(&[0x08]), [0x20, 0]);
    d.command(&[0x07, 1]);
    assert_eq!(d.command(&[0x08]), [0x71, 0], "there is no second drive");
    assert_eq!(d.command(&[0x08]), [0x80], "nothing to tell");
}

#[test]
fn drivers_recognise_an_82077() {
    let mut d = Driver::new();
    assert_eq!(d.command(&[0x10]), [0x90]);
    d.command(&[0x13, 0, 0x57, 0]);
    assert_eq!(d.command(&[0x94]), [0x10]);
    assert_eq!(d.command(&[0x0E]), [0, 0, 0, 0, 0xDF, 0x02, 0, 0x80, 0x57, 0]);
    // Locked: a reset by software leaves the configuration alone.
    d.outb(0, 4, 0x80);
    while d.command(&[0x08]).len() == 2 {}
    assert_eq!(d.command(&[0x0E])[8..], [0x57, 0]);
    assert_eq!(d.command(&[0x18]), [0x80]);
}

#[test]
fn a_gate_that_is_shut_keeps_the_line_low() {
    let mut d = Driver::new();
    d.outb(0, 2, 0x14);
    d.command(&[0x07, 0]);
    assert!(!d.line());
    d.outb(0, 2, 0x1C);
    assert!(d.line());
}

#[test]
fn a_successor_does_again_what_was_under_way() {
    for (mode, command) in [(0x44, 0xE6), (0x48, 0xC5)] {
        let mut d = Driver::new();
        d.bench.dma.write(GuestPhys(BUFFER), &[0x77; 1024]);
        d.channel(mode, 1024);
        for byte in [command, 0, 0, 0, 9, 2, 18, 27, 0xFF] {
            d.outb(0, 5, byte);
        }
        // Died between the commit and the answer of the image.
        let mut state = Vec::new();
        d.floppy.save(&mut state);
        let mut successor = controller(&mut d.bench, &d.image, false);
        successor.load(1, &state).expect("loads");
        d.floppy = successor;
        d.floppy.start(&mut d.bench.backplane());
        d.settle();
        assert_eq!(d.result()[..3], [0, 0, 0], "{command:#x}");
        let expected = if mode == 0x44 {
            d.memory(1024)
        } else {
            vec![0x77; 1024]
        };
        assert_eq!(d.sectors(block(0, 0, 9), 2), expected);
    }
}

#[test]
fn a_channel_that_opens_late_is_waited_for() {
    let mut d = Driver::new();
    for byte in [0xE6, 0, 0, 0, 1, 2, 18, 27, 0xFF] {
        d.outb(0, 5, byte);
    }
    d.settle();
    assert_eq!(d.inb(0, 4), 0x10, "busy");
    d.channel(0x44, 512);
    d.bench.pass(&mut d.floppy, 2 * RETRY);
    d.settle();
    assert_eq!(d.result()[..3], [0, 0, 0]);
    assert_eq!(d.memory(512), d.sectors(0, 1));
}

/// A successor of the driver's controller that finds the drive with another diskette, or none.
fn exchanged(d: &mut Driver, other: Option<&MemoryImage>) {
    let mut state = Vec::new();
    d.floppy.save(&mut state);
    let diskette = other.map(|image| {
        let disk = d.bench.disks.add_here("other", Box::new(image.clone()), false);
        let geometry = Geometry::of(d.bench.disks.len_of(disk)).expect("a format");
        Diskette { disk, geometry }
    });
    let medium = d.floppy.medium + 1;
    d.floppy = Floppy::new(&mut d.bench.irq, FloppyDrive { diskette, medium });
    d.floppy.load(1, &state).expect("loads");
    d.floppy.start(&mut d.bench.backplane());
    d.settle();
}

#[test]
fn another_diskette_is_a_change_and_what_was_under_way_is_not_found() {
    for (mode, command) in [(0x44, 0xE6), (0x48, 0xC5)] {
        let mut d = Driver::new();
        d.seek(3);
        assert_eq!(d.inb(1, 0), 0, "not changed");
        d.channel(mode, 1024);
        for byte in [command, 0, 3, 0, 9, 2, 18, 27, 0xFF] {
            d.outb(0, 5, byte);
        }
        // Smaller than what was being read.
        let other = MemoryImage::numbered(1440);
        exchanged(&mut d, Some(&other));
        assert!(d.line(), "{command:#x}");
        assert_eq!(d.result(), [0x40, 1, 0, 3, 0, 9, 2], "{command:#x}");
        assert_eq!(d.inb(1, 0), 0x80, "changed");
        assert_eq!(other.sector(8), MemoryImage::numbered(1440).sector(8));
        d.seek(0);
        assert_eq!(d.inb(1, 0), 0, "the heads have moved");
        d.channel(0x44, 512);
        assert_eq!(d.command(&[0xE6, 0, 0, 0, 9, 2, 9, 27, 0xFF])[..3], [0, 0, 0]);
    }
}

#[test]
fn an_empty_drive_stays_changed_until_something_is_in_it() {
    let mut d = Driver::new();
    d.seek(1);
    exchanged(&mut d, None);
    d.seek(0);
    assert_eq!(d.inb(1, 0), 0x80);
    d.channel(0x44, 512);
    assert_eq!(d.command(&[0xE6, 0, 0, 0, 1, 2, 18, 27, 0xFF])[..3], [0x40, 1, 0]);
    d.floppy.reset(&mut d.bench.backplane());
    assert_eq!(d.inb(1, 0), 0x80, "a reset finds no diskette either");
    exchanged(&mut d, Some(&MemoryImage::numbered(SECTORS)));
    d.outb(0, 2, 0x1C);
    assert_eq!(d.inb(1, 0), 0x80);
    while d.command(&[0x08]).len() == 2 {}
    d.seek(1);
    assert_eq!(d.inb(1, 0), 0);
}
