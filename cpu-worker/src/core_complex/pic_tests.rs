//! The 8259A pair against its data sheet.

use super::*;
use crate::core_complex::snapshot::snapshot_tests;

fn ready() -> Pic {
    let mut pic = Pic::new();
    pic.firmware_state(0);
    pic.write(0x21, 0);
    pic.write(0xA1, 0);
    pic
}

fn isr(pic: &mut Pic) -> (u8, u8) {
    pic.write(0x20, 0x0B);
    pic.write(0xA0, 0x0B);
    (pic.read(0x20), pic.read(0xA0))
}

snapshot_tests!(snapshot, Pic::new(), |p: &mut Pic| {
    p.firmware_state(0x0C00);
    p.set_line(3, true);
});

#[test]
fn requests_are_served_by_priority_with_the_slave_at_input_two() {
    let mut pic = ready();
    for irq in [7, 12, 8, 3, 1] {
        pic.set_line(irq, true);
    }
    let mut got = Vec::new();
    while pic.int_output() {
        let vector = pic.acknowledge();
        got.push(vector);
        if vector >= 0x70 {
            pic.write(0xA0, 0x20);
        }
        pic.write(0x20, 0x20);
    }
    assert_eq!(got, [0x09, 0x70, 0x74, 0x0B, 0x0F]);
}

#[test]
fn a_served_input_blocks_its_own_and_lower_ones_until_eoi() {
    let mut pic = ready();
    pic.set_line(4, true);
    assert_eq!(pic.acknowledge(), 0x0C);
    pic.set_line(5, true);
    pic.set_line(4, false);
    pic.set_line(4, true);
    assert!(!pic.int_output());
    pic.set_line(3, true);
    assert_eq!(pic.acknowledge(), 0x0B);
    assert_eq!(isr(&mut pic).0, 0x18);
    pic.write(0x20, 0x20);
    assert_eq!(isr(&mut pic).0, 0x10);
    pic.write(0x20, 0x64);
    assert_eq!(pic.acknowledge(), 0x0C);
}

#[test]
fn s3_93_an_edge_stays_latched_after_its_line_fell() {
    let mut pic = ready();
    pic.set_line(6, true);
    pic.set_line(6, false);
    assert!(pic.int_output());
    assert_eq!(pic.acknowledge(), 0x0E);
    pic.write(0x20, 0x20);
    assert!(!pic.int_output());
}

#[test]
fn an_edge_line_that_stays_high_interrupts_once_and_a_level_line_again() {
    let mut pic = ready();
    pic.write(0x4D1, 0x0C);
    pic.set_line(9, true);
    pic.set_line(10, true);
    assert_eq!(pic.acknowledge(), 0x71);
    pic.write(0xA0, 0x20);
    pic.write(0x20, 0x20);
    for _ in 0..3 {
        assert_eq!(pic.acknowledge(), 0x72);
        pic.write(0xA0, 0x20);
        pic.write(0x20, 0x20);
    }
    pic.set_line(10, false);
    assert_eq!(pic.read(0xA0) & 0x04, 0);
}

#[test]
fn a_level_line_withdrawn_before_inta_gives_spurious_irq_seven_with_nothing_in_service() {
    let mut pic = ready();
    pic.write(0x4D0, 0x20);
    pic.set_line(5, true);
    assert!(pic.int_output());
    pic.set_line(5, false);
    assert_eq!(pic.acknowledge(), 0x0F);
    assert_eq!(isr(&mut pic), (0, 0));
}

#[test]
fn a_slave_line_withdrawn_before_inta_gives_spurious_irq_fifteen_with_the_cascade_in_service() {
    let mut pic = ready();
    pic.write(0x4D1, 0x04);
    pic.set_line(10, true);
    pic.set_line(10, false);
    assert!(pic.int_output());
    assert_eq!(pic.acknowledge(), 0x77);
    assert_eq!(isr(&mut pic), (0x04, 0));
}

#[test]
fn automatic_eoi_leaves_nothing_in_service_and_rotates_when_told() {
    let mut pic = ready();
    for (port, value) in [(0x20, 0x11), (0x21, 0x08), (0x21, 0x04), (0x21, 0x03)] {
        pic.write(port, value);
    }
    pic.write(0x20, 0x80);
    pic.set_line(0, true);
    pic.set_line(1, true);
    assert_eq!(pic.acknowledge(), 0x08);
    assert_eq!(isr(&mut pic).0, 0);
    // 0 is the lowest now.
    pic.set_line(0, false);
    pic.set_line(0, true);
    assert_eq!(pic.acknowledge(), 0x09);
    assert_eq!(pic.acknowledge(), 0x08);
}

#[test]
fn automatic_eoi_of_the_slave_loses_no_request_that_is_still_there() {
    let mut pic = ready();
    for (port, value) in [(0xA0, 0x11), (0xA1, 0x70), (0xA1, 0x02), (0xA1, 0x03)] {
        pic.write(port, value);
    }
    pic.set_line(12, true);
    pic.set_line(14, true);
    assert_eq!(pic.acknowledge(), 0x74);
    pic.write(0x20, 0x20);
    assert_eq!(pic.acknowledge(), 0x76);
}

#[test]
fn rotation_on_eoi_makes_the_served_input_the_lowest() {
    let mut pic = ready();
    pic.set_line(4, true);
    pic.acknowledge();
    pic.write(0x20, 0xA0);
    pic.set_line(0, true);
    pic.set_line(5, true);
    assert_eq!(pic.acknowledge(), 0x0D);
    pic.write(0x20, 0xE5);
    assert_eq!(pic.acknowledge(), 0x08);
}

#[test]
fn set_priority_chooses_the_lowest_input() {
    let mut pic = ready();
    pic.write(0x20, 0xC5);
    pic.set_line(0, true);
    pic.set_line(6, true);
    assert_eq!(pic.acknowledge(), 0x0E);
}

#[test]
fn special_mask_mode_lets_lower_inputs_through_and_keeps_masked_service_bits() {
    let mut pic = ready();
    pic.set_line(3, true);
    pic.acknowledge();
    pic.set_line(5, true);
    assert!(!pic.int_output());
    pic.write(0x20, 0x68);
    pic.write(0x21, 0x08);
    assert_eq!(pic.acknowledge(), 0x0D);
    pic.write(0x20, 0x20);
    assert_eq!(
        isr(&mut pic).0,
        0x08,
        "the masked bit is cleared by a specific EOI only"
    );
    pic.write(0x20, 0x20);
    assert_eq!(isr(&mut pic).0, 0x08);
    pic.write(0x20, 0x63);
    assert_eq!(isr(&mut pic).0, 0);
}

#[test]
fn special_fully_nested_mode_lets_a_higher_slave_request_interrupt_a_lower_one() {
    let mut pic = ready();
    for nested in [false, true] {
        pic.write(0x20, 0x11);
        for value in [0x08, 0x04, if nested { 0x11 } else { 0x01 }] {
            pic.write(0x21, value);
        }
        pic.set_line(12, true);
        assert_eq!(pic.acknowledge(), 0x74);
        pic.set_line(9, true);
        assert_eq!(pic.int_output(), nested);
        pic.write(0xA0, 0x64);
        pic.set_line(12, false);
        pic.set_line(9, false);
        if nested {
            assert_eq!(pic.acknowledge(), 0x71);
            pic.write(0xA0, 0x61);
        } else {
            pic.write(0x20, 0x20);
            pic.acknowledge();
            pic.write(0xA0, 0x61);
        }
    }
}

#[test]
fn a_poll_reads_the_request_and_acknowledges_it() {
    let mut pic = ready();
    pic.set_line(6, true);
    pic.write(0x20, 0x0C);
    assert_eq!(pic.read(0x20), 0x86);
    assert_eq!(isr(&mut pic).0, 0x40);
    pic.write(0x20, 0x0C);
    assert_eq!(pic.read(0x21), 0x00, "a poll is answered at either port");
    assert_eq!(pic.read(0x21), 0x00, "and once");
}

#[test]
fn icw1_clears_mask_service_and_latched_edges_but_not_levels() {
    let mut pic = ready();
    pic.write(0x4D0, 0x20);
    pic.set_line(4, true);
    pic.set_line(5, true);
    pic.acknowledge();
    pic.write(0x21, 0xFF);
    pic.write(0x20, 0x11);
    for value in [0x20, 0x04, 0x01] {
        pic.write(0x21, value);
    }
    assert_eq!(pic.read(0x21), 0);
    assert_eq!(pic.acknowledge(), 0x25);
    assert_eq!(isr(&mut pic).0, 0x20);
}

#[test]
fn initialisation_words_three_and_four_are_skipped_when_icw1_says_so() {
    let mut pic = Pic::new();
    pic.write(0x20, 0x12);
    pic.write(0x21, 0x40);
    pic.write(0x21, 0x55);
    assert_eq!(pic.read(0x21), 0x55, "the word after ICW2 was OCW1");
}

#[test]
fn elcr_keeps_the_system_lines_edge() {
    let mut pic = Pic::new();
    pic.write(0x4D0, 0xFF);
    pic.write(0x4D1, 0xFF);
    assert_eq!((pic.read(0x4D0), pic.read(0x4D1)), (0xF8, 0xDE));
}

#[test]
fn eoi_and_unmask_are_told_apart_from_other_writes() {
    let mut pic = ready();
    pic.write(0x21, 0xF0);
    assert!(pic.would_unmask_or_eoi(0x20, 0x20));
    assert!(pic.would_unmask_or_eoi(0x20, 0x63));
    assert!(pic.would_unmask_or_eoi(0x21, 0xE0));
    assert!(!pic.would_unmask_or_eoi(0x21, 0xFF));
    assert!(!pic.would_unmask_or_eoi(0x20, 0x0A));
    assert!(!pic.would_unmask_or_eoi(0xA0, 0xC0));
}
