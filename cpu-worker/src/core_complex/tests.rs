//! The complex as a guest sees it: wiring, delivery, deadlines, resets.

use super::lapic::reg;
use super::snapshot::snapshot_tests;
use super::*;
use quintet_protocol::time::NANOS_PER_SEC;

const LAPIC: u64 = lapic::LAPIC_DEFAULT_BASE;

fn config() -> CoreConfig {
    CoreConfig {
        tsc_hz: 1_000_000_000,
        unix_nanos: 0,
        ram: RamLayout::new(512 << 20),
        phys_bits: 40,
        cmos: Vec::new(),
    }
}

fn complex() -> CoreComplex {
    let mut c = CoreComplex::new(config());
    c.firmware_state(VmTime(0), PCI_ELCR);
    c
}

/// A complex whose 8254 does not tick, so that only the test's interrupts come.
fn quiet() -> CoreComplex {
    let mut c = complex();
    out(&mut c, VmTime(0), 0x43, 0x30);
    c
}

fn out(c: &mut CoreComplex, now: VmTime, port: u16, value: u8) -> Effects {
    c.port_write(now, port, u32::from(value), 1)
        .expect("a port of the complex")
}

fn inb(c: &mut CoreComplex, now: VmTime, port: u16) -> u8 {
    c.port_read(now, port, 1).expect("a port of the complex") as u8
}

fn lapic_write(c: &mut CoreComplex, now: VmTime, number: u32, value: u32) -> Effects {
    c.mmio_write(
        now,
        GuestPhys(LAPIC + u64::from(number << 4)),
        4,
        u64::from(value),
    )
    .unwrap()
}

fn redirect(c: &mut CoreComplex, pin: u8, value: u64) {
    for half in 0..2u8 {
        c.mmio_write(
            VmTime(0),
            GuestPhys(IOAPIC_BASE),
            4,
            u64::from(0x10 + 2 * pin + (1 - half)),
        )
        .unwrap();
        c.mmio_write(
            VmTime(0),
            GuestPhys(IOAPIC_BASE + 0x10),
            4,
            value >> (32 * (1 - half)) & 0xFFFF_FFFF,
        )
        .unwrap();
    }
}

/// Masks the 8259 pair, as an operating system that uses the APICs does.
fn apic_mode(c: &mut CoreComplex) {
    out(c, VmTime(0), 0x21, 0xFF);
    out(c, VmTime(0), 0xA1, 0xFF);
}

snapshot_tests!(
    snapshot_bytes,
    CoreComplex::new(config()),
    |c: &mut CoreComplex| {
        c.firmware_state(VmTime(0), PCI_ELCR);
        c.set_isa_line(VmTime(0), 1, WireSource::IoWorker, true);
        c.set_pmbase(true, 0x600);
    }
);

#[test]
fn a_restored_complex_goes_on_where_the_saved_one_was() {
    let mut a = complex();
    a.set_isa_line(VmTime(0), 1, WireSource::IoWorker, true);
    let mut b = CoreComplex::new(config());
    b.restore(a.save());
    let later = VmTime(NANOS_PER_SEC / 2);
    assert_eq!(a.acknowledge(later), b.acknowledge(later));
    assert_eq!(a.next_deadline(), b.next_deadline());
    assert_eq!(a.save(), b.save());
}

#[test]
fn the_bios_state_ticks_irq_zero_through_the_virtual_wire() {
    let mut c = complex();
    assert!(!c.interrupt_pending(VmTime(0)));
    let at = c.next_deadline().unwrap();
    assert!(!c.interrupt_pending(at - 1));
    assert!(c.interrupt_pending(at));
    assert_eq!(c.acknowledge(at), Some(0x08));
    assert_eq!(c.acknowledge(at), None);
    assert!((54_900_000..55_000_000).contains(&at.0), "18.2 Hz, found {at:?}");
}

#[test]
fn late_ticks_of_the_8254_come_one_after_another() {
    let mut c = complex();
    let late = VmTime(NANOS_PER_SEC / 2);
    let mut ticks = 0;
    while c.interrupt_pending(late) {
        assert_eq!(c.acknowledge(late), Some(0x08));
        out(&mut c, late, 0x20, 0x20);
        ticks += 1;
    }
    assert_eq!(ticks, 9);
}

#[test]
fn ticks_that_nobody_can_take_leave_one_latched_edge() {
    let mut c = complex();
    out(&mut c, VmTime(0), 0x21, 0xFF);
    c.advance(VmTime(NANOS_PER_SEC));
    out(&mut c, VmTime(NANOS_PER_SEC), 0x21, 0xFE);
    assert_eq!(c.acknowledge(VmTime(NANOS_PER_SEC)), Some(0x08));
    out(&mut c, VmTime(NANOS_PER_SEC), 0x20, 0x20);
    assert!(!c.interrupt_pending(VmTime(NANOS_PER_SEC)));
}

#[test]
fn irq_zero_is_input_two_of_the_io_apic() {
    let mut c = complex();
    apic_mode(&mut c);
    redirect(&mut c, 2, 0x30);
    let at = c.next_deadline().unwrap();
    assert_eq!(c.acknowledge(at), Some(0x30));
}

#[test]
fn late_ticks_through_the_io_apic_come_one_after_another_too() {
    let mut c = complex();
    apic_mode(&mut c);
    redirect(&mut c, 2, 0x30);
    let late = VmTime(NANOS_PER_SEC / 2);
    let mut ticks = 0;
    while c.interrupt_pending(late) {
        assert_eq!(c.acknowledge(late), Some(0x30));
        lapic_write(&mut c, late, reg::EOI, 0);
        ticks += 1;
    }
    assert_eq!(ticks, 9);
}

#[test]
fn an_isa_line_reaches_both_controllers() {
    let now = VmTime(0);
    let mut c = quiet();
    c.set_isa_line(now, 1, WireSource::IoWorker, true);
    assert_eq!(c.acknowledge(now), Some(0x09));
    c.set_isa_line(now, 1, WireSource::IoWorker, false);
    apic_mode(&mut c);
    redirect(&mut c, 1, 0x41);
    c.pulse(now, 1);
    assert_eq!(c.acknowledge(now), Some(0x41));
}

#[test]
fn s3_92_a_pulse_on_a_line_that_is_high_is_invisible() {
    let now = VmTime(0);
    let mut c = quiet();
    apic_mode(&mut c);
    redirect(&mut c, 4, 0x44);
    c.set_isa_line(now, 4, WireSource::IoWorker, true);
    assert_eq!(c.acknowledge(now), Some(0x44));
    lapic_write(&mut c, now, reg::EOI, 0);
    c.pulse(now, 4);
    assert!(!c.interrupt_pending(now));
}

#[test]
fn s3_90_raise_and_lower_events_count_holders_of_the_same_wire() {
    let now = VmTime(0);
    let mut c = quiet();
    c.raise_line(now, 11);
    c.set_isa_line(now, 11, WireSource::IoWorker, true);
    c.lower_line(now, 11);
    assert!(c.is_line_asserted(11));
    c.set_isa_line(now, 11, WireSource::IoWorker, false);
    assert!(!c.is_line_asserted(11));
}

#[test]
fn the_irq_of_a_pirq_follows_its_routing() {
    let now = VmTime(0);
    let mut c = quiet();
    out(&mut c, now, 0xA1, 0x00);
    c.set_pirq(now, 2, true);
    assert!(!c.interrupt_pending(now), "not routed");
    c.set_pirq_routing(now, [10, 10, 11, 0x8B]);
    assert!(c.is_io_level_high());
    assert_eq!(c.acknowledge(now), Some(0x73));
    c.set_pirq_routing(now, [10, 10, 10, 0x8B]);
    assert!(!c.is_line_asserted(11) && c.is_line_asserted(10));
    c.set_pirq(now, 0, true);
    c.set_pirq(now, 2, false);
    assert!(c.is_line_asserted(10), "A holds it");
}

#[test]
fn a_level_interrupt_comes_again_after_eoi_until_its_wire_falls() {
    let now = VmTime(0);
    let mut c = quiet();
    apic_mode(&mut c);
    redirect(&mut c, 11, 0x8051);
    c.set_gsi(now, 11, WireSource::IoWorker, true);
    for _ in 0..3 {
        assert_eq!(c.acknowledge(now), Some(0x51));
        assert!(c.would_unmask_or_eoi(Access::Mmio(GuestPhys(LAPIC + 0xB0)), 0));
        lapic_write(&mut c, now, reg::EOI, 0);
    }
    assert_eq!(c.acknowledge(now), Some(0x51));
    c.set_gsi(now, 11, WireSource::IoWorker, false);
    assert_eq!(lapic_write(&mut c, now, reg::EOI, 0), Effects::empty());
}

#[test]
fn the_local_apic_is_asked_before_the_8259a() {
    let now = VmTime(0);
    let mut c = quiet();
    c.set_isa_line(now, 1, WireSource::IoWorker, true);
    lapic_write(&mut c, now, reg::ICR, 0x0004_0041);
    assert_eq!(c.acknowledge(now), Some(0x41));
    assert_eq!(c.acknowledge(now), Some(0x09));
}

#[test]
fn masking_lint0_cuts_the_8259a_off() {
    let now = VmTime(0);
    let mut c = quiet();
    c.set_isa_line(now, 1, WireSource::IoWorker, true);
    lapic_write(&mut c, now, 0x35, 0x1_0700);
    assert!(!c.interrupt_pending(now));
    lapic_write(&mut c, now, 0x35, 0x0700);
    assert!(c.interrupt_pending(now));
}

#[test]
fn an_io_apic_input_in_extint_mode_asks_the_8259a_for_the_vector() {
    let now = VmTime(0);
    let mut c = quiet();
    lapic_write(&mut c, now, 0x35, 0x1_0700);
    redirect(&mut c, 1, 0x700);
    c.set_isa_line(now, 1, WireSource::IoWorker, true);
    assert_eq!(c.acknowledge(now), Some(0x09));
    assert!(!c.interrupt_pending(now));
}

#[test]
fn cr8_holds_interrupts_back_and_lets_them_go() {
    let now = VmTime(0);
    let mut c = quiet();
    c.set_cr8(now, 5);
    lapic_write(&mut c, now, reg::ICR, 0x0004_0052);
    assert!(!c.has_interrupt());
    assert!(c.set_cr8(now, 4).contains(Effects::INTERRUPT));
    assert_eq!(c.acknowledge(now), Some(0x52));
}

#[test]
fn hpet_legacy_replacement_takes_the_places_of_8254_and_clock() {
    let mut c = complex();
    apic_mode(&mut c);
    redirect(&mut c, 2, 0x30);
    let hpet = |c: &mut CoreComplex, offset: u64, value: u64| {
        c.mmio_write(VmTime(0), GuestPhys(HPET_BASE + offset), 8, value)
            .unwrap()
    };
    hpet(&mut c, 0x100, 0x004C);
    hpet(&mut c, 0x108, 100_000);
    hpet(&mut c, 0x108, 100_000);
    assert!(hpet(&mut c, 0x10, 3).contains(Effects::DEADLINE));
    assert_eq!(c.next_deadline(), Some(VmTime(1_000_000)));
    let mut ticks = 0;
    for ms in 1..=100 {
        if c.acknowledge(VmTime(ms * 1_000_000)) == Some(0x30) {
            lapic_write(&mut c, VmTime(ms * 1_000_000), reg::EOI, 0);
            ticks += 1;
        }
    }
    assert_eq!(ticks, 100, "the 8254 would have added its own");
}

#[test]
fn an_hpet_level_interrupt_holds_its_input_until_the_status_is_cleared() {
    let now = VmTime(10_000);
    let mut c = quiet();
    redirect(&mut c, 20, 0x8060);
    let write = |c: &mut CoreComplex, offset: u64, value: u64| {
        c.mmio_write(now, GuestPhys(HPET_BASE + offset), 8, value)
            .unwrap()
    };
    write(&mut c, 0x120, 20 << 9 | 0x06);
    write(&mut c, 0x10, 1);
    write(&mut c, 0x128, 500);
    let at = c.next_deadline().unwrap();
    assert_eq!(at, now + 5000);
    assert_eq!(c.acknowledge(at), Some(0x60));
    lapic_write(&mut c, at, reg::EOI, 0);
    assert_eq!(c.acknowledge(at), Some(0x60));
    c.mmio_write(at, GuestPhys(HPET_BASE + 0x20), 4, 2).unwrap();
    lapic_write(&mut c, at, reg::EOI, 0);
    assert!(!c.interrupt_pending(at));
}

#[test]
fn late_clock_ticks_come_one_after_another_as_register_c_is_read() {
    let mut c = quiet();
    for (index, value) in [(0x0A, 0x26), (0x0B, 0x42)] {
        out(&mut c, VmTime(0), 0x70, index);
        out(&mut c, VmTime(0), 0x71, value);
    }
    assert_eq!(c.next_deadline(), Some(VmTime::from_ticks(32, 32_768)));
    let late = VmTime::from_ticks(32 * 5, 32_768);
    let mut ticks = 0;
    while c.interrupt_pending(late) {
        assert_eq!(c.acknowledge(late), Some(0x70));
        out(&mut c, late, 0x70, 0x0C);
        assert_eq!(inb(&mut c, late, 0x71) & 0xC0, 0xC0);
        out(&mut c, late, 0xA0, 0x20);
        out(&mut c, late, 0x20, 0x20);
        ticks += 1;
    }
    assert_eq!(ticks, 5);
}

#[test]
fn the_sci_is_level_on_irq_nine() {
    let now = VmTime(0);
    let mut c = quiet();
    c.set_pmbase(true, 0x600);
    apic_mode(&mut c);
    redirect(&mut c, 9, 0x8059);
    out(&mut c, now, 0xB2, acpi_pm::ACPI_ENABLE);
    c.port_write(now, 0x602, 0x100, 2).unwrap();
    c.press_power_button(now);
    assert_eq!(c.acknowledge(now), Some(0x59));
    c.port_write(now, 0x600, 0x100, 2).unwrap();
    lapic_write(&mut c, now, reg::EOI, 0);
    assert!(!c.interrupt_pending(now));
}

#[test]
fn sleep_type_zero_switches_off_and_others_do_nothing() {
    let mut c = quiet();
    c.set_pmbase(true, 0x600);
    assert!(
        !c.port_write(VmTime(0), 0x604, 0x2400, 2)
            .unwrap()
            .contains(Effects::EVENTS)
    );
    assert!(
        c.port_write(VmTime(0), 0x604, 0x2000, 2)
            .unwrap()
            .contains(Effects::EVENTS)
    );
    assert_eq!(c.pop_event(), Some(CoreEvent::PowerOff));
}

#[test]
fn resets_and_a20_come_out_as_events() {
    let mut c = quiet();
    assert_eq!(out(&mut c, VmTime(0), 0x92, 0), Effects::EVENTS | Effects::VIEW);
    assert!(c.set_keyboard_a20(true).contains(Effects::VIEW));
    out(&mut c, VmTime(0), 0x92, 3);
    out(&mut c, VmTime(0), 0xCF9, 6);
    let events: Vec<_> = core::iter::from_fn(|| c.pop_event()).collect();
    assert_eq!(
        events,
        [
            CoreEvent::A20(false),
            CoreEvent::A20(true),
            CoreEvent::Reset(ResetCause::Port92),
            CoreEvent::Reset(ResetCause::Cf9Hard)
        ]
    );
}

#[test]
fn an_nmi_goes_through_lint1_unless_port_70h_masks_it() {
    let now = VmTime(0);
    let mut c = quiet();
    c.raise_nmi(now);
    assert_eq!(c.pop_event(), Some(CoreEvent::Nmi));
    out(&mut c, now, 0x70, 0x8F);
    c.raise_nmi(now);
    assert_eq!(c.pop_event(), None);
}

#[test]
fn init_to_itself_resets_the_local_apic() {
    let now = VmTime(0);
    let mut c = quiet();
    lapic_write(&mut c, now, reg::ICR, 0x0008_4500);
    assert_eq!(c.pop_event(), Some(CoreEvent::Init));
    assert_eq!(c.mmio_read(now, GuestPhys(LAPIC + 0xF0), 4), Some(0xFF));
}

#[test]
fn accesses_that_belong_to_others_are_refused() {
    let mut c = quiet();
    for (port, size) in [
        (0x3F8, 1),
        (0xCF8, 1),
        (0xCFC, 4),
        (0xCF9, 2),
        (0x64, 1),
        (0x600, 2),
        (0x1CE, 2),
    ] {
        assert_eq!(c.port_read(VmTime(0), port, size), None, "{port:#x}");
        assert_eq!(c.port_write(VmTime(0), port, 0, size), None, "{port:#x}");
    }
    assert_eq!(c.mmio_read(VmTime(0), GuestPhys(0xE000_0000), 4), None);
    assert_eq!(c.msr_read(VmTime(0), 0xC000_0080), None);
}

#[test]
fn a_word_access_to_byte_ports_is_one_of_each() {
    let mut c = quiet();
    c.port_write(VmTime(0), 0x20, 0xAA_0A, 2).unwrap();
    assert_eq!(inb(&mut c, VmTime(0), 0x21), 0xAA);
    assert_eq!(c.port_read(VmTime(0), 0x20, 2).unwrap() >> 8, 0xAA);
}

#[test]
fn the_apic_window_follows_its_msr_and_vanishes_in_x2apic_mode() {
    let now = VmTime(0);
    let mut c = quiet();
    let effects = c.msr_write(now, 0x1B, 0xD000_0900).unwrap().unwrap();
    assert!(effects.contains(Effects::VIEW));
    assert_eq!(c.mmio_windows()[0], Some((GuestPhys(0xD000_0000), 0x1000)));
    assert_eq!(c.mmio_read(now, GuestPhys(0xD000_0030), 4), Some(0x5_0014));
    c.msr_write(now, 0x1B, 0xD000_0D00).unwrap().unwrap();
    assert_eq!(c.mmio_windows()[0], None);
    assert_eq!(c.msr_read(now, 0x803), Some(Ok(0x5_0014)));
    assert_eq!(c.msr_write(now, 0x1B, 0xD000_0900), Some(Err(GeneralProtection)));
}

#[test]
fn a_tsc_deadline_in_the_past_fires_at_once() {
    let now = VmTime(5000);
    let mut c = quiet();
    lapic_write(&mut c, now, reg::LVT_TIMER, 0x4_0045);
    let effects = c.msr_write(now, 0x6E0, 100).unwrap().unwrap();
    assert!(effects.contains(Effects::INTERRUPT));
    assert_eq!(c.msr_read(now, 0x6E0), Some(Ok(0)));
    c.msr_write(now, 0x6E0, 9000).unwrap().unwrap();
    assert_eq!(c.next_deadline(), Some(VmTime(9000)));
    c.msr_write(now, 0x3B, 4000).unwrap().unwrap();
    assert_eq!(
        c.next_deadline(),
        Some(VmTime(5000)),
        "TSC_ADJUST moves the counter"
    );
}

#[test]
fn both_resets_keep_cmos_and_only_the_cold_one_clears_the_shutdown_byte() {
    for (kind, shutdown) in [(ResetKind::Warm, 0x0A), (ResetKind::Cold, 0)] {
        let mut c = complex();
        for (index, value) in [(0x0F, 0x0A), (0x60, 0x77)] {
            out(&mut c, VmTime(0), 0x70, index);
            out(&mut c, VmTime(0), 0x71, value);
        }
        c.reset(VmTime(NANOS_PER_SEC), kind);
        assert_eq!((c.cmos(0x60), c.cmos(0x0F)), (0x77, shutdown));
        assert!(c.a20() && !c.has_interrupt());
        assert_eq!(c.next_deadline(), None);
        assert_eq!(c.read_tsc(VmTime(NANOS_PER_SEC)), 0);
    }
}

#[test]
fn an_idle_complex_without_timers_has_no_deadline() {
    let c = quiet();
    assert_eq!(c.next_deadline(), None);
}

#[test]
fn a_level_interrupt_that_no_local_apic_took_is_offered_again() {
    let now = VmTime(0);
    let mut c = quiet();
    apic_mode(&mut c);
    lapic_write(&mut c, now, reg::SVR, 0xFF);
    redirect(&mut c, 11, 0x8051);
    c.set_gsi(now, 11, WireSource::IoWorker, true);
    assert!(!c.interrupt_pending(now));
    lapic_write(&mut c, now, reg::SVR, 0x1FF);
    assert_eq!(c.acknowledge(now), Some(0x51));
}

#[test]
fn a_guest_that_masks_the_8254_is_not_woken_by_it() {
    let mut c = complex();
    apic_mode(&mut c);
    assert_eq!(c.next_deadline(), None);
    out(&mut c, VmTime(NANOS_PER_SEC), 0x20, 0x0A);
    assert_eq!(
        inb(&mut c, VmTime(NANOS_PER_SEC), 0x20) & 1,
        1,
        "the edge is latched all the same"
    );
}
