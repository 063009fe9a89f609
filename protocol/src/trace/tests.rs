//! Tests of the events and of the writer's end.

use super::*;
use crate::layout::SegmentSet;
use crate::ram::RamLayout;
use crate::ring::Consumer;

struct Machine {
    set: SegmentSet,
}

impl Machine {
    fn new() -> Self {
        let set = SegmentSet::create(RamLayout::new(1 << 20), 7).expect("segments");
        Self { set }
    }

    fn coordinator(&self) -> Ends {
        Ends::new(&self.set.maps_of_coordinator().expect("maps"))
    }

    fn tracer(&self, role: Role, generation: u32) -> Tracer {
        Tracer::attach(&Ends::new(&self.set.maps(role).expect("maps")), role, generation)
    }
}

fn events(ring: &mut Consumer, role: Role) -> Vec<Event> {
    let mut found = Vec::new();
    let mut record = [0; EVENT_SIZE];
    while let Some(r) = ring.next(&mut record).expect("a ring in order") {
        found.push(Event::check(&record[..r.len], role, HostTime(1), HostTime::now()).expect("a true event"));
    }
    ring.release_all();
    found
}

#[test]
fn what_is_not_wanted_is_not_written() {
    let machine = Machine::new();
    let tracer = machine.tracer(Role::Io, 1);
    assert!(!tracer.is_on());
    assert_eq!(tracer.begin(), Begun(0));
    tracer.instant(Kind::IrqHigh, 4);
    tracer.end(Kind::Turn, Begun(0), 1);
    let mut ring = machine.coordinator().trace_consumer(Role::Io).expect("a ring");
    assert_eq!(events(&mut ring, Role::Io), []);
}

#[test]
fn events_arrive_in_order_and_a_successor_goes_on() {
    let machine = Machine::new();
    let ends = machine.coordinator();
    turn_on(&ends, Role::Io);
    let mut ring = ends.trace_consumer(Role::Io).expect("a ring");
    let tracer = machine.tracer(Role::Io, 1);
    let begun = tracer.begin();
    tracer.instant(Kind::IrqHigh, 4);
    tracer.clone().end(Kind::Turn, begun, 9);
    drop(tracer);
    let successor = machine.tracer(Role::Io, 2);
    successor.end_on(Kind::DiskRead, 3, successor.begin(), 512);
    let seen = events(&mut ring, Role::Io);
    let what: Vec<_> = seen
        .iter()
        .map(|e| (e.what, e.generation, e.track, e.value))
        .collect();
    assert_eq!(
        what,
        [
            (What::Kind(Kind::IrqHigh), 1, 0, 4),
            (What::Kind(Kind::Turn), 1, 0, 9),
            (What::Kind(Kind::DiskRead), 2, 3, 512),
        ]
    );
    let (irq, turn) = (seen[0], seen[1]);
    assert!(turn.at <= irq.at && irq.at.0 <= turn.at.0 + turn.lasted);
    // The coordinator's head survives the word beside it, and the other workers were not turned on.
    assert!(machine.tracer(Role::Io, 3).is_on() && !machine.tracer(Role::Cpu, 1).is_on());
}

#[test]
fn a_full_ring_drops_and_says_how_many() {
    let machine = Machine::new();
    let ends = machine.coordinator();
    turn_on(&ends, Role::Cpu);
    let mut ring = ends.trace_consumer(Role::Cpu).expect("a ring");
    let tracer = machine.tracer(Role::Cpu, 1);
    let fit = crate::layout::TRACE_RING / (EVENT_SIZE + 4);
    for n in 0..fit as u64 + 1000 {
        tracer.instant(Kind::Interrupt, n);
    }
    let seen = events(&mut ring, Role::Cpu);
    assert!(seen.len() <= fit && seen.len() + 2 >= fit, "{}", seen.len());
    assert!((0..).zip(&seen).all(|(n, e)| e.value == n));
    tracer.instant(Kind::Interrupt, 7);
    let after = events(&mut ring, Role::Cpu);
    assert_eq!(after.len(), 2);
    let lost = fit as u64 + 1000 - seen.len() as u64;
    assert_eq!((after[0].what, after[0].value), (What::Dropped, lost));
    assert_eq!((after[1].what, after[1].value), (What::Kind(Kind::Interrupt), 7));
}

#[test]
fn what_cannot_be_true_is_refused() {
    let good = Event {
        at: HostTime(100),
        lasted: 50,
        value: u64::MAX,
        generation: 0x0123_4567,
        track: 3,
        what: What::Kind(Kind::DiskWrite),
    };
    let check = |e: &Event| Event::check(&e.to_record(), Role::Io, HostTime(100), HostTime(150));
    assert_eq!(check(&good), Ok(good));
    let refused = |change: fn(&mut Event)| {
        let mut bad = good;
        change(&mut bad);
        check(&bad).expect_err("refused")
    };
    assert_eq!(refused(|e| e.at = HostTime(99)), BadEvent::Time);
    assert_eq!(refused(|e| e.lasted = 51), BadEvent::Time);
    assert_eq!(refused(|e| e.lasted = u64::MAX), BadEvent::Time);
    assert_eq!(refused(|e| e.track = TRACKS), BadEvent::Track(TRACKS));
    assert_eq!(
        refused(|e| e.what = What::Kind(Kind::Draw)),
        BadEvent::Role(Kind::Draw)
    );
    let since = |record: &[u8]| Event::check(record, Role::Io, HostTime(0), HostTime(u64::MAX));
    assert_eq!(since(&[0; 31]), Err(BadEvent::Size(31)));
    assert_eq!(since(&[]), Err(BadEvent::Size(0)));
    let mut record = good.to_record();
    record[30..].copy_from_slice(&(Kind::ALL.len() as u16).to_le_bytes());
    assert_eq!(since(&record), Err(BadEvent::Kind(Kind::ALL.len() as u16)));
    // Whatever the bytes, an answer and no panic.
    for fill in 0..=u8::MAX {
        let _ = since(&[fill; EVENT_SIZE]);
    }
}

#[test]
fn names_can_stand_in_a_file_as_they_are() {
    for (n, kind) in (0..).zip(Kind::ALL) {
        assert_eq!(Kind::from_number(n), Some(*kind));
        let shown = match kind.show() {
            Show::Nothing => "",
            Show::Number(name) | Show::Hex(name) => name,
        };
        for text in [kind.name(), shown] {
            let plain = |b: u8| b == b' ' || b.is_ascii_alphanumeric() || b == b'-';
            assert!(text.bytes().all(plain), "{text}");
        }
    }
    assert_eq!(Kind::from_number(u16::MAX), None);
}
