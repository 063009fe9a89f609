//! The local APIC against SDM vol. 3 chapter 11.

use super::ipi::{Shorthand, route};
use super::*;
use crate::core_complex::ioapic::DeliveryMode;
use crate::core_complex::snapshot::snapshot_tests;

const NOW: VmTime = VmTime(1000);

fn tsc() -> Tsc {
    Tsc::new(1_000_000_000)
}

fn enabled(id: u32) -> Lapic {
    let mut apic = Lapic::new(id, 40);
    write(&mut apic, reg::SVR, 0x1FF);
    apic
}

fn write_at(apic: &mut Lapic, now: VmTime, number: u32, value: u32) -> Vec<LapicOutput> {
    let mut out = Vec::new();
    apic.mmio_write(now, u64::from(number) << 4, value, &mut out);
    out
}

fn write(apic: &mut Lapic, number: u32, value: u32) -> Vec<LapicOutput> {
    write_at(apic, NOW, number, value)
}

fn read(apic: &mut Lapic, number: u32) -> u32 {
    apic.mmio_read(NOW, u64::from(number) << 4)
}

snapshot_tests!(snapshot_bytes, Lapic::new(0, 40), |a: &mut Lapic| {
    a.firmware_state();
    a.accept(0x51, true);
});

#[test]
fn a_restore_finds_the_pending_vector_again() {
    let mut apic = enabled(0);
    apic.accept(0x51, false);
    let mut other = Lapic::new(0, 40);
    other.restore(apic.save());
    assert_eq!(other.pending(), Some(0x51));
}

#[test]
fn the_highest_vector_is_served_first_and_blocks_its_class() {
    let mut apic = enabled(0);
    for vector in [0x31, 0x55, 0x52] {
        apic.accept(vector, false);
    }
    assert_eq!(apic.acknowledge(), 0x55);
    assert_eq!(apic.ppr(), 0x50);
    assert_eq!(apic.pending(), None, "52h is of the class in service");
    apic.accept(0x61, false);
    assert_eq!(apic.acknowledge(), 0x61);
    write(&mut apic, reg::EOI, 0);
    write(&mut apic, reg::EOI, 0);
    assert_eq!(apic.acknowledge(), 0x52);
    write(&mut apic, reg::EOI, 0);
    assert_eq!(apic.acknowledge(), 0x31);
}

#[test]
fn task_priority_holds_back_its_class_and_below_and_cr8_is_its_upper_half() {
    let mut apic = enabled(0);
    apic.accept(0x48, false);
    apic.set_cr8(4);
    assert_eq!((apic.pending(), read(&mut apic, reg::TPR)), (None, 0x40));
    write(&mut apic, reg::TPR, 0x3F);
    assert_eq!((apic.pending(), apic.cr8()), (Some(0x48), 3));
    assert_eq!(read(&mut apic, reg::PPR), 0x3F);
}

#[test]
fn an_acknowledge_with_nothing_pending_gives_the_spurious_vector_and_no_service() {
    let mut apic = enabled(0);
    assert_eq!(apic.acknowledge(), 0xFF);
    assert_eq!((0..8).map(|i| read(&mut apic, reg::ISR + i)).sum::<u32>(), 0);
}

#[test]
fn only_level_interrupts_tell_the_io_apic_of_their_eoi() {
    let mut apic = enabled(0);
    apic.accept(0x51, true);
    apic.accept(0x61, false);
    apic.acknowledge();
    assert!(write(&mut apic, reg::EOI, 0).is_empty());
    apic.acknowledge();
    assert_eq!(write(&mut apic, reg::EOI, 0), [LapicOutput::Eoi(0x51)]);
    assert!(write(&mut apic, reg::EOI, 0).is_empty(), "nothing is in service");
}

#[test]
fn a_software_disabled_apic_takes_nothing_and_masks_its_lvt() {
    let mut apic = enabled(0);
    write(&mut apic, reg::LVT_TIMER, 0x30);
    write(&mut apic, reg::SVR, 0xFF);
    assert!(!apic.accept(0x50, false));
    assert_eq!(read(&mut apic, reg::LVT_TIMER), 0x1_0030);
    write(&mut apic, reg::LVT_TIMER, 0x30);
    assert_eq!(
        read(&mut apic, reg::LVT_TIMER),
        0x1_0030,
        "the mask cannot be cleared"
    );
}

#[test]
fn illegal_vectors_and_registers_show_in_the_esr_after_it_is_written() {
    let mut apic = enabled(0);
    apic.accept(5, false);
    assert_eq!(read(&mut apic, reg::ESR), 0);
    write(&mut apic, reg::ESR, 0);
    assert_eq!(read(&mut apic, reg::ESR), 0x40);
    write(&mut apic, reg::ICR, 0x0004_0003);
    read(&mut apic, 0x3F);
    write(&mut apic, reg::ESR, 0);
    assert_eq!(read(&mut apic, reg::ESR), 0xA0);
    write(&mut apic, reg::ESR, 0);
    assert_eq!(read(&mut apic, reg::ESR), 0);
}

#[test]
fn an_error_raises_the_error_vector() {
    let mut apic = enabled(0);
    write(&mut apic, reg::LVT_ERROR, 0xFE);
    apic.accept(5, false);
    assert_eq!(apic.pending(), Some(0xFE));
}

// ---- timer --------------------------------------------------------------------------------------------

#[test]
fn a_one_shot_timer_counts_down_by_its_divider_and_fires_once() {
    let mut apic = enabled(0);
    let tsc = tsc();
    write(&mut apic, reg::DIVIDE, 0x3);
    write(&mut apic, reg::LVT_TIMER, 0x40);
    write(&mut apic, reg::INITIAL_COUNT, 100);
    assert_eq!(apic.next_deadline(NOW, &tsc), Some(NOW + 1600));
    assert_eq!(apic.mmio_read(NOW + 800, 0x390), 50);
    apic.advance(NOW + 1599, &tsc);
    assert_eq!(apic.pending(), None);
    apic.advance(NOW + 1600, &tsc);
    assert_eq!(apic.acknowledge(), 0x40);
    assert_eq!(apic.next_deadline(NOW + 1600, &tsc), None);
    apic.advance(NOW + 9000, &tsc);
    assert_eq!(apic.pending(), None);
    assert_eq!(apic.mmio_read(NOW + 9000, 0x390), 0);
}

#[test]
fn every_divider_value_divides_as_the_manual_says() {
    for (value, divisor) in [
        (0u32, 2u64),
        (1, 4),
        (2, 8),
        (3, 16),
        (8, 32),
        (9, 64),
        (10, 128),
        (11, 1),
    ] {
        let mut apic = enabled(0);
        write(&mut apic, reg::DIVIDE, value);
        write(&mut apic, reg::LVT_TIMER, 0x40);
        write(&mut apic, reg::INITIAL_COUNT, 10);
        assert_eq!(apic.next_deadline(NOW, &tsc()), Some(NOW + 10 * divisor));
    }
}

#[test]
fn late_periods_merge_and_the_next_one_keeps_the_phase() {
    let mut apic = enabled(0);
    let tsc = tsc();
    write(&mut apic, reg::DIVIDE, 0xB);
    write(&mut apic, reg::LVT_TIMER, 0x2_0040);
    write(&mut apic, reg::INITIAL_COUNT, 1000);
    apic.advance(NOW + 5300, &tsc);
    assert_eq!(apic.acknowledge(), 0x40);
    assert_eq!(apic.pending(), None);
    assert_eq!(apic.next_deadline(NOW + 5300, &tsc), Some(NOW + 6000));
    assert_eq!(apic.mmio_read(NOW + 5300, 0x390), 700);
}

#[test]
fn a_new_divider_goes_on_from_the_current_count() {
    let mut apic = enabled(0);
    write(&mut apic, reg::DIVIDE, 0xB);
    write(&mut apic, reg::LVT_TIMER, 0x40);
    write(&mut apic, reg::INITIAL_COUNT, 1000);
    write_at(&mut apic, NOW + 400, reg::DIVIDE, 0x0);
    assert_eq!(apic.mmio_read(NOW + 400, 0x390), 600);
    assert_eq!(apic.next_deadline(NOW + 400, &tsc()), Some(NOW + 400 + 1200));
}

#[test]
fn tsc_deadline_fires_when_the_counter_gets_there_and_disarms() {
    let mut apic = enabled(0);
    let tsc = tsc();
    apic.set_tsc_deadline(5000);
    assert_eq!(apic.tsc_deadline(), 0, "ignored in other modes");
    write(&mut apic, reg::LVT_TIMER, 0x4_0041);
    apic.set_tsc_deadline(5000);
    assert_eq!(
        (apic.tsc_deadline(), apic.next_deadline(NOW, &tsc)),
        (5000, Some(VmTime(5000)))
    );
    write(&mut apic, reg::INITIAL_COUNT, 9);
    assert_eq!(
        read(&mut apic, reg::INITIAL_COUNT),
        0,
        "the count is not used in this mode"
    );
    apic.advance(VmTime(4999), &tsc);
    assert_eq!(apic.pending(), None);
    apic.advance(VmTime(5000), &tsc);
    assert_eq!((apic.pending(), apic.tsc_deadline()), (Some(0x41), 0));
}

#[test]
fn leaving_tsc_deadline_mode_disarms() {
    let mut apic = enabled(0);
    write(&mut apic, reg::LVT_TIMER, 0x4_0041);
    apic.set_tsc_deadline(5000);
    write(&mut apic, reg::LVT_TIMER, 0x0041);
    write(&mut apic, reg::LVT_TIMER, 0x4_0041);
    assert_eq!(apic.tsc_deadline(), 0);
}

#[test]
fn a_masked_timer_runs_but_neither_fires_nor_wakes() {
    let mut apic = enabled(0);
    let tsc = tsc();
    write(&mut apic, reg::DIVIDE, 0xB);
    write(&mut apic, reg::LVT_TIMER, 0x1_0040);
    write(&mut apic, reg::INITIAL_COUNT, 100);
    assert_eq!(apic.next_deadline(NOW, &tsc), None);
    apic.advance(NOW + 200, &tsc);
    write_at(&mut apic, NOW + 200, reg::LVT_TIMER, 0x40);
    apic.advance(NOW + 300, &tsc);
    assert_eq!(apic.pending(), None);
}

// ---- local inputs -------------------------------------------------------------------------------------

#[test]
fn lint_modes_deliver_what_their_entry_says() {
    let mut apic = enabled(0);
    let mut out = Vec::new();
    write(&mut apic, 0x36, 0x0400);
    apic.set_lint(1, true, &mut out);
    apic.set_lint(1, true, &mut out);
    assert_eq!(out, [LapicOutput::Nmi]);
    write(&mut apic, 0x35, 0x0045);
    apic.set_lint(0, true, &mut out);
    assert_eq!(apic.acknowledge(), 0x45);
    assert!(!apic.accepts_extint());
    write(&mut apic, 0x35, 0x0700);
    assert!(apic.accepts_extint());
    write(&mut apic, 0x35, 0x1_0700);
    assert!(!apic.accepts_extint());
}

#[test]
fn a_level_lint_fires_again_after_its_eoi_while_it_is_high() {
    let mut apic = enabled(0);
    let mut out = Vec::new();
    write(&mut apic, 0x35, 0x8045);
    apic.set_lint(0, true, &mut out);
    assert_eq!(read(&mut apic, 0x35), 0xC045);
    apic.acknowledge();
    write(&mut apic, reg::EOI, 0);
    assert_eq!(apic.pending(), Some(0x45));
    apic.acknowledge();
    apic.set_lint(0, false, &mut out);
    write(&mut apic, reg::EOI, 0);
    assert_eq!(apic.pending(), None);
}

#[test]
fn a_disabled_apic_passes_the_8259a_through() {
    let mut apic = enabled(0);
    apic.set_apic_base(LAPIC_DEFAULT_BASE).unwrap();
    assert!(apic.accepts_extint() && apic.mmio_base().is_none());
}

// ---- modes --------------------------------------------------------------------------------------------

#[test]
fn apic_base_allows_only_the_transitions_of_the_manual() {
    let base = LAPIC_DEFAULT_BASE;
    let (off, x, x2) = (base, base | 0x800, base | 0xC00);
    let mut apic = Lapic::new(0, 40);
    assert_eq!(apic.apic_base(), x | 0x100);
    assert!(apic.set_apic_base(base | 0x400).is_err(), "x2APIC without enable");
    assert!(apic.set_apic_base(x | 1).is_err(), "reserved bit");
    assert!(
        apic.set_apic_base(x | 1 << 40).is_err(),
        "beyond the address width"
    );
    apic.set_apic_base(x2).unwrap();
    assert!(apic.set_apic_base(x).is_err(), "x2APIC to xAPIC");
    apic.set_apic_base(off).unwrap();
    assert!(apic.set_apic_base(x2).is_err(), "disabled to x2APIC");
    apic.set_apic_base(x).unwrap();
    assert_eq!(apic.apic_base(), x | 0x100, "the BSP bit cannot be cleared");
}

#[test]
fn the_register_page_moves_with_the_base() {
    let mut apic = Lapic::new(0, 40);
    apic.set_apic_base(0x8_0000_0800).unwrap();
    assert_eq!(apic.mmio_base(), Some(0x8_0000_0000));
}

#[test]
fn x2apic_registers_are_msrs_with_reserved_bits() {
    let mut apic = Lapic::new(0, 40);
    let mut out = Vec::new();
    assert!(apic.msr_read(NOW, reg::VERSION).is_err(), "xAPIC mode");
    apic.set_apic_base(LAPIC_DEFAULT_BASE | 0xC00).unwrap();
    assert!(apic.mmio_base().is_none());
    assert_eq!(apic.msr_read(NOW, reg::VERSION), Ok(0x0005_0014));
    assert_eq!(apic.msr_read(NOW, reg::LDR), Ok(1));
    assert!(apic.msr_read(NOW, reg::DFR).is_err() && apic.msr_read(NOW, reg::ICR_HIGH).is_err());
    assert!(apic.msr_write(NOW, reg::EOI, 1, &mut out).is_err());
    assert!(apic.msr_write(NOW, reg::TPR, 0x100, &mut out).is_err());
    assert!(apic.msr_write(NOW, reg::ID, 1, &mut out).is_err());
    apic.msr_write(NOW, reg::SVR, 0x1FF, &mut out).unwrap();
    apic.msr_write(NOW, reg::ICR, 0x0000_0005_0000_4041, &mut out)
        .unwrap();
    apic.msr_write(NOW, reg::SELF_IPI, 0x77, &mut out).unwrap();
    let sent: Vec<_> = out
        .iter()
        .map(|o| match o {
            LapicOutput::Ipi { message, shorthand } => (message.vector, message.destination, *shorthand),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        sent,
        [(0x41, 5, Shorthand::Destination), (0x77, 0, Shorthand::Itself)]
    );
}

// ---- messages between processors ----------------------------------------------------------------------

fn message(mode: DeliveryMode, logical: bool, destination: u32) -> InterruptMessage {
    InterruptMessage {
        vector: 0x41,
        mode,
        logical,
        destination,
        level: false,
    }
}

fn send(apics: &mut [Lapic], message: &InterruptMessage, shorthand: Shorthand) -> Vec<usize> {
    for apic in apics.iter_mut() {
        let state = apic.save();
        apic.restore(LapicState { irr: [0; 8], ..state });
    }
    route(apics, Some(0), shorthand, message, &mut Vec::new());
    (0..apics.len())
        .filter(|&i| apics[i].is_requested(0x41))
        .collect()
}

#[test]
fn destinations_are_physical_flat_cluster_or_shorthand() {
    let mut apics: Vec<_> = (0..4).map(enabled).collect();
    for (i, apic) in apics.iter_mut().enumerate() {
        write(apic, reg::LDR, 1 << (24 + i));
    }
    use DeliveryMode::Fixed;
    let d = Shorthand::Destination;
    assert_eq!(send(&mut apics, &message(Fixed, false, 2), d), [2]);
    assert_eq!(send(&mut apics, &message(Fixed, false, 0xFF), d), [0, 1, 2, 3]);
    assert_eq!(send(&mut apics, &message(Fixed, true, 0b1010), d), [1, 3]);
    assert_eq!(send(&mut apics, &message(Fixed, false, 9), d), [0usize; 0]);
    assert_eq!(
        send(&mut apics, &message(Fixed, false, 9), Shorthand::All),
        [0, 1, 2, 3]
    );
    assert_eq!(
        send(&mut apics, &message(Fixed, false, 9), Shorthand::Others),
        [1, 2, 3]
    );
    assert_eq!(
        send(&mut apics, &message(Fixed, false, 9), Shorthand::Itself),
        [0]
    );
    for (i, apic) in apics.iter_mut().enumerate() {
        write(apic, reg::DFR, 0x0FFF_FFFF);
        write(apic, reg::LDR, (0x10 * (i as u32 / 2) + (1 << (i % 2))) << 24);
    }
    assert_eq!(send(&mut apics, &message(Fixed, true, 0x13), d), [2, 3]);
    assert_eq!(send(&mut apics, &message(Fixed, true, 0x01), d), [0]);
}

#[test]
fn lowest_priority_goes_to_one_processor_of_the_set() {
    let mut apics: Vec<_> = (0..3).map(enabled).collect();
    for (i, apic) in apics.iter_mut().enumerate() {
        write(apic, reg::LDR, 1 << (24 + i));
        apic.set_cr8([5, 2, 9][i]);
    }
    let m = message(DeliveryMode::LowestPriority, true, 0xFF);
    assert_eq!(send(&mut apics, &m, Shorthand::Destination), [1]);
    assert_eq!(
        send(
            &mut apics,
            &message(DeliveryMode::LowestPriority, true, 0b101),
            Shorthand::Destination
        ),
        [0]
    );
}

#[test]
fn init_and_start_up_reach_the_other_processor_and_deassert_is_nothing() {
    let mut apics: Vec<_> = (0..2).map(enabled).collect();
    write(&mut apics[0], reg::ICR_HIGH, 1 << 24);
    assert!(write(&mut apics[0], reg::ICR, 0x0000_8500).is_empty());
    let mut got = Vec::new();
    for icr in [0x0000_C500, 0x0000_4610] {
        for output in write(&mut apics[0], reg::ICR, icr) {
            if let LapicOutput::Ipi { message, shorthand } = output {
                route(&mut apics, Some(0), shorthand, &message, &mut got);
            }
        }
    }
    assert_eq!(got, [(1, LapicOutput::Init), (1, LapicOutput::StartUp(0x10))]);
}
