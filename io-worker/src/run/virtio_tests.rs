//! A virtio disk while the worker is killed at every step: several requests are under way at once, each is done before its
//! end is seen and never after, and the driver is shown each end once.

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::handshake::config::DiskPlace;
use quintet_protocol::message::{Command, CommandFlags};
use quintet_protocol::ram::GuestRam;

use super::rig::Rig;

/// Configuration of the disk.
const FUNCTION: u32 = 0x8000_2800;
/// Where the guest puts BAR 4, and its structures there.
const BAR: u64 = 0xFE00_0000;
const ISR: u64 = BAR + 0x1000;
const NOTIFY: u64 = BAR + 0x3000;
const SIZE: u16 = 16;
const DESC: u64 = 0x8000;
const AVAIL: u64 = 0x9000;
const USED: u64 = 0xA000;
const HEADERS: u64 = 0xB000;
const STATUS: u64 = 0xC000;
const DATA: u64 = 0x1_0000;
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
/// Sectors of a request.
const LEN: usize = 3 * 512;

fn rig() -> Rig {
    Rig::with_disk(DiskPlace::Virtio { unit: 0 }, "QT00005")
}

/// A posted write.
fn write(r: &mut Rig, addr: u64, size: u8, value: u64) {
    r.post(Command::MmioWrite {
        flags: CommandFlags::POSTED,
        addr: GuestPhys(addr),
        size,
        value,
    });
}

fn read(r: &mut Rig, addr: u64) -> u8 {
    let (_, data) = r.ask(Command::MmioRead {
        addr: GuestPhys(addr),
        size: 1,
    });
    data[0]
}

/// The guest's driver.
struct Driver {
    ram: GuestRam,
    avail: u16,
    seen: u16,
}

impl Driver {
    fn new(r: &mut Rig) -> Self {
        let ram = r.set.guest_ram().expect("RAM");
        r.pci(FUNCTION, 0x20, 4, BAR as u32);
        r.pci(FUNCTION, 0x04, 4, 6);
        write(r, BAR + 0x14, 1, 0);
        write(r, BAR + 0x14, 1, 3);
        // FLUSH; VERSION_1.
        for (half, features) in [(0, 1 << 9), (1, 1)] {
            write(r, BAR + 0x08, 4, half);
            write(r, BAR + 0x0C, 4, features);
        }
        write(r, BAR + 0x14, 1, 3 | 8);
        write(r, BAR + 0x18, 2, u64::from(SIZE));
        for (register, address) in [(0x20, DESC), (0x28, AVAIL), (0x30, USED)] {
            write(r, BAR + register, 8, address);
        }
        write(r, BAR + 0x1C, 2, 1);
        write(r, BAR + 0x14, 1, 3 | 8 | 4);
        assert_eq!(read(r, BAR + 0x14), 15);
        Self {
            ram,
            avail: 0,
            seen: 0,
        }
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.ram.write(GuestPhys(at), bytes).expect("RAM");
    }

    fn word(&self, at: u64) -> u16 {
        u16::from_le_bytes(self.ram.read_array(GuestPhys(at)).expect("RAM"))
    }

    /// Makes request number `slot`, below 5, available.
    fn offer(&mut self, slot: u16, kind: u32, sector: u64) {
        let (slot64, first) = (u64::from(slot), 3 * slot);
        let mut header = kind.to_le_bytes().to_vec();
        header.extend([0; 4]);
        header.extend(sector.to_le_bytes());
        self.put(HEADERS + 16 * slot64, &header);
        self.put(STATUS + slot64, &[0xEE]);
        let data = DATA + LEN as u64 * slot64;
        let pieces = [
            (HEADERS + 16 * slot64, 16_u32, 1_u16),
            (
                data,
                if kind == FLUSH { 0 } else { LEN as u32 },
                if kind == IN { 3 } else { 1 },
            ),
            (STATUS + slot64, 1, 2),
        ];
        for (n, (at, len, flags)) in (first..).zip(pieces) {
            let mut bytes = at.to_le_bytes().to_vec();
            bytes.extend(len.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            bytes.extend((n + 1).to_le_bytes());
            self.put(DESC + 16 * u64::from(n), &bytes);
        }
        self.put(AVAIL + 4 + 2 * u64::from(self.avail % SIZE), &first.to_le_bytes());
        self.avail = self.avail.wrapping_add(1);
        self.put(AVAIL + 2, &self.avail.to_le_bytes());
    }

    /// Notifies, and waits as an interrupt handler does until `count` requests have ended; answers their chains.
    fn ended(&mut self, r: &mut Rig, count: u16) -> Vec<u16> {
        write(r, NOTIFY, 2, 0);
        let mut chains = Vec::new();
        for _ in 0..1_000_000 {
            r.turn();
            let index = self.word(USED + 2);
            assert!(index.wrapping_sub(self.seen) <= count, "more ends than requests");
            if index == self.seen {
                std::thread::yield_now();
                continue;
            }
            // An end that is shown has its cause in the register, once.
            read(r, ISR);
            while self.seen != self.word(USED + 2) {
                let id = self.word(USED + 4 + 8 * u64::from(self.seen % SIZE));
                let status: [u8; 1] = self
                    .ram
                    .read_array(GuestPhys(STATUS + u64::from(id / 3)))
                    .expect("RAM");
                assert_eq!(status, [0], "chain {id}");
                chains.push(id);
                self.seen = self.seen.wrapping_add(1);
            }
            if chains.len() == usize::from(count) {
                return chains;
            }
        }
        panic!("the disk does not come to an end");
    }
}

/// Writes the same sectors over and over, several requests at once, and reads them back.
fn guest(r: &mut Rig, rounds: u8) {
    r.boot();
    let mut d = Driver::new(r);
    for round in 1..=rounds {
        for slot in 0..4_u16 {
            // Two to the same sectors: the later one counts.
            d.put(
                DATA + LEN as u64 * u64::from(slot),
                &[round * 16 + slot as u8; LEN],
            );
            d.offer(slot, OUT, [4, 20, 4, 30][usize::from(slot)]);
        }
        d.offer(4, FLUSH, 0);
        assert_eq!(d.ended(r, 5), [0, 3, 6, 9, 12]);
        // What the guest does with its memory afterwards is no business of the disk's.
        d.put(DATA, &[0xDD; 4 * LEN]);
        for (slot, sector) in (0..).zip([4, 20, 30]) {
            d.offer(slot, IN, sector);
        }
        assert_eq!(d.ended(r, 3), [0, 3, 6]);
        for (slot, number) in [(0, 2), (1, 1), (2, 3)] {
            let mut back = vec![0; LEN];
            d.ram
                .read(GuestPhys(DATA + LEN as u64 * slot), &mut back)
                .expect("RAM");
            assert!(
                back == vec![round * 16 + number; LEN],
                "round {round}, slot {slot}: {:#x}",
                back[0]
            );
        }
    }
    r.settle();
}

/// The guest with at most 15 rounds, and what it leaves on the disk.
fn check(r: &mut Rig, rounds: u8) {
    guest(r, rounds);
    for (n, sector) in r.disk().chunks(512).enumerate() {
        let expected = match n {
            4..=6 => rounds * 16 + 2,
            20..=22 => rounds * 16 + 1,
            30..=32 => rounds * 16 + 3,
            _ => 0,
        };
        assert!(
            sector.iter().all(|b| *b == expected),
            "sector {n} holds {:#x}",
            sector[0]
        );
    }
}

#[test]
fn a_virtio_disk_is_written_and_read_through_the_whole_path() {
    let mut r = rig();
    check(&mut r, 3);
    assert_eq!(r.generation, 1);
}

#[test]
fn killed_once_at_every_step_every_request_ends_once() {
    Rig::killed_at_every_step(rig, |r| check(r, 3));
}

#[test]
fn killed_over_and_over_every_request_ends_once() {
    Rig::killed_over_and_over(rig, |r| check(r, 15));
}
