//! Requests, well formed and not.

use super::*;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

#[test]
fn what_is_written_is_read_back_and_made_to_last() {
    let mut d = Driver::new(ALL);
    d.put(DATA, &[0xAB; 1024]);
    assert_eq!(d.request(OUT, 40, &[(DATA, 1024, false)]), (0, 1));
    assert_eq!(d.image.sector(41), [0xAB; 512]);
    assert_eq!(d.image.0.lock().expect("whole").flushes, 0);
    assert_eq!(d.request(FLUSH, 0, &[]), (0, 1));
    assert_eq!(d.image.0.lock().expect("whole").flushes, 1);
    assert_eq!(d.request(IN, 39, &[(DATA + 0x1000, 1536, true)]), (0, 1537));
    let back = d.ram(DATA + 0x1000, 1536);
    assert_eq!((number(&back), &back[512..]), (39, &[0xAB; 1024][..]));
    assert_eq!(d.request(GET_ID, 0, &[(DATA, 20, true)]), (0, 21));
    assert_eq!(d.ram(DATA, 20), b"QT00005\0\0\0\0\0\0\0\0\0\0\0\0\0");
}

#[test]
fn descriptors_may_cut_a_request_anywhere() {
    let mut d = Driver::new(ALL);
    d.header(HEADER, IN, 70);
    // Header in three pieces, one of them empty; the status is the last byte of the last piece of data.
    d.chain(
        0,
        &[
            (HEADER, 3, false),
            (HEADER, 0, false),
            (HEADER + 3, 13, false),
            (DATA, 1, true),
            (DATA + 1, 510, true),
            (DATA + 511, 514, true),
        ],
    );
    d.put(DATA, &[UNWRITTEN; 2048]);
    d.offer(0);
    d.notify();
    d.settle();
    assert_eq!(d.used(), [(0, 1025)]);
    let got = d.ram(DATA, 1026);
    assert_eq!((number(&got), number(&got[512..])), (70, 71));
    assert_eq!(got[1024..], [0, UNWRITTEN]);

    d.header(HEADER, OUT, 80);
    d.put(HEADER + 16, &[0x77; 512]);
    // Header and data in one piece.
    d.chain(0, &[(HEADER, 528, false), (STATUS, 1, true)]);
    assert_eq!(d.ask(), (0, 1));
    assert_eq!(d.image.sector(80), [0x77; 512]);
}

#[test]
fn a_table_of_descriptors_may_lie_elsewhere() {
    let mut d = Driver::new(ALL);
    let table = 0x3_0008;
    d.header(HEADER, IN, 12);
    d.describe(table, 0, HEADER, 16, NEXT, 2);
    d.describe(table, 2, DATA, 512, NEXT | WRITE, 1);
    d.describe(table, 1, STATUS, 1, WRITE, 9);
    // The flag for writing means nothing where a table is named.
    d.describe(DESC, 0, table, 48, INDIRECT | WRITE, 0);
    assert_eq!((d.ask(), number(&d.ram(DATA, 8))), ((0, 513), 12));
    // As long as the queue.
    for n in 0..16 {
        let (at, len, flags) = match n {
            0 => (HEADER, 16, NEXT),
            15 => (STATUS, 1, WRITE),
            _ => (DATA + 512 * u64::from(n), 512, NEXT | WRITE),
        };
        d.describe(table, n, at, len, flags, n + 1);
    }
    d.describe(DESC, 0, table, 256, INDIRECT, 0);
    assert_eq!(d.ask(), (0, 14 * 512 + 1));
}

#[test]
fn what_cannot_be_done_is_an_error_of_the_device() {
    let mut d = Driver::new(ALL);
    d.image.0.lock().expect("whole").bad = Some(100);
    let (io, unsupported) = ((1, 0), (2, 1));
    let hole = 0xB0_0000;
    // Off the disk, in part and by overflow; half a sector; outside RAM; the host's refusal.
    assert_eq!(d.request(IN, SECTORS, &[(DATA, 512, true)]), io);
    assert_eq!(d.request(IN, SECTORS - 1, &[(DATA, 1024, true)]), io);
    assert_eq!(d.request(IN, u64::MAX / 512 + 1, &[(DATA, 512, true)]), io);
    assert_eq!(d.request(IN, u64::MAX, &[(DATA, 512, true)]), io);
    assert_eq!(d.request(IN, 1, &[(DATA, 500, true)]), io);
    assert_eq!(d.request(IN, 1, &[(hole, 512, true)]), io);
    assert_eq!(d.request(IN, 1, &[(0x9_FE00, 1024, true)]), io);
    assert_eq!(d.request(IN, 1, &[(u64::MAX - 100, 512, true)]), io);
    assert_eq!(d.request(IN, 100, &[(DATA, 512, true)]), io);
    assert_eq!(d.request(OUT, SECTORS, &[(DATA, 512, false)]), (1, 1));
    assert_eq!(d.request(OUT, 1, &[(hole, 512, false)]), (1, 1));
    assert_eq!(d.request(OUT, 100, &[(DATA, 512, false)]), (1, 1));
    assert_eq!(d.request(GET_ID, 0, &[(hole, 20, true)]), io);
    // Types that nobody knows, and one that is not negotiated.
    assert_eq!(d.request(2, 0, &[]), unsupported);
    assert_eq!(d.request(u32::MAX, 0, &[]), unsupported);
    assert_eq!(d.image.0.lock().expect("whole").writes, []);
    assert_eq!(d.status() & status::NEEDS_RESET, 0);
    // No data at all is done at once, and the next one is as ever.
    assert_eq!(d.request(IN, 0, &[]), (0, 1));
    assert_eq!(d.request(IN, 1, &[(DATA, 512, true)]), (0, 513));
    d.set_going(PLAIN);
    assert_eq!(d.request(DISCARD, 0, &[(DATA, 16, false)]), unsupported);
}

#[test]
fn a_disk_that_is_read_only_takes_no_writes() {
    let mut d = Driver::untouched(true);
    d.set_going(PLAIN | feature::RO);
    assert_eq!(d.request(OUT, 1, &[(DATA, 512, false)]), (1, 1));
    assert_eq!(d.request(IN, 1, &[(DATA, 512, true)]), (0, 513));
    assert_eq!(d.image.0.lock().expect("whole").writes, []);
}

#[test]
fn without_a_way_to_flush_every_write_lasts() {
    let flushes = |d: &Driver| d.image.0.lock().expect("whole").flushes;
    let mut d = Driver::new(feature::VERSION_1);
    d.request(OUT, 1, &[(DATA, 512, false)]);
    assert_eq!(flushes(&d), 1);
    d.set_going(ALL);
    d.request(OUT, 1, &[(DATA, 512, false)]);
    assert_eq!(flushes(&d), 1);
    // The driver switches the cache off.
    let writeback = u64::from(super::super::function::DEVICE) + 32;
    d.set(writeback, Size::BYTE, 0);
    assert_eq!(d.get(writeback, Size::BYTE), 0);
    d.request(OUT, 1, &[(DATA, 512, false)]);
    assert_eq!(flushes(&d), 2);
}

#[test]
fn ranges_are_discarded_and_made_zero() {
    let mut d = Driver::new(ALL);
    let range = |d: &mut Driver, kind, sector: u64, sectors: u32, flags: u32| {
        let mut bytes = sector.to_le_bytes().to_vec();
        bytes.extend(sectors.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        d.put(DATA, &bytes);
        d.request(kind, 0, &[(DATA, 16, false)]).0
    };
    for (sector, flags) in [(10, 0), (20, 1)] {
        assert_eq!(range(&mut d, WRITE_ZEROES, sector, 3, flags), 0);
        for n in 0..3 {
            assert_eq!(d.image.sector(sector + n), [0; 512]);
        }
        assert_eq!(number(&d.image.sector(sector + 3)), sector + 3);
    }
    assert_eq!(range(&mut d, DISCARD, 30, 8, 0), 0);
    assert_eq!(range(&mut d, DISCARD, 30, 0, 0), 0);
    assert_eq!(range(&mut d, DISCARD, 30, 8, 1), 2, "unmap means nothing there");
    assert_eq!(range(&mut d, WRITE_ZEROES, 30, 8, 2), 2);
    assert_eq!(range(&mut d, WRITE_ZEROES, SECTORS - 1, 2, 0), 1);
    assert_eq!(range(&mut d, DISCARD, u64::MAX, 2, 0), 1);
    assert_eq!(d.request(DISCARD, 0, &[(DATA, 32, false)]), (1, 1), "two ranges");
    assert_eq!(d.request(DISCARD, 0, &[(DATA, 15, false)]), (1, 1));
}

#[test]
fn more_than_fits_into_the_host_waits_its_turn() {
    let mut d = Driver::untouched(false);
    d.size = 256;
    d.set_going(PLAIN);
    d.header(HEADER, IN, 0);
    // 64 times 2 MiB less a page, all into the same 256 KiB, seven times over in each.
    let piece = (DATA, 256 << 10, true);
    for n in 0..64_u16 {
        if n < 28 {
            let mut buffers = vec![(HEADER, 16, false)];
            buffers.extend([piece; 7]);
            buffers.push((STATUS, 1, true));
            d.chain(9 * n, &buffers);
            d.offer(9 * n);
        }
    }
    d.notify();
    assert_eq!(d.disk.s.queue.taken.len(), 5, "8 MiB and no more");
    d.settle();
    assert_eq!(d.word(USED + 2), 28);
    assert_eq!((d.ram(STATUS, 1), d.disk.bytes), (vec![0], 0));
}
