//! Drivers that keep to no rule: the device stops and says so, or goes on; nothing else.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// What a driver does wrong.
type Mischief = fn(&mut Driver);

const BROKEN: [(&str, Mischief); 17] = [
    ("a loop", |d| {
        d.describe(DESC, 0, HEADER, 16, NEXT, 1);
        d.describe(DESC, 1, HEADER, 16, NEXT, 0);
    }),
    ("a chain into itself", |d| {
        d.describe(DESC, 0, HEADER, 16, NEXT, 0);
    }),
    ("a next descriptor beyond the table", |d| {
        d.describe(DESC, 0, HEADER, 16, NEXT, 16);
    }),
    ("a read piece behind a written one", |d| {
        d.chain(0, &[(HEADER, 16, false), (STATUS, 1, true), (DATA, 512, false)]);
    }),
    ("no header", |d| d.chain(0, &[(DATA, 513, true)])),
    ("half a header", |d| {
        d.chain(0, &[(HEADER, 15, false), (STATUS, 1, true)]);
    }),
    ("no status", |d| d.chain(0, &[(HEADER, 16, false)])),
    ("an empty status", |d| {
        d.chain(0, &[(HEADER, 16, false), (STATUS, 0, true)]);
    }),
    ("a header outside RAM", |d| {
        d.chain(0, &[(0x20_0000 - 8, 16, false), (STATUS, 1, true)]);
    }),
    ("a header past all addresses", |d| {
        d.chain(0, &[(u64::MAX - 7, 16, false), (STATUS, 1, true)]);
    }),
    ("a status outside RAM", |d| {
        d.chain(0, &[(HEADER, 16, false), (0xF0_0000, 1, true)]);
    }),
    ("more than four gigabytes", |d| {
        d.chain(
            0,
            &[
                (HEADER, 16, false),
                (0, u32::MAX, true),
                (0, u32::MAX, true),
                (STATUS, 1, true),
            ],
        );
    }),
    ("an indirect table of half a descriptor", |d| {
        d.describe(DESC, 0, DATA, 24, INDIRECT, 0);
    }),
    ("an empty indirect table", |d| {
        d.describe(DESC, 0, DATA, 0, INDIRECT, 0);
    }),
    ("an indirect table with a next one", |d| {
        d.describe(DESC, 0, DATA, 16, INDIRECT | NEXT, 1);
    }),
    ("a table in a table", |d| {
        d.describe(DATA, 0, DATA, 16, INDIRECT, 0);
        d.describe(DESC, 0, DATA, 16, INDIRECT, 0);
    }),
    ("an indirect table outside RAM", |d| {
        d.describe(DESC, 0, u64::MAX - 15, 16, INDIRECT, 0);
    }),
];

/// Stopped, has said so, and serves again after a reset.
fn needs_reset(d: &mut Driver, what: &str) {
    assert_eq!(d.status() & status::NEEDS_RESET, status::NEEDS_RESET, "{what}");
    assert!(d.interrupted(), "{what}");
    assert_eq!(d.acknowledge() & isr::CONFIG, isr::CONFIG, "{what}");
    assert_eq!(d.word(USED + 2), 0, "{what}");
    assert!(d.disk.s.queue.taken.is_empty(), "{what}");
    assert_eq!(d.request(0, 3, &[(DATA, 512, true)]), (UNWRITTEN, 0), "{what}");
    d.set_going(ALL);
    assert_eq!(d.request(0, 3, &[(DATA, 512, true)]), (0, 513), "{what}");
    assert_eq!(number(&d.ram(DATA, 8)), 3, "{what}");
}

#[test]
fn a_chain_that_is_none_stops_the_device_until_its_reset() {
    for (what, mischief) in BROKEN {
        let mut d = Driver::new(ALL);
        d.header(HEADER, 0, 0);
        mischief(&mut d);
        d.offer(0);
        d.notify();
        d.settle();
        needs_reset(&mut d, what);
    }
}

#[test]
fn an_indirect_table_without_the_feature_stops_the_device() {
    let mut d = Driver::new(PLAIN);
    d.describe(DESC, 0, DATA, 48, INDIRECT, 0);
    d.offer(0);
    d.notify();
    needs_reset(&mut d, "not negotiated");
}

#[test]
fn a_loop_of_an_indirect_table_ends() {
    let mut d = Driver::new(ALL);
    d.describe(DATA, 0, HEADER, 16, NEXT, 0);
    d.describe(DESC, 0, DATA, 16, INDIRECT, 0);
    d.offer(0);
    d.notify();
    needs_reset(&mut d, "a loop in a table");
}

#[test]
fn an_index_or_head_beyond_the_queue_stops_the_device() {
    let mut d = Driver::new(ALL);
    d.bench.dma.store_u16(GuestPhys(AVAIL + 2), 17);
    d.notify();
    needs_reset(&mut d, "index");
    let mut d = Driver::new(ALL);
    d.offer(16);
    d.notify();
    needs_reset(&mut d, "head");
}

#[test]
fn rings_outside_ram_or_out_of_line_stop_the_device() {
    for (register, address) in [
        (0x20, DESC + 8),
        (0x28, AVAIL + 1),
        (0x30, USED + 2),
        (0x20, 0x20_0000 - 16),
        (0x28, 0xA_0000),
        (0x30, 0xFFFF_FFFF_FFFF_FFF0),
        (0x30, 0xFFFF_F000),
    ] {
        let mut d = Driver::untouched(false);
        d.set(0x14, Size::BYTE, 3);
        d.set(0x08, Size::DWORD, 1);
        d.set(0x0C, Size::DWORD, 1);
        d.set(0x14, Size::BYTE, 3 | 8);
        d.set(0x18, Size::WORD, 16);
        for (register, address) in [(0x20, DESC), (0x28, AVAIL), (0x30, USED), (register, address)] {
            d.set(register, Size::QWORD, address);
        }
        d.set(0x1C, Size::WORD, 1);
        d.set(0x14, Size::BYTE, 3 | 8 | 4);
        d.offer(0);
        d.notify();
        assert_eq!(
            d.status() & status::NEEDS_RESET,
            status::NEEDS_RESET,
            "{register:#x} {address:#x}"
        );
    }
}

#[test]
fn queues_that_cannot_be_are_not_set_up() {
    let mut d = Driver::untouched(false);
    for size in [0, 3, 257, 512, 0x8001] {
        d.set(0x18, Size::WORD, size);
        assert_eq!(d.get(0x18, Size::WORD), 256, "{size}");
    }
}

#[test]
fn the_same_chain_over_and_over_is_taken_as_often_as_the_queue_is_long() {
    let mut d = Driver::new(PLAIN);
    d.header(HEADER, 0, 1);
    d.chain(0, &[(HEADER, 16, false), (DATA, 512, true), (STATUS, 1, true)]);
    for _ in 0..10 {
        for _ in 0..16 {
            d.offer(0);
        }
        d.notify();
        assert_eq!(d.disk.s.queue.taken.len(), 16);
        d.settle();
        assert!(d.disk.s.queue.taken.is_empty());
    }
    assert_eq!(d.word(USED + 2), 160);
}

#[test]
fn whatever_lies_in_its_memory_the_device_ends_or_stops() {
    let descriptor = (
        0..16_u16,
        prop_oneof![
            Just(HEADER),
            Just(DATA),
            Just(STATUS),
            0..0x21_0000_u64,
            any::<u64>()
        ],
        prop_oneof![Just(16_u32), Just(512), Just(1), 0..0x1_0000_u32, any::<u32>()],
        prop_oneof![0..8_u16, any::<u16>()],
        prop_oneof![0..17_u16, any::<u16>()],
    );
    let head = prop_oneof![20 => (0..5_u16).prop_map(|n| 3 * n), 1 => 0..17_u16, 1 => any::<u16>()];
    let strategy = (
        proptest::collection::vec(descriptor, 0..4),
        proptest::collection::vec(head, 1..10),
        prop_oneof![10 => Just(None), 1 => (0..20_u16).prop_map(Some), 1 => any::<u16>().prop_map(Some)],
        0..14_u32,
    );
    let mut runner = TestRunner::new(Config {
        cases: 2000,
        failure_persistence: None,
        ..Config::default()
    });
    let (stopped, served) = (Cell::new(0), Cell::new(0));
    runner
        .run(&strategy, |(descriptors, heads, index, kind)| {
            let mut d = Driver::new(ALL);
            d.header(HEADER, kind, 1);
            // Five chains as they should be, of which some descriptors are then spoiled.
            for n in 0..5 {
                d.chain(
                    3 * n,
                    &[(HEADER, 16, false), (DATA, 512, kind % 2 == 0), (STATUS, 1, true)],
                );
            }
            for (n, at, len, flags, next) in descriptors {
                d.describe(DESC, n, at, len, flags, next);
            }
            heads.iter().for_each(|head| d.offer(*head));
            let index = index.unwrap_or(d.avail);
            d.bench.dma.store_u16(GuestPhys(AVAIL + 2), index);
            d.notify();
            d.settle();
            let broken = d.status() & status::NEEDS_RESET != 0;
            let used = d.word(USED + 2);
            // What it took it has given back, unless it has stopped.
            prop_assert!(d.disk.s.queue.taken.is_empty() && d.disk.bytes == 0);
            prop_assert!(broken || used == index, "{used} of {index}");
            stopped.set(stopped.get() + u32::from(broken));
            served.set(served.get() + u32::from(!broken));
            Ok(())
        })
        .expect("the device lives");
    let (stopped, served) = (stopped.get(), served.get());
    assert!(
        stopped > 200 && served > 200,
        "{stopped} stopped, {served} served"
    );
}
