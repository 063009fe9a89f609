//! Guests that do anything: no access panics, and what the run loop relies on holds throughout.

use proptest::prelude::*;

use super::snapshot::Snapshot as _;
use super::wires::WireSource;
use super::{CoreComplex, CoreConfig, PCI_ELCR, ResetKind};
use quintet_protocol::addr::GuestPhys;
use quintet_protocol::ram::RamLayout;
use quintet_protocol::time::VmTime;

#[derive(Clone, Debug)]
enum Step {
    Out(u16, u32, u8),
    In(u16, u8),
    Write(u64, u64, u8),
    Read(u64, u8),
    Wrmsr(u32, u64),
    Rdmsr(u32),
    Line(u8, bool),
    Pulse(u8),
    Pirq(u8, bool),
    Routing([u8; 4]),
    Acknowledge,
    Cr8(u8),
    Reset(bool),
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![
        0x20u16..0x22,
        0xA0u16..0xA2,
        0x40u16..0x44,
        Just(0x61),
        0x70u16..0x72,
        Just(0x92),
        0x4D0u16..0x4D2,
        Just(0xCF8),
        Just(0xCF9),
        0x600u16..0x640,
        0xAFE0u16..0xAFE4,
        0xB2u16..0xB4,
        any::<u16>(),
    ]
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        (0u64..0x40).prop_map(|r| 0xFEE0_0000 + r * 16),
        prop_oneof![Just(0u64), Just(0x10), Just(0x40)].prop_map(|r| 0xFEC0_0000 + r),
        (0u64..0x180).prop_map(|r| 0xFED0_0000 + r),
        any::<u64>(),
    ]
}

fn size() -> impl Strategy<Value = u8> {
    prop_oneof![Just(1u8), Just(2), Just(4)]
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0u64..0x100, 0u64..0x40000]
}

fn step() -> impl Strategy<Value = Step> {
    let msr = prop_oneof![
        Just(0x10u32),
        Just(0x1B),
        Just(0x3B),
        Just(0x6E0),
        0x800u32..0x840
    ];
    prop_oneof![
        6 => (port(), value(), size()).prop_map(|(p, v, s)| Step::Out(p, v as u32, s)),
        3 => (port(), size()).prop_map(|(p, s)| Step::In(p, s)),
        5 => (address(), value(), prop_oneof![size(), Just(8u8)]).prop_map(|(a, v, s)| Step::Write(a, v, s)),
        2 => (address(), prop_oneof![size(), Just(8u8)]).prop_map(|(a, s)| Step::Read(a, s)),
        2 => (msr.clone(), value()).prop_map(|(m, v)| Step::Wrmsr(m, v)),
        1 => msr.prop_map(Step::Rdmsr),
        2 => (0u8..26, any::<bool>()).prop_map(|(l, up)| Step::Line(l, up)),
        1 => (0u8..26).prop_map(Step::Pulse),
        1 => (0u8..5, any::<bool>()).prop_map(|(p, up)| Step::Pirq(p, up)),
        1 => any::<[u8; 4]>().prop_map(Step::Routing),
        4 => Just(Step::Acknowledge),
        1 => (0u8..16).prop_map(Step::Cr8),
        1 => any::<bool>().prop_map(Step::Reset),
    ]
}

fn apply(c: &mut CoreComplex, now: VmTime, step: &Step) {
    match *step {
        Step::Out(port, value, size) => drop(c.port_write(now, port, value, size)),
        Step::In(port, size) => drop(c.port_read(now, port, size)),
        Step::Write(address, value, size) => drop(c.mmio_write(now, GuestPhys(address), size, value)),
        Step::Read(address, size) => drop(c.mmio_read(now, GuestPhys(address), size)),
        Step::Wrmsr(msr, value) => drop(c.msr_write(now, msr, value)),
        Step::Rdmsr(msr) => drop(c.msr_read(now, msr)),
        Step::Line(line, level) if line < 16 => c.set_isa_line(now, line, WireSource::IoWorker, level),
        Step::Line(line, level) => c.set_gsi(now, line, WireSource::Test, level),
        Step::Pulse(line) => c.pulse(now, line),
        Step::Pirq(pin, level) => c.set_pirq(now, pin, level),
        Step::Routing(routing) => c.set_pirq_routing(now, routing),
        Step::Acknowledge => drop(c.acknowledge(now)),
        Step::Cr8(value) => drop(c.set_cr8(now, value)),
        Step::Reset(cold) => c.reset(now, if cold { ResetKind::Cold } else { ResetKind::Warm }),
    }
}

fn complex() -> CoreComplex {
    let config = CoreConfig {
        tsc_hz: 2_400_000_000,
        unix_nanos: 1 << 60,
        ram: RamLayout::new(64 << 20),
        phys_bits: 40,
        cmos: Vec::new(),
    };
    let mut c = CoreComplex::new(config);
    c.firmware_state(VmTime(0), PCI_ELCR);
    c.set_pmbase(true, 0x600);
    c
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_guest_panics_the_complex_and_deadlines_lie_ahead(
        steps in proptest::collection::vec((step(), prop_oneof![0u64..2000, 0u64..50_000_000, Just(40_000_000_000)]), 1..120),
    ) {
        let mut c = complex();
        let mut now = VmTime(0);
        for (step, gap) in &steps {
            now = now + *gap;
            apply(&mut c, now, step);
            let pending = c.interrupt_pending(now);
            if let Some(deadline) = c.next_deadline() {
                prop_assert!(deadline > now, "{deadline:?} at {now:?} after {step:?}");
            }
            prop_assert_eq!(pending, c.has_interrupt());
            while c.pop_event().is_some() {}
        }
    }

    #[test]
    fn a_restored_complex_behaves_as_the_saved_one(
        before in proptest::collection::vec(step(), 1..60),
        after in proptest::collection::vec(step(), 1..30),
    ) {
        let mut a = complex();
        let mut now = VmTime(0);
        for step in &before {
            now = now + 12_345;
            apply(&mut a, now, step);
        }
        a.advance(now);
        let mut b = complex();
        b.restore_bytes(&a.save_bytes().unwrap()).unwrap();
        b.advance(now);
        for step in &after {
            now = now + 1_234_567;
            apply(&mut a, now, step);
            apply(&mut b, now, step);
            prop_assert_eq!(a.acknowledge(now), b.acknowledge(now));
            prop_assert_eq!(a.next_deadline(), b.next_deadline());
        }
        prop_assert_eq!(a.save(), b.save());
    }

    /// However time is cut into steps, the same ticks arrive.
    #[test]
    fn ticks_do_not_depend_on_how_often_the_complex_is_asked(
        gaps in proptest::collection::vec(1u64..30_000_000, 1..60),
        count in 2000u16..60_000,
        mode in prop_oneof![Just(0x34u8), Just(0x36)],
    ) {
        let run = |gaps: &mut dyn Iterator<Item = u64>| {
            let mut c = complex();
            for (port, value) in [(0x43, mode), (0x40, count as u8), (0x40, (count >> 8) as u8)] {
                c.port_write(VmTime(0), port, u32::from(value), 1);
            }
            let (mut now, mut ticks) = (VmTime(0), 0);
            for gap in gaps {
                now = now + gap;
                while c.acknowledge(now).is_some() {
                    c.port_write(now, 0x20, 0x20, 1);
                    ticks += 1;
                }
            }
            ticks
        };
        let total: u64 = gaps.iter().sum();
        prop_assume!(total < 900_000_000);
        prop_assert_eq!(run(&mut gaps.iter().copied()), run(&mut core::iter::once(total)));
    }
}
