//! The real-time clock against the data sheet of the MC146818A.

use super::*;
use crate::core_complex::snapshot::snapshot_tests;

/// 2026-03-01 12:34:56 UTC, a Sunday.
const START: i64 = 1_772_368_496;

fn clock() -> Rtc {
    Rtc::new(i128::from(START) * SECOND)
}

fn seconds(n: u64) -> VmTime {
    VmTime(n * NANOS_PER_SEC)
}

fn get(rtc: &mut Rtc, now: VmTime, index: u8) -> u8 {
    rtc.write(now, 0x70, index);
    rtc.read(now, 0x71)
}

fn put(rtc: &mut Rtc, now: VmTime, index: u8, value: u8) {
    rtc.write(now, 0x70, index);
    rtc.write(now, 0x71, value);
}

fn time(rtc: &mut Rtc, now: VmTime) -> [u8; 8] {
    [0x32, 9, 8, 7, 6, 4, 2, 0].map(|index| get(rtc, now, index))
}

snapshot_tests!(snapshot, clock(), |r: &mut Rtc| put(r, seconds(3), 0x44, 9));

#[test]
fn the_time_is_vm_time_after_the_base_in_bcd() {
    let mut rtc = clock();
    assert_eq!(
        time(&mut rtc, seconds(0)),
        [0x20, 0x26, 0x03, 0x01, 0x01, 0x12, 0x34, 0x56]
    );
    assert_eq!(
        time(&mut rtc, seconds(4)),
        [0x20, 0x26, 0x03, 0x01, 0x01, 0x12, 0x35, 0x00]
    );
    assert_eq!(
        time(&mut rtc, seconds(12 * 3600)),
        [0x20, 0x26, 0x03, 0x02, 0x02, 0x00, 0x34, 0x56]
    );
}

#[test]
fn binary_and_twelve_hours_are_modes_of_register_b() {
    let mut rtc = clock();
    put(&mut rtc, seconds(0), 0x0B, 0x06);
    assert_eq!(time(&mut rtc, seconds(0)), [20, 26, 3, 1, 1, 12, 34, 56]);
    put(&mut rtc, seconds(0), 0x0B, 0x00);
    assert_eq!(get(&mut rtc, seconds(0), 4), 0x92, "12 PM");
    assert_eq!(get(&mut rtc, seconds(3600), 4), 0x81, "1 PM");
    assert_eq!(get(&mut rtc, seconds(12 * 3600), 4), 0x12, "12 AM");
}

#[test]
fn a_guest_sets_the_time_under_set_and_it_runs_on_from_there() {
    let mut rtc = clock();
    put(&mut rtc, seconds(1), 0x0B, 0x82);
    for (index, value) in [
        (0x32, 0x19),
        (9, 0x99),
        (8, 0x12),
        (7, 0x31),
        (6, 0x06),
        (4, 0x23),
        (2, 0x59),
        (0, 0x58),
    ] {
        put(&mut rtc, seconds(1), index, value);
    }
    assert_eq!(get(&mut rtc, seconds(60), 0), 0x58, "it stands still");
    put(&mut rtc, seconds(60), 0x0B, 0x02);
    assert_eq!(
        time(&mut rtc, seconds(61)),
        [0x19, 0x99, 0x12, 0x31, 0x06, 0x23, 0x59, 0x59]
    );
    assert_eq!(
        time(&mut rtc, seconds(62)),
        [0x20, 0x00, 0x01, 0x01, 0x07, 0x00, 0x00, 0x00]
    );
}

#[test]
fn a_byte_written_while_the_clock_runs_counts_at_once() {
    let mut rtc = clock();
    put(&mut rtc, seconds(0), 4, 0x01);
    assert_eq!(time(&mut rtc, seconds(1))[5..], [0x01, 0x34, 0x57]);
}

#[test]
fn update_in_progress_shows_for_the_last_244_microseconds_of_a_second() {
    let mut rtc = clock();
    let uip = |rtc: &mut Rtc, nanos: u64| get(rtc, VmTime(nanos), 0x0A) & 0x80 != 0;
    assert!(!uip(&mut rtc, 1_999_755_000));
    assert!(uip(&mut rtc, 1_999_756_000));
    assert!(uip(&mut rtc, 1_999_999_999));
    assert!(!uip(&mut rtc, 2_000_000_000));
    put(&mut rtc, VmTime(2_000_000_000), 0x0B, 0x82);
    assert!(!uip(&mut rtc, 2_999_999_999), "SET stops updates");
}

#[test]
fn the_update_interrupt_comes_each_second_until_register_c_is_read() {
    let mut rtc = clock();
    put(&mut rtc, seconds(0), 0x0B, 0x12);
    assert_eq!(rtc.next_deadline(), Some(seconds(1)));
    rtc.advance(seconds(1) - 1);
    assert!(!rtc.irq());
    rtc.advance(seconds(1));
    assert!(rtc.irq());
    assert_eq!(rtc.next_deadline(), None, "nothing can happen before it is read");
    assert_eq!(get(&mut rtc, seconds(1), 0x0C) & 0xB0, 0x90);
    assert!(!rtc.irq());
    assert_eq!(get(&mut rtc, seconds(1), 0x0C), 0);
    assert_eq!(rtc.next_deadline(), Some(seconds(2)));
}

#[test]
fn the_alarm_matches_exactly_or_by_don_t_care_bytes() {
    let mut rtc = clock();
    for (index, value) in [(1, 0x10), (3, 0x35), (5, 0x12), (0x0B, 0x22)] {
        put(&mut rtc, seconds(0), index, value);
    }
    assert_eq!(rtc.next_deadline(), Some(seconds(14)));
    rtc.advance(seconds(13));
    assert!(!rtc.irq());
    rtc.advance(seconds(14));
    assert_eq!(get(&mut rtc, seconds(14), 0x0C) & 0xB0, 0xB0);
    assert_eq!(rtc.next_deadline(), Some(seconds(14 + 86_400)));
    for index in [3, 5] {
        put(&mut rtc, seconds(14), index, 0xC0);
    }
    assert_eq!(rtc.next_deadline(), Some(seconds(74)));
    put(&mut rtc, seconds(14), 1, 0xFF);
    assert_eq!(rtc.next_deadline(), Some(seconds(15)));
}

#[test]
fn an_alarm_passed_while_nobody_looked_is_flagged() {
    let mut rtc = clock();
    for (index, value) in [(1, 0x10), (3, 0x35), (5, 0x12)] {
        put(&mut rtc, seconds(0), index, value);
    }
    assert_eq!(get(&mut rtc, seconds(5000), 0x0C) & 0x30, 0x30);
}

#[test]
fn every_periodic_rate_is_that_of_the_data_sheet() {
    let hz = [
        256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2,
    ];
    for (select, hz) in (1u8..).zip(hz) {
        let mut rtc = clock();
        put(&mut rtc, seconds(0), 0x0A, 0x20 | select);
        put(&mut rtc, seconds(0), 0x0B, 0x42);
        assert_eq!(
            rtc.next_deadline(),
            Some(VmTime::from_ticks(1, hz)),
            "rate {select}"
        );
    }
    let mut rtc = clock();
    put(&mut rtc, seconds(0), 0x0A, 0x20);
    put(&mut rtc, seconds(0), 0x0B, 0x42);
    assert_eq!(rtc.next_deadline(), None);
}

#[test]
fn late_periodic_ticks_are_kept_for_a_second_at_most() {
    let mut rtc = clock();
    put(&mut rtc, seconds(0), 0x0A, 0x2D);
    put(&mut rtc, seconds(0), 0x0B, 0x42);
    let late = seconds(100);
    let mut ticks = 0;
    rtc.advance(late);
    while rtc.irq() {
        assert_eq!(get(&mut rtc, late, 0x0C) & 0xC0, 0xC0);
        rtc.advance(late);
        ticks += 1;
    }
    assert_eq!(ticks, 8, "eight a second");
}

#[test]
fn ticks_without_their_enable_set_the_flag_only() {
    let mut rtc = clock();
    assert_eq!(get(&mut rtc, seconds(1), 0x0C) & 0xC0, 0x40);
    assert!(!rtc.irq());
}

#[test]
fn a_divider_reset_makes_the_next_update_half_a_second_away() {
    let mut rtc = clock();
    put(&mut rtc, seconds(1), 0x0A, 0x76);
    assert_eq!(get(&mut rtc, seconds(30), 0), 0x57, "the divider stands");
    put(&mut rtc, VmTime(30_123_000_000), 0x0A, 0x26);
    assert_eq!(get(&mut rtc, VmTime(30_622_999_999), 0), 0x57);
    assert_eq!(get(&mut rtc, VmTime(30_623_000_000), 0), 0x58);
}

#[test]
fn memory_sizes_are_where_bioses_look() {
    let mut rtc = clock();
    rtc.set_memory(RamLayout::new(6 << 30));
    let word = |r: &Rtc, at| u16::from_le_bytes([r.cmos(at), r.cmos(at + 1)]);
    assert_eq!(
        (word(&rtc, 0x15), word(&rtc, 0x17), word(&rtc, 0x30)),
        (640, 0xFFFF, 0xFFFF)
    );
    assert_eq!(word(&rtc, 0x34), ((3584u64 - 16) * 16) as u16);
    let high = u32::from_le_bytes([rtc.cmos(0x5B), rtc.cmos(0x5C), rtc.cmos(0x5D), 0]);
    assert_eq!(high, (2560 << 20) >> 16);
    rtc.set_memory(RamLayout::new(8 << 20));
    assert_eq!((word(&rtc, 0x17), word(&rtc, 0x34)), (7168, 0));
}

#[test]
fn the_checksum_covers_10h_to_2dh() {
    let mut rtc = clock();
    rtc.set_cmos(0x10, 0x40);
    rtc.set_cmos(0x2D, 0xF0);
    let sum = (0x10..0x2E).map(|i| u16::from(rtc.cmos(i))).sum::<u16>();
    assert_eq!(u16::from_be_bytes([rtc.cmos(0x2E), rtc.cmos(0x2F)]), sum);
}

#[test]
fn reset_stops_interrupts_and_keeps_time_and_ram() {
    let mut rtc = clock();
    put(&mut rtc, seconds(0), 0x0B, 0x72);
    put(&mut rtc, seconds(0), 0x40, 0x99);
    rtc.advance(seconds(2));
    rtc.reset(seconds(2));
    assert!(!rtc.irq());
    assert_eq!(
        (get(&mut rtc, seconds(2), 0x0B), get(&mut rtc, seconds(2), 0x40)),
        (0x02, 0x99)
    );
    assert_eq!(get(&mut rtc, seconds(2), 0), 0x58);
}

#[test]
fn registers_c_and_d_cannot_be_written_and_d_says_that_the_ram_is_good() {
    let mut rtc = clock();
    put(&mut rtc, seconds(0), 0x0C, 0xFF);
    put(&mut rtc, seconds(0), 0x0D, 0x00);
    assert_eq!(
        (get(&mut rtc, seconds(0), 0x0C), get(&mut rtc, seconds(0), 0x0D)),
        (0, 0x80)
    );
    assert_eq!(rtc.read(seconds(0), 0x70), 0xFF);
}
