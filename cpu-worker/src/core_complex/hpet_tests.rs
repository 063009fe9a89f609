//! The HPET against its specification.

use super::*;
use crate::core_complex::snapshot::snapshot_tests;

fn write(h: &mut Hpet, now: VmTime, offset: u64, value: u64) {
    h.advance(now, &mut Vec::new());
    h.mmio_write(now, offset, 8, value);
}

fn fired(h: &mut Hpet, now: VmTime) -> Vec<usize> {
    let mut out = Vec::new();
    h.advance(now, &mut out);
    out.iter().map(|i| i.timer).collect()
}

fn started() -> Hpet {
    let mut h = Hpet::new();
    write(&mut h, VmTime(0), 0x10, 1);
    h
}

snapshot_tests!(snapshot, Hpet::new(), |h: &mut Hpet| write(
    h,
    VmTime(50),
    0x10,
    1
));

#[test]
fn capabilities_tell_three_timers_of_10_ns_with_legacy_replacement() {
    let h = Hpet::new();
    let caps = h.mmio_read(VmTime(0), 0, 8);
    assert_eq!(caps >> 32, 10_000_000);
    assert_eq!(caps as u32, 0x8086_A201);
    assert_eq!(h.mmio_read(VmTime(0), 4, 4), 10_000_000);
    assert_eq!(
        h.mmio_read(VmTime(0), 0x100, 4) & 0x30,
        0x30,
        "periodic and 64 bits"
    );
}

#[test]
fn the_counter_counts_while_enabled_and_keeps_its_value_while_halted() {
    let mut h = Hpet::new();
    write(&mut h, VmTime(1000), 0xF0, 77);
    assert_eq!(h.mmio_read(VmTime(9000), 0xF0, 8), 77);
    write(&mut h, VmTime(9000), 0x10, 1);
    assert_eq!(h.mmio_read(VmTime(9100), 0xF0, 8), 87);
    write(&mut h, VmTime(9200), 0x10, 0);
    assert_eq!(h.mmio_read(VmTime(20_000), 0xF0, 8), 97);
}

#[test]
fn a_one_shot_fires_once_at_its_comparator() {
    let mut h = started();
    write(&mut h, VmTime(0), 0x100, 0x4 | 2 << 9);
    write(&mut h, VmTime(0), 0x108, 100);
    assert_eq!(h.next_deadline(VmTime(0)), Some(VmTime(1000)));
    assert!(fired(&mut h, VmTime(999)).is_empty());
    assert_eq!(fired(&mut h, VmTime(1000)), [0]);
    assert!(fired(&mut h, VmTime(100_000)).is_empty());
    assert_eq!(h.next_deadline(VmTime(100_000)), None);
}

#[test]
fn a_one_shot_in_32_bits_comes_again_when_the_counter_wraps() {
    let mut h = started();
    write(&mut h, VmTime(0), 0x100, 0x104);
    write(&mut h, VmTime(0), 0x108, 100);
    assert_eq!(fired(&mut h, VmTime(1000)), [0]);
    assert_eq!(
        h.next_deadline(VmTime(1000)),
        Some(VmTime(((1 << 32) + 100) * 10))
    );
}

#[test]
fn periodic_takes_the_first_match_and_then_the_period_and_merges_late_ones() {
    let mut h = started();
    write(&mut h, VmTime(0), 0x120, 0x4C);
    write(&mut h, VmTime(0), 0x128, 500);
    write(&mut h, VmTime(0), 0x128, 100);
    assert_eq!(h.next_deadline(VmTime(0)), Some(VmTime(5000)));
    assert_eq!(fired(&mut h, VmTime(5000)), [1]);
    assert_eq!(h.mmio_read(VmTime(5000), 0x128, 8), 600);
    assert_eq!(fired(&mut h, VmTime(9_300)), [1], "600, 700, 800 and 900 are one");
    assert_eq!(h.next_deadline(VmTime(9_300)), Some(VmTime(10_000)));
}

#[test]
fn a_comparator_just_passed_matches_at_once() {
    let mut h = started();
    write(&mut h, VmTime(5000), 0x100, 0x4);
    write(&mut h, VmTime(5000), 0x108, 499);
    assert_eq!(h.next_deadline(VmTime(5000)), Some(VmTime(5000)));
    assert_eq!(fired(&mut h, VmTime(5000)), [0]);
}

#[test]
fn level_sets_a_status_bit_that_a_one_clears_and_edge_sets_none() {
    let mut h = started();
    write(&mut h, VmTime(0), 0x140, 0x6 | 20 << 9);
    write(&mut h, VmTime(0), 0x148, 10);
    write(&mut h, VmTime(0), 0x100, 0x4);
    write(&mut h, VmTime(0), 0x108, 10);
    assert_eq!(fired(&mut h, VmTime(100)), [0, 2]);
    assert_eq!(h.mmio_read(VmTime(100), 0x20, 8), 4);
    assert!(h.level(2) && !h.level(0));
    write(&mut h, VmTime(100), 0x20, 4);
    assert!(!h.level(2));
}

#[test]
fn routes_that_a_timer_does_not_have_go_nowhere_and_legacy_overrides() {
    let mut h = started();
    write(&mut h, VmTime(0), 0x100, 0x4 | 5 << 9);
    assert_eq!(h.line(0), None);
    write(&mut h, VmTime(0), 0x100, 0x4 | 16 << 9);
    assert_eq!(h.line(0), Some(HpetLine::Gsi(16)));
    write(&mut h, VmTime(0), 0x10, 3);
    assert_eq!(
        (h.line(0), h.line(1), h.line(2)),
        (Some(HpetLine::Irq0), Some(HpetLine::Irq8), None)
    );
}

#[test]
fn a_timer_without_its_interrupt_neither_fires_nor_wakes() {
    let mut h = started();
    write(&mut h, VmTime(0), 0x108, 10);
    assert_eq!(h.next_deadline(VmTime(0)), None);
    assert!(fired(&mut h, VmTime(1000)).is_empty());
}

#[test]
fn halves_are_written_and_read_separately() {
    let mut h = Hpet::new();
    h.mmio_write(VmTime(0), 0xF0, 4, 0x1111_2222);
    h.mmio_write(VmTime(0), 0xF4, 4, 0x3333_4444);
    assert_eq!(h.mmio_read(VmTime(0), 0xF0, 8), 0x3333_4444_1111_2222);
    assert_eq!(h.mmio_read(VmTime(0), 0xF4, 4), 0x3333_4444);
    assert_eq!(h.mmio_read(VmTime(0), 0xF1, 1), 0);
}
