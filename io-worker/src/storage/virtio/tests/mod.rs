//! A driver's view of the device, over an image in memory.

mod function;
mod hostile;
mod requests;

use quintet_protocol::addr::GuestPhys;

use super::queue::desc_flag::{INDIRECT, NEXT, WRITE};
use super::*;
use crate::block::tests::MemoryImage;
use crate::bus::Size;
use crate::bus::contract::{Bench, device_contract, saved};

/// Sectors of the disk in [`Driver`].
const SECTORS: u64 = 4096;
/// Where the driver has its queue.
const DESC: u64 = 0x1_0000;
const AVAIL: u64 = 0x1_2000;
const USED: u64 = 0x1_3000;
/// A header, a status and data of the driver's.
const HEADER: u64 = 0x1_8000;
const STATUS: u64 = 0x1_9000;
const DATA: u64 = 0x2_0000;
/// What a status byte holds until the device writes it.
const UNWRITTEN: u8 = 0xEE;
/// All that a driver wants.
const ALL: u64 = feature::FLUSH
    | feature::CONFIG_WCE
    | feature::DISCARD
    | feature::WRITE_ZEROES
    | feature::INDIRECT_DESC
    | feature::EVENT_IDX
    | feature::VERSION_1;
const PLAIN: u64 = feature::FLUSH | feature::VERSION_1;

/// A device with a driver.
struct Driver {
    bench: Bench,
    disk: VirtioBlk,
    image: MemoryImage,
    id: DiskId,
    size: u16,
    /// Index of the available ring.
    avail: u16,
}

fn device(bench: &mut Bench, image: &MemoryImage, read_only: bool) -> (VirtioBlk, DiskId) {
    let disk = bench.disks.add_here("test", Box::new(image.clone()), read_only);
    let config = VirtioConfig {
        disk,
        len: bench.disks.len_of(disk),
        read_only,
        serial: "QT00005".into(),
    };
    (VirtioBlk::new(&mut bench.irq, 0, &config), disk)
}

impl Driver {
    /// A device that the driver has not touched.
    fn untouched(read_only: bool) -> Self {
        let mut bench = Bench::new();
        bench.irq.route(pirq_of(5, 1), Some(crate::bus::Line(10)));
        let image = MemoryImage::numbered(SECTORS);
        let (disk, id) = device(&mut bench, &image, read_only);
        Self {
            bench,
            disk,
            image,
            id,
            size: 16,
            avail: 0,
        }
    }

    /// A device that the driver has set going.
    fn new(features: u64) -> Self {
        let mut d = Self::untouched(false);
        d.set_going(features);
        d
    }

    fn get(&mut self, offset: u64, size: Size) -> u64 {
        self.bench.read(&mut self.disk, 0, offset, size)
    }

    fn set(&mut self, offset: u64, size: Size, value: u64) {
        self.bench.write(&mut self.disk, 0, offset, size, value);
    }

    fn status(&mut self) -> u8 {
        self.get(0x14, Size::BYTE) as u8
    }

    fn set_going(&mut self, features: u64) {
        self.set(0x14, Size::BYTE, 0);
        self.set(0x14, Size::BYTE, 1 | 2);
        for half in 0..2 {
            self.set(0x08, Size::DWORD, half);
            self.set(0x0C, Size::DWORD, features >> (32 * half));
        }
        self.set(0x14, Size::BYTE, 1 | 2 | 8);
        assert_eq!(self.status(), 1 | 2 | 8);
        self.set(0x16, Size::WORD, 0);
        self.set(0x18, Size::WORD, u64::from(self.size));
        for (register, address) in [(0x20, DESC), (0x28, AVAIL), (0x30, USED)] {
            self.set(register, Size::DWORD, address);
            self.set(register + 4, Size::DWORD, 0);
        }
        self.put(AVAIL, &[0; 0x400]);
        self.put(USED, &[0; 0x1000]);
        self.set(0x1C, Size::WORD, 1);
        self.set(0x14, Size::BYTE, 1 | 2 | 8 | 4);
        self.avail = 0;
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        self.bench.dma.write(GuestPhys(at), bytes);
    }

    fn ram(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.bench.dma.read(GuestPhys(at), &mut bytes);
        bytes
    }

    fn word(&self, at: u64) -> u16 {
        self.bench.dma.load_u16(GuestPhys(at)).expect("RAM")
    }

    fn describe(&mut self, table: u64, n: u16, at: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = at.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.put(table + 16 * u64::from(n), &bytes);
    }

    /// A chain of these buffers (address, bytes, whether the device writes) from descriptor `first` on.
    fn chain(&mut self, first: u16, buffers: &[(u64, u32, bool)]) {
        for (i, &(at, len, write)) in (0..).zip(buffers) {
            let last = usize::from(i) + 1 == buffers.len();
            let flags = if last { 0 } else { NEXT } | if write { WRITE } else { 0 };
            self.describe(DESC, first + i, at, len, flags, first + i + 1);
        }
    }

    fn header(&mut self, at: u64, kind: u32, sector: u64) {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(sector.to_le_bytes());
        self.put(at, &bytes);
    }

    /// Makes the chain at `head` available, without a notification.
    fn offer(&mut self, head: u16) {
        let at = AVAIL + 4 + 2 * u64::from(self.avail % self.size);
        self.put(at, &head.to_le_bytes());
        self.avail = self.avail.wrapping_add(1);
        self.bench.dma.store_u16(GuestPhys(AVAIL + 2), self.avail);
    }

    fn notify(&mut self) {
        self.set(u64::from(super::function::NOTIFY), Size::WORD, 0);
    }

    /// A commit: completions are shown, then what was asked is done.
    fn commit(&mut self) -> bool {
        self.disk.completed(&mut self.bench.backplane());
        self.bench.submit()
    }

    /// The machine goes on until nothing happens any more.
    fn settle(&mut self) {
        loop {
            let done = self.commit();
            if !self.disk.advance(&mut self.bench.backplane()) && !done {
                break;
            }
        }
    }

    /// Entries that the device has put into the used ring, as far as the ring goes back.
    fn used(&self) -> Vec<(u32, u32)> {
        let index = self.word(USED + 2);
        (0..index)
            .map(|i| {
                let bytes = self.ram(USED + 4 + 8 * u64::from(i % self.size), 8);
                let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
                (word(0), word(4))
            })
            .collect()
    }

    fn interrupted(&self) -> bool {
        self.bench.wire(10).high
    }

    /// The interrupt's causes, which are none afterwards.
    fn acknowledge(&mut self) -> u8 {
        self.get(u64::from(super::function::ISR), Size::BYTE) as u8
    }

    /// One request by a chain of header, data and status; answers the status and the bytes written.
    fn request(&mut self, kind: u32, sector: u64, data: &[(u64, u32, bool)]) -> (u8, u32) {
        self.header(HEADER, kind, sector);
        self.put(STATUS, &[UNWRITTEN]);
        let mut buffers = vec![(HEADER, 16, false)];
        buffers.extend(data);
        buffers.push((STATUS, 1, true));
        self.chain(0, &buffers);
        self.ask()
    }

    /// What the chain at descriptor 0 comes to.
    fn ask(&mut self) -> (u8, u32) {
        let before = self.word(USED + 2);
        self.offer(0);
        self.notify();
        self.settle();
        let index = self.word(USED + 2);
        if index == before {
            return (UNWRITTEN, 0);
        }
        assert_eq!(index, before.wrapping_add(1));
        let bytes = self.ram(USED + 4 + 8 * u64::from(before % self.size), 8);
        assert_eq!(bytes[..4], [0; 4]);
        let len = u32::from_le_bytes(bytes[4..].try_into().expect("four"));
        (self.ram(STATUS, 1)[0], len)
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"))
}

fn on_a_bench(bench: &mut Bench) -> VirtioBlk {
    device(bench, &MemoryImage::numbered(64), false).0
}

device_contract!(virtio_blk, on_a_bench);

#[test]
fn a_driver_that_accepts_what_was_not_offered_or_no_modern_device_gets_none() {
    let mut d = Driver::untouched(false);
    for features in [
        0,
        feature::FLUSH,
        feature::VERSION_1 | 1 << 40,
        feature::VERSION_1 | feature::RO,
    ] {
        d.set(0x14, Size::BYTE, 0);
        d.set(0x14, Size::BYTE, 3);
        for half in 0..2 {
            d.set(0x08, Size::DWORD, half);
            d.set(0x0C, Size::DWORD, features >> (32 * half));
        }
        d.set(0x14, Size::BYTE, 3 | 8 | 4);
        assert_eq!(d.status(), 3, "{features:#x}");
    }
    d.set_going(ALL);
    // Neither features nor queue can be changed any more.
    d.set(0x08, Size::DWORD, 0);
    d.set(0x0C, Size::DWORD, 0);
    d.set(0x18, Size::WORD, 8);
    d.set(0x20, Size::QWORD, 0x5000);
    assert_eq!(d.get(0x0C, Size::DWORD), ALL & 0xFFFF_FFFF);
    assert_eq!((d.get(0x18, Size::WORD), d.get(0x20, Size::QWORD)), (16, DESC));
    // There is one queue.
    assert_eq!(d.get(0x12, Size::WORD), 1);
    d.set(0x16, Size::WORD, 1);
    assert_eq!((d.get(0x18, Size::WORD), d.get(0x1C, Size::WORD)), (0, 0));
    d.set(0x14, Size::BYTE, 0);
    assert_eq!((d.status(), d.get(0x1C, Size::WORD)), (0, 0));
}

#[test]
fn the_configuration_tells_of_the_disk() {
    let mut d = Driver::untouched(false);
    let base = u64::from(super::function::DEVICE);
    assert_eq!(d.get(base, Size::QWORD), SECTORS);
    assert_eq!(d.get(base + 8, Size::DWORD), 16 << 10);
    assert_eq!(d.get(base + 12, Size::DWORD), 254);
    assert_eq!(d.get(base + 20, Size::DWORD), 512);
    assert_eq!(d.get(base + 32, Size::BYTE), 1);
    let offered = |d: &mut Driver| {
        d.set(0, Size::DWORD, 0);
        d.get(4, Size::DWORD)
    };
    assert_eq!(offered(&mut d) & feature::RO, 0);
    d.set(0, Size::DWORD, 1);
    assert_eq!(d.get(4, Size::DWORD), 1, "VERSION_1");
    let mut d = Driver::untouched(true);
    assert_eq!(offered(&mut d) & (feature::RO | feature::DISCARD), feature::RO);
}

#[test]
fn nothing_is_taken_before_the_driver_is_ready_and_then_at_once() {
    let mut d = Driver::untouched(false);
    d.header(HEADER, 0, 7);
    d.chain(0, &[(HEADER, 16, false), (DATA, 512, true), (STATUS, 1, true)]);
    d.notify();
    d.settle();
    d.set_going(PLAIN);
    d.offer(0);
    d.settle();
    assert_eq!(d.word(USED + 2), 0, "nobody has told the device");
    d.notify();
    d.settle();
    assert_eq!((d.used(), number(&d.ram(DATA, 8))), (vec![(0, 513)], 7));
}

#[test]
fn an_interrupt_is_one_until_it_is_read_and_can_be_declined() {
    let mut d = Driver::new(PLAIN);
    assert!(!d.interrupted());
    assert_eq!(d.request(0, 1, &[(DATA, 512, true)]), (0, 513));
    assert_eq!(d.request(0, 2, &[(DATA, 512, true)]), (0, 513));
    assert!(d.interrupted());
    assert_eq!(d.bench.wire(10).edges, 1);
    assert_eq!((d.acknowledge(), d.acknowledge()), (1, 0));
    assert!(!d.interrupted());
    d.put(AVAIL, &[1, 0]);
    d.request(0, 3, &[(DATA, 512, true)]);
    assert!(!d.interrupted(), "VIRTQ_AVAIL_F_NO_INTERRUPT");
    d.put(AVAIL, &[0, 0]);
    d.request(0, 3, &[(DATA, 512, true)]);
    d.set(0x14, Size::BYTE, 0);
    assert!(!d.interrupted(), "a reset takes it back");
}

#[test]
fn with_event_indices_both_sides_say_from_where_on_they_want_to_know() {
    let mut d = Driver::new(ALL);
    let used_event = AVAIL + 4 + 2 * 16;
    let avail_event = USED + 4 + 8 * 16;
    d.put(used_event, &1_u16.to_le_bytes());
    d.request(0, 1, &[(DATA, 512, true)]);
    assert!(!d.interrupted(), "it waits for the second");
    assert_eq!(d.word(avail_event), 1);
    d.request(0, 1, &[(DATA, 512, true)]);
    assert!(d.interrupted());
    assert_eq!((d.acknowledge(), d.word(avail_event)), (1, 2));
    // It has not said anything since: it looks by itself.
    d.request(0, 1, &[(DATA, 512, true)]);
    assert!(!d.interrupted());
}

#[test]
fn indices_wrap() {
    let mut d = Driver::new(PLAIN);
    for n in 0..66_000_u32 {
        let sector = u64::from(n) % SECTORS;
        assert_eq!(d.request(0, sector, &[(DATA, 512, true)]), (0, 513), "{n}");
        assert_eq!(number(&d.ram(DATA, 8)), sector, "{n}");
    }
    assert_eq!(d.word(USED + 2), 66_000_u32 as u16);
}

#[test]
fn a_function_that_is_no_bus_master_moves_nothing_until_it_is() {
    let mut d = Driver::new(PLAIN);
    d.bench.may_master = false;
    assert_eq!(d.request(0, 9, &[(DATA, 512, true)]), (UNWRITTEN, 0));
    d.bench.may_master = true;
    d.disk.advance(&mut d.bench.backplane());
    // Taken away while the image reads.
    d.bench.may_master = false;
    d.settle();
    assert_eq!((d.word(USED + 2), number(&d.ram(DATA, 8))), (0, 0));
    d.bench.may_master = true;
    d.settle();
    assert_eq!((d.word(USED + 2), number(&d.ram(DATA, 8))), (1, 9));
}

/// The device of a successor, which has the memory of the guest and what was committed.
fn successor(d: &mut Driver, committed: &[u8]) {
    let (image, read_only) = (d.image.clone(), false);
    let id = d
        .bench
        .disks
        .add_here("again", Box::new(image.clone()), read_only);
    let config = VirtioConfig {
        disk: id,
        len: d.bench.disks.len_of(id),
        read_only,
        serial: String::new(),
    };
    let mut next = VirtioBlk::new(&mut d.bench.irq, 0, &config);
    next.load(1, committed).expect("its own state");
    (d.disk, d.id) = (next, id);
    d.disk.start(&mut d.bench.backplane());
}

#[test]
fn a_successor_asks_again_in_order_for_what_was_under_way() {
    let mut d = Driver::new(ALL);
    // Three writes to one sector, and a read of it, all under way at once.
    for n in 0..4_u16 {
        let at = u64::from(n);
        d.header(HEADER + 16 * at, u32::from(n < 3), 5);
        d.put(DATA + 512 * at, &[0x30 + n as u8; 512]);
        d.chain(
            3 * n,
            &[
                (HEADER + 16 * at, 16, false),
                (DATA + 512 * at, 512, n == 3),
                (STATUS + at, 1, true),
            ],
        );
        d.offer(3 * n);
    }
    d.notify();
    let committed = saved(&d.disk);
    assert_eq!(d.disk.s.queue.taken, [0, 3, 6, 9]);
    // All of it is done, and the worker dies before it has said so.
    d.bench.submit();
    assert_eq!(d.image.sector(5), [0x32; 512]);
    successor(&mut d, &committed);
    d.settle();
    assert_eq!(d.used(), [(0, 1), (3, 1), (6, 1), (9, 513)]);
    assert_eq!(d.ram(STATUS, 4), [0; 4]);
    assert_eq!(
        (d.image.sector(5), d.ram(DATA + 1536, 512)),
        (vec![0x32; 512], vec![0x32; 512])
    );
    assert_eq!(d.image.0.lock().expect("whole").writes.len(), 6);
}

#[test]
fn what_was_asked_for_and_not_begun_ends_with_the_reset() {
    // By the driver, by the machine, and because the driver has broken the rules.
    for way in 0..3 {
        let mut d = Driver::new(PLAIN);
        d.put(DATA, &[7; 1024]);
        for (n, kind) in [(0_u16, 1), (1, 0)] {
            let at = u64::from(n);
            d.header(HEADER + 16 * at, kind, 5);
            let data = (DATA + 512 * at, 512, kind == 0);
            d.chain(
                3 * n,
                &[(HEADER + 16 * at, 16, false), data, (STATUS + at, 1, true)],
            );
            d.offer(3 * n);
        }
        d.put(STATUS, &[UNWRITTEN; 2]);
        d.notify();
        assert_eq!(d.disk.flights.len(), 2);
        match way {
            0 => d.set(0x14, Size::BYTE, 0),
            1 => d.disk.reset(&mut d.bench.backplane()),
            _ => {
                d.offer(99);
                d.notify();
                assert_ne!(d.status() & status::NEEDS_RESET, 0);
            }
        }
        d.put(DATA, &[8; 1024]);
        d.settle();
        assert_eq!(d.bench.disks.under_way(), 0);
        assert_eq!(number(&d.image.sector(5)), 5, "written nowhere");
        assert_eq!(d.image.0.lock().expect("whole").writes, []);
        assert_eq!(
            (d.ram(DATA, 1024), d.ram(STATUS, 2)),
            (vec![8; 1024], vec![UNWRITTEN; 2])
        );
    }
}

#[test]
fn showing_twice_what_is_used_shows_the_same() {
    let mut d = Driver::new(PLAIN);
    for n in 0..3_u16 {
        d.header(HEADER + 16 * u64::from(n), 8, 0);
        d.chain(
            3 * n,
            &[
                (HEADER + 16 * u64::from(n), 16, false),
                (DATA, 20, true),
                (STATUS + u64::from(n), 1, true),
            ],
        );
        d.offer(3 * n);
    }
    d.notify();
    let committed = saved(&d.disk);
    d.commit();
    assert!(d.interrupted());
    assert_eq!(d.acknowledge(), 1);
    let ring = d.ram(USED, 64);
    assert_eq!(d.used(), [(0, 21), (3, 21), (6, 21)]);
    // The second commit, of what was shown, was never made.
    successor(&mut d, &committed);
    d.settle();
    assert_eq!(d.ram(USED, 64), ring);
    // And goes on behind it.
    assert_eq!(d.request(8, 0, &[(DATA, 20, true)]), (0, 21));
    assert_eq!(d.word(USED + 2), 4);
}

#[test]
fn a_state_that_no_queue_can_be_in_is_refused() {
    let d = Driver::new(PLAIN);
    let sound = d.disk.s.clone();
    let mut bench = Bench::new();
    let (mut next, _) = device(&mut bench, &d.image, false);
    type Spoil = fn(&mut State);
    let spoils: [Spoil; 4] = [
        |s| s.queue.size = 12,
        |s| s.queue.size = 512,
        |s| s.queue.taken = vec![16],
        |s| s.queue.finished = vec![(0, 0); 17],
    ];
    for spoil in spoils {
        let mut state = sound.clone();
        spoil(&mut state);
        let mut bytes = Vec::new();
        save_state(&state, &mut bytes);
        assert!(next.load(1, &bytes).is_err(), "{state:?}");
    }
    assert!(next.load(1, &saved(&d.disk)).is_ok());
}
