//! The same data tests on both back ends: layout, rings, order, wrap, wake-up.
//!
//! Deadlines, seals, SIGKILL and what is left behind are promises of the Linux back end only, and tested there.
#![cfg(not(loom))]

use std::sync::Arc;
use std::thread;

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::doorbell::{Doorbell, Sleeper, SpinPolicy, Woken};
use quintet_protocol::handshake::{FileId, Role};
use quintet_protocol::layout::{Ends, SegmentSet, SleeperId};
use quintet_protocol::probe;
use quintet_protocol::ram::RamLayout;
use quintet_protocol::ring::{self, Consumer, Position, Producer, PushError};
use quintet_protocol::seqlock::{SeqReader, SeqWriter};
use quintet_protocol::shm::portable::{self, PortableSegment};
use quintet_protocol::shm::{Map, Segment, ViewMut};
use quintet_protocol::sync::{AtomicU32, Ordering};
use quintet_protocol::time::HostTime;

/// A name that nobody else has.
fn name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "/quintet-test-{}-{}-",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

const LEN: u64 = 64 << 10;
const SECONDS: u64 = 1_000_000_000;

/// A segment of either kind, with as many maps of it as a test wants.
enum Backend {
    Linux(Segment),
    Portable(PortableSegment),
}

impl Backend {
    fn both() -> [Self; 2] {
        [
            Self::Linux(Segment::create("backends", LEN).unwrap()),
            Self::Portable(PortableSegment::create(&name(), LEN).unwrap()),
        ]
    }

    fn map(&self) -> ViewMut {
        ViewMut::new(Arc::new(match self {
            Self::Linux(s) => Map::read_write(s.writer(), 0, LEN).unwrap(),
            Self::Portable(s) => portable::open(s.id(), 0, LEN, true).unwrap(),
        }))
    }

    /// Prepares the line of a doorbell.
    fn place(&self, line: &ViewMut) {
        if matches!(self, Self::Portable(_)) {
            portable::place_event(line).unwrap();
        }
    }
}

#[test]
fn two_maps_of_a_segment_show_the_same_bytes() {
    for backend in Backend::both() {
        let (a, b) = (backend.map(), backend.map());
        assert_eq!(a.len() as u64, LEN);
        a.store_u64(LEN as usize - 8, 0x1122_3344_5566_7788, Ordering::Release);
        assert_eq!(
            b.load_u64(LEN as usize - 8, Ordering::Acquire),
            0x1122_3344_5566_7788
        );
        assert_eq!(b.load_u64(0, Ordering::Relaxed), 0);
    }
}

#[test]
fn records_cross_in_order_with_sleeping_ends_and_wrapping_cursors() {
    for backend in Backend::both() {
        let (a, b) = (backend.map(), backend.map());
        let ring_part = |m: &ViewMut| m.slice(4096, ring::ring_size(1024));
        let head_part = |m: &ViewMut| m.slice(2048, 128);
        ring::format(
            &ring_part(&a),
            &head_part(&a),
            Position {
                cursor: u32::MAX - 255,
                number: 0,
            },
        );
        for line in [0, 512] {
            backend.place(&a.slice(line, 128));
        }
        let bell = |m: &ViewMut, at| Doorbell::new(m.slice(at, 128), m.slice(at + 128, 128).view().clone());
        let ear = |m: &ViewMut, at| Sleeper::new(m.slice(at, 128), m.slice(at + 128, 128), SpinPolicy::NEVER);
        let (to_consumer, space) = (bell(&a, 0), ear(&a, 512));
        let (to_producer, records) = (bell(&b, 512), ear(&b, 0));
        let mut p = Producer::attach(ring_part(&a), head_part(&a).view().clone()).unwrap();
        let mut c = Consumer::attach_at_head(head_part(&b), ring_part(&b).view().clone()).unwrap();
        let producer = thread::spawn(move || {
            for n in 0..2000u32 {
                while let Err(e) = p.push(&n.to_le_bytes()) {
                    assert!(matches!(e, PushError::Full { .. }), "{e}");
                    to_consumer.nudge();
                    space.wait(HostTime::after(60 * SECONDS), || p.has_room(4).unwrap());
                }
                to_consumer.nudge();
            }
        });
        let mut buf = [0; 8];
        let mut next = 0u32;
        while next < 2000 {
            match c.next(&mut buf).unwrap() {
                Some(_) => {
                    assert_eq!(buf[..4], next.to_le_bytes());
                    next += 1;
                }
                None => {
                    c.release_all();
                    to_producer.nudge();
                    let woken = records.wait(HostTime::after(60 * SECONDS), || c.has_pending());
                    assert_ne!(woken, Woken::Deadline);
                }
            }
        }
        c.release_all();
        to_producer.ring();
        producer.join().unwrap();
    }
}

#[test]
fn a_sleeper_is_woken_by_a_ring() {
    for backend in Backend::both() {
        let (a, b) = (backend.map(), backend.map());
        backend.place(&a.slice(0, 128));
        let bell = Doorbell::new(a.slice(0, 128), a.slice(128, 128).view().clone());
        let sleeper = Sleeper::new(b.slice(0, 128), b.slice(128, 128), SpinPolicy::NEVER);
        let waiter = thread::spawn(move || sleeper.wait(HostTime::after(60 * SECONDS), || false));
        while a.load_u32(128, Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        bell.ring();
        assert_eq!(waiter.join().unwrap(), Woken::Rung);
    }
}

#[test]
fn a_seqlocked_record_is_whole() {
    for backend in Backend::both() {
        let reader = SeqReader::new(backend.map());
        SeqWriter::new(backend.map()).write(&[5; 300]);
        let mut got = [0; 300];
        assert_eq!(reader.read(0, &mut got), Ok(2));
        assert_eq!(got, [5; 300]);
    }
}

#[test]
fn a_portable_segment_of_another_length_is_refused() {
    let segment = PortableSegment::create(&name(), 8192).unwrap();
    for (start, len) in [(0, 1 << 20), (4096, 8192), (u64::MAX, 4096)] {
        assert!(matches!(
            portable::open(segment.id(), start, len, false),
            Err(portable::PortableError::Length { .. })
        ));
    }
    assert!(portable::open("/quintet-no-such-segment", 0, 4096, false).is_err());
    let id = segment.id().to_owned();
    assert!(PortableSegment::create(&id, 8192).is_err(), "the name is taken");
    drop(segment);
    assert!(portable::open(&id, 0, 4096, false).is_err(), "the name is gone");
}

#[test]
fn a_whole_machine_of_either_kind_has_the_same_files() {
    let (ram, prefix) = (RamLayout::new(1 << 20), name());
    for set in [
        SegmentSet::create(ram, 5).unwrap(),
        SegmentSet::create_portable(ram, 5, &prefix).unwrap(),
    ] {
        let (cpu, io) = (set.maps(Role::Cpu).unwrap(), set.maps(Role::Io).unwrap());
        for file in FileId::ALL {
            let grant = set.grant(file, Role::Cpu).unwrap();
            assert_eq!(grant.1.is_some(), !set.is_portable());
            assert_eq!(cpu.view(file).len(), io.view(file).len());
            assert_eq!(
                cpu.view_mut(file).is_some(),
                file.writable_by(Role::Cpu),
                "{file:?}"
            );
        }
        set.guest_ram()
            .unwrap()
            .write(GuestPhys(0xFFFF0), b"here")
            .unwrap();
        let mut seen = [0; 4];
        cpu.view(FileId::GuestRam).read_bytes(0xFFFF0, &mut seen);
        assert_eq!(&seen, b"here");
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        assert_eq!(probe::judge_maps(&smaps, Role::Cpu, &cpu), Vec::<String>::new());
        let (ring, sleep) = (Ends::new(&io), Ends::new(&cpu));
        let sleeper = sleep.sleeper(SleeperId::Vcpu(0), SpinPolicy::NEVER);
        let waiter = thread::spawn(move || sleeper.wait(HostTime::after(60 * SECONDS), || false));
        ring.doorbell(SleeperId::Vcpu(0)).ring();
        assert_eq!(waiter.join().unwrap(), Woken::Rung);
    }
    let left = std::fs::read_dir("/dev/shm").unwrap().flatten();
    let left = left.filter(|e| e.file_name().to_string_lossy().contains(&prefix[1..]));
    assert_eq!(left.count(), 0);
}
