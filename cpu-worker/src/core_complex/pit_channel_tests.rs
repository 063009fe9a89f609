//! Waveforms of the 8254 data sheet, pulse by pulse. In the sheet's figures the count is written before
//! pulse 1, which loads it.

use super::*;

/// A counter with `control` programmed and `count` written at pulse 0.
fn counter(control: u8, count: u16, gate: bool) -> ChannelState {
    let mut c = ChannelState::new(gate);
    c.control(control | 0x30);
    c.write(0, count as u8);
    c.write(0, (count >> 8) as u8);
    c
}

fn outs(c: &ChannelState, pulses: core::ops::RangeInclusive<u64>) -> String {
    let mut c = c.clone();
    pulses
        .map(|t| {
            c.settle(t);
            if c.out(t) { 'H' } else { 'L' }
        })
        .collect()
}

fn counts(c: &ChannelState, pulses: core::ops::RangeInclusive<u64>) -> Vec<u16> {
    let mut c = c.clone();
    pulses
        .map(|t| {
            c.settle(t);
            c.element(t)
        })
        .collect()
}

#[test]
fn mode_0_goes_high_n_plus_one_pulses_after_the_write_and_counts_on() {
    let c = counter(0x00, 4, true);
    assert_eq!(outs(&c, 0..=7), "LLLLLHHH");
    assert_eq!(counts(&c, 1..=7), [4, 3, 2, 1, 0, 0xFFFF, 0xFFFE]);
}

#[test]
fn mode_0_stands_still_while_gate_is_low() {
    let mut c = counter(0x00, 3, true);
    c.set_gate(2, false);
    assert_eq!(counts(&c, 2..=6), [2, 2, 2, 2, 2]);
    c.set_gate(6, true);
    assert_eq!(counts(&c, 7..=9), [2, 1, 0]);
    assert_eq!(outs(&c, 7..=9), "LLH");
}

#[test]
fn mode_0_a_first_byte_stops_counting_and_a_new_count_starts_over() {
    let mut c = counter(0x00, 3, true);
    assert!(c.clone().out(5));
    c.write(5, 2);
    assert!(!c.out(6));
    c.write(9, 0);
    assert_eq!(outs(&c, 9..=13), "LLLHH");
}

#[test]
fn mode_1_is_low_for_n_pulses_after_each_trigger() {
    let mut c = counter(0x02, 3, false);
    assert_eq!(outs(&c, 0..=4), "HHHHH");
    c.set_gate(4, true);
    assert_eq!(outs(&c, 4..=9), "HLLLHH");
    assert_eq!(counts(&c, 5..=9), [3, 2, 1, 0, 0xFFFF]);
    c.set_gate(6, false);
    assert_eq!(outs(&c, 5..=9), "LLLHH", "gate low does not matter");
    c.set_gate(7, true);
    assert_eq!(outs(&c, 8..=12), "LLLHH", "retriggered");
}

#[test]
fn mode_2_is_low_for_the_last_pulse_of_each_period() {
    let c = counter(0x04, 3, true);
    assert_eq!(outs(&c, 0..=9), "HHHLHHLHHL");
    assert_eq!(counts(&c, 1..=7), [3, 2, 1, 3, 2, 1, 3]);
}

#[test]
fn mode_2_takes_a_new_count_when_the_period_ends() {
    let mut c = counter(0x04, 4, true);
    c.write(2, 5);
    c.write(2, 0);
    assert_eq!(counts(&c, 2..=11), [3, 2, 1, 5, 4, 3, 2, 1, 5, 4]);
}

#[test]
fn mode_2_gate_low_forces_out_high_and_a_rise_reloads() {
    let mut c = counter(0x04, 3, true);
    c.set_gate(3, false);
    assert_eq!(outs(&c, 3..=6), "HHHH");
    c.set_gate(6, true);
    assert_eq!(outs(&c, 7..=10), "HHLH");
}

#[test]
fn mode_3_divides_even_counts_into_equal_halves() {
    let c = counter(0x06, 4, true);
    assert_eq!(outs(&c, 1..=9), "HHLLHHLLH");
    assert_eq!(counts(&c, 1..=6), [4, 2, 4, 2, 4, 2]);
}

#[test]
fn mode_3_is_high_one_pulse_longer_for_odd_counts() {
    let c = counter(0x06, 5, true);
    assert_eq!(outs(&c, 1..=10), "HHHLLHHHLL");
    assert_eq!(counts(&c, 1..=6), [4, 2, 0, 4, 2, 4]);
}

#[test]
fn mode_3_takes_a_new_count_at_the_end_of_the_half_cycle() {
    let mut c = counter(0x06, 8, true);
    c.write(2, 4);
    c.write(2, 0);
    assert_eq!(c.next_rise(2), Some(7));
    assert_eq!(outs(&c, 1..=12), "HHHHLLHHLLHH");
}

#[test]
fn mode_4_strobes_once_n_plus_one_pulses_after_the_write() {
    let c = counter(0x08, 3, true);
    assert_eq!(outs(&c, 0..=7), "HHHHLHHH");
    assert_eq!(c.next_rise(0), Some(5));
}

#[test]
fn mode_5_strobes_after_each_trigger() {
    let mut c = counter(0x0A, 3, false);
    assert_eq!(outs(&c, 0..=5), "HHHHHH");
    c.set_gate(5, true);
    assert_eq!(outs(&c, 5..=11), "HHHHLHH");
}

#[test]
fn modes_6_and_7_are_modes_2_and_3() {
    assert_eq!(counter(0x0C, 3, true).mode, 2);
    assert_eq!(counter(0x0E, 3, true).mode, 3);
}

#[test]
fn bcd_counts_in_decimal_and_zero_is_ten_thousand() {
    let c = counter(0x01, 0x1000, true);
    assert_eq!(counts(&c, 1..=2), [0x1000, 0x0999]);
    let c = counter(0x05, 0, true);
    assert_eq!(counts(&c, 1..=2), [0x0000, 0x9999]);
    assert_eq!(c.next_rise(0), Some(10_001));
}

#[test]
fn a_count_of_zero_is_65536() {
    let c = counter(0x04, 0, true);
    assert_eq!(counts(&c, 1..=2), [0, 0xFFFF]);
    assert_eq!(c.next_rise(0), Some(65_537));
}

#[test]
fn the_latch_holds_until_both_bytes_are_read_and_a_second_latch_is_ignored() {
    let mut c = counter(0x04, 1000, true);
    c.latch(101);
    c.latch(300);
    assert_eq!([c.read(400), c.read(400)], 900u16.to_le_bytes());
    assert_eq!([c.read(501), c.read(501)], 500u16.to_le_bytes());
}

#[test]
fn single_byte_access_reads_and_writes_one_byte() {
    let mut c = ChannelState::new(true);
    c.control(0x24);
    c.write(0, 2);
    assert_eq!(c.divisor(), Some(512));
    assert_eq!(c.read(1), 2);
    c.control(0x14);
    c.write(0, 9);
    assert_eq!(c.read(1), 9);
}

#[test]
fn status_tells_a_count_that_is_not_loaded_yet() {
    let mut c = counter(0x04, 10, true);
    c.latch_status(0);
    assert_eq!(c.read(0) & 0x40, 0x40);
    c.latch_status(1);
    assert_eq!(c.read(1) & 0x40, 0);
}

/// Every mode: stepping OUT pulse by pulse gives the rises that the formulas tell.
#[test]
fn rises_and_deadlines_agree_with_the_waveform() {
    for mode in 0..6u8 {
        for count in [2u16, 3, 5, 8] {
            for rewrite in [None, Some((7u64, 3u16)), Some((6, 9))] {
                let mut c = counter(mode << 1, count, true);
                if matches!(mode, 1 | 5) {
                    c.set_gate(0, false);
                    c.set_gate(0, true);
                }
                let mut stepped = Vec::new();
                let mut by_formula = 0;
                let mut last = c.clone();
                for t in 1..60u64 {
                    let predicted = last.next_rise(t - 1);
                    let before = last.out(t - 1);
                    by_formula += last.rises(t - 1, t);
                    if !before && last.out(t) {
                        stepped.push(t);
                        assert_eq!(predicted, Some(t), "mode {mode} count {count} {rewrite:?}");
                    } else {
                        assert_ne!(predicted, Some(t), "mode {mode} count {count} {rewrite:?}");
                    }
                    if let Some((at, new)) = rewrite
                        && at == t
                        && !matches!(mode, 0 | 4)
                    {
                        last.write(t, new as u8);
                        last.write(t, (new >> 8) as u8);
                    }
                }
                assert_eq!(
                    by_formula,
                    stepped.len() as u64,
                    "mode {mode} count {count} {rewrite:?}"
                );
            }
        }
    }
}

/// What `waves` tell of pulse `t`: the last one that has begun counts.
fn told(waves: &Waves, t: u64) -> bool {
    let begun = waves.iter().flatten().rfind(|w| w.from <= t);
    begun.expect("the first begins at once").level(t)
}

#[test]
fn waves_are_what_out_does() {
    let mut random = 0x1234_5678_9ABC_DEF1u64;
    let mut draw = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut moved = [0u32; 6];
    for _ in 0..4000 {
        let mut c = ChannelState::new(draw(2) == 0);
        let mut t = draw(50);
        for _ in 0..12 {
            match draw(6) {
                0 => c.control(((draw(3) + 1) << 4 | draw(8) << 1 | u64::from(draw(5) == 0)) as u8),
                1 => c.set_gate(t, draw(3) != 0),
                _ => c.write(t, draw(12) as u8),
            }
            c.settle(t);
            let waves = c.waves(t);
            assert!(
                waves.iter().skip_while(|w| w.is_some()).all(Option::is_none),
                "{waves:?}"
            );
            let starts: Vec<u64> = waves.iter().flatten().map(|w| w.from).collect();
            assert!(starts[0] == t && starts.is_sorted_by(|a, b| a < b), "{waves:?}");
            let (mut later, before) = (c.clone(), c.out(t));
            for t in t..t + 60 {
                later.settle(t);
                assert_eq!(told(&waves, t), later.out(t), "pulse {t} of {c:?}: {waves:?}");
                moved[usize::from(c.mode)] += u32::from(later.out(t) != before);
            }
            t += draw(40);
        }
    }
    assert!(moved.iter().all(|&n| n > 50), "{moved:?}");
}
